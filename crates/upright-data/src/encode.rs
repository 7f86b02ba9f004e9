//! Rows to examples: rendered, tokenized and truncated, on several threads, in the order of the
//! rows.

use std::sync::atomic::{AtomicBool, Ordering};

use super::conversation::{Message, Prompt, Role, Row};
use super::template::{Piece, Turns};
use super::{Example, Response, Template, Tokenizer, TooLong, Truncation, split};
use upright_base::{Error, Result, parallel};

/// A row after encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// The row can be trained on.
    Usable {
        /// Its token ids.
        example: Example,
        /// Hash of its opening words; no setting changes it.
        prompt_hash: u64,
        /// Whether its prompt is truncated.
        prompt_cut: bool,
        /// Number of truncated responses.
        responses_cut: usize,
    },
    /// The row cannot be trained on, with the reason.
    Dropped(&'static str),
}

impl Encoded {
    /// Removes the rejected response, after it has had its effect on truncating and dropping.
    /// Complete responses end with `end`.
    #[must_use]
    pub fn chosen_alone(mut self, end: u32) -> Self {
        if let Self::Usable {
            example,
            responses_cut,
            ..
        } = &mut self
        {
            example.responses.truncate(1);
            *responses_cut = example
                .responses
                .iter()
                .filter(|response| response.tokens.last() != Some(&end))
                .count();
        }
        self
    }
}

/// How rows become examples.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// The template.
    pub template: &'a Template,
    /// Which turns of a conversation are trained on.
    pub turns: Turns,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How long a row may be.
    pub truncation: Truncation,
    /// If nobody named the template, the setting that names another one, for errors.
    pub default_setting: Option<&'a str>,
}

impl Encoder<'_> {
    /// Encodes one row.
    ///
    /// # Errors
    /// The template cannot render it or the tokenizer cannot encode it; the message starts with the row's place.
    pub fn row(&self, row: &Row) -> Result<Encoded> {
        let Self {
            template,
            tokenizer,
            ..
        } = self;
        if let (Turns::Last, [said]) = (self.turns, row.responses.as_slice())
            && !said.is_trained()
        {
            return Ok(Encoded::Dropped(
                "last turn is masked (weight 0 or train false)",
            ));
        }
        let opening = &row.prompt;
        let row = &*template.reads(row);
        let rendered = match (template.render(row, self.turns), self.default_setting) {
            (Err(error), Some(setting)) => return Err(Template::by_default(error, setting)),
            (rendered, _) => rendered?,
        };
        let prompt = template
            .prompt_ids(&rendered.prompt, tokenizer)
            .map_err(|error| error.at(row.place()))?;
        if prompt.is_empty() {
            return Ok(Encoded::Dropped("empty prompt"));
        }
        let (before, end) = (prompt.last().copied(), template.end_of(row, tokenizer));
        let mut responses = Vec::with_capacity(rendered.responses.len());
        for pieces in &rendered.responses {
            let response = self.response(pieces, before, end);
            responses.push(response.map_err(|error| error.at(row.place()))?);
        }
        if responses.iter().any(|response| response.tokens.is_empty()) {
            let mut pieces = rendered.responses.iter().flatten();
            return Ok(Encoded::Dropped(if pieces.all(|piece| !piece.scored) {
                "every turn is masked (weight 0 or train false)"
            } else {
                "empty response"
            }));
        }
        let head = template.head(&prompt, tokenizer);
        let Some(fitted) = self.truncation(row).fit(prompt, head, responses, end) else {
            return Ok(Encoded::Dropped("longer than the maximum length"));
        };
        if matches!(fitted.responses.as_slice(), [chosen, rejected] if chosen.tokens == rejected.tokens)
        {
            return Ok(Encoded::Dropped(
                "chosen equals rejected within the maximum length",
            ));
        }
        let mut example = Example {
            row: row.index,
            prompt: fitted.prompt,
            responses: fitted.responses,
        };
        for response in &mut example.responses {
            response.drop_masked_end();
            if response.loss_tokens() == 0 {
                return Ok(Encoded::Dropped("longer than the maximum length"));
            }
        }
        Ok(Encoded::Usable {
            example,
            prompt_hash: split::hash(opening),
            prompt_cut: fitted.prompt_cut,
            responses_cut: fitted.responses_cut,
        })
    }

    /// How to truncate a row. If several turns are trained on, the prompt is only the opening of
    /// the conversation, so the end is truncated first.
    fn truncation(&self, row: &Row) -> Truncation {
        let said = |turn: &Message| turn.role == Role::Assistant;
        let several = matches!(&row.prompt, Prompt::Messages(turns) if turns.iter().any(said));
        match self.truncation.rule {
            TooLong::CutPrompt
                if self.turns == Turns::All && several && row.responses.len() == 1 =>
            {
                Truncation {
                    rule: TooLong::CutResponse,
                    ..self.truncation
                }
            }
            _ => self.truncation,
        }
    }

    /// Ids of a text after an id, the same as in the whole text. Tokenizers start anew after an
    /// added token, some with a space.
    fn following(&self, before: Option<u32>, text: &str) -> Result<Vec<u32>> {
        if let Some(before) = before.filter(|&id| self.tokenizer.is_added(id)) {
            let whole = self
                .tokenizer
                .verbatim(&(self.tokenizer.decode(&[before])? + text))?;
            if let Some(ids) = whole.strip_prefix(&[before]) {
                return Ok(ids.to_vec());
            }
        }
        self.tokenizer.continued(text)
    }

    /// A response after the id `before`, without its end token `end`, which is appended later if
    /// there is room. A chat template may write text after the end token, usually a line
    /// break. It is masked if another turn follows, and left out otherwise: the model writes
    /// nothing after it has ended its turn.
    fn response(&self, pieces: &[Piece], before: Option<u32>, end: u32) -> Result<Response> {
        let mut response = Response::default();
        for piece in pieces {
            let last = response.tokens.last().copied();
            let new = self.following(last.or(before), &piece.text)?;
            let ended = new
                .iter()
                .rposition(|&id| id == end)
                .map_or(new.len(), |at| at + 1);
            let in_loss = match (piece.scored, self.template) {
                (false, _) => 0,
                (true, Template::Chat(_)) => ended,
                (true, _) => new.len(),
            };
            let start = response.tokens.len();
            response.tokens.extend(&new);
            if in_loss < new.len() {
                response.masked.push(start + in_loss..response.tokens.len());
            }
        }
        response.drop_masked_end();
        while response.tokens.last() == Some(&end) {
            response.tokens.pop();
        }
        Ok(response)
    }
}

/// Encodes rows on `threads` threads; their number does not change the result. `progress` receives
/// the number of rows done, and returns whether to continue.
///
/// # Errors
/// The error of the first row that has one; or `progress` requested a stop.
pub fn encode(
    rows: &[Row],
    encoder: &Encoder<'_>,
    threads: usize,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Encoded>> {
    const BLOCK: usize = 64;
    let stopped = AtomicBool::new(false);
    let blocks: Vec<&[Row]> = rows.chunks(BLOCK).collect();
    let work = |index: usize| {
        let mut encoded = Vec::with_capacity(blocks[index].len());
        for row in blocks[index] {
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::interrupted("while encoding rows"));
            }
            encoded.push(encoder.row(row)?);
        }
        Ok(encoded)
    };
    let encoded = parallel::map(blocks.len(), threads, work, &mut |done| {
        if !progress((done * BLOCK).min(rows.len())) {
            stopped.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(encoded.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::TemplateName;
    use super::super::tokenize::tests::{EOS, bytewise, folder};
    use super::*;

    fn row(index: usize, prompt: &str, responses: &[&str]) -> Row {
        let responses = responses
            .iter()
            .map(|&response| Message::said(response))
            .collect();
        Row {
            responses,
            ..Row::unanswered(index, None, Prompt::Text(prompt.to_owned()))
        }
    }

    fn truncation(max_length: usize, rule: TooLong) -> Truncation {
        Truncation {
            max_length,
            min_prompt: 2,
            rule,
        }
    }

    fn raw(tokenizer: &Tokenizer) -> Encoder<'_> {
        Encoder {
            template: &Template::Raw,
            turns: Turns::Last,
            tokenizer,
            truncation: truncation(99, TooLong::Drop),
            default_setting: None,
        }
    }

    fn one(row: &Row, template: Template, truncation: Truncation) -> Encoded {
        let encoder = Encoder {
            template: &template,
            turns: Turns::Last,
            tokenizer: &bytewise(),
            truncation,
            default_setting: None,
        };
        encoder.row(row).unwrap()
    }

    #[test]
    fn the_first_token_of_a_response_is_its_own_and_eos_ends_it() {
        let tokenizer = bytewise();
        let found = one(
            &row(4, "Hi", &["Yes", "No"]),
            Template::UserAssistant,
            truncation(99, TooLong::CutPrompt),
        );
        let Encoded::Usable {
            example,
            prompt_hash,
            prompt_cut: false,
            responses_cut: 0,
        } = found
        else {
            panic!("{found:?}")
        };
        assert_eq!(
            (example.row, prompt_hash),
            (4, split::hash(&Prompt::Text("Hi".into())))
        );
        assert_eq!(
            tokenizer.decode(&example.prompt).unwrap(),
            "User: Hi\nAssistant:"
        );
        assert_eq!(
            tokenizer.decode(&example.responses[0].tokens).unwrap(),
            " Yes<eos>"
        );
        assert_eq!(example.responses[1].tokens.last(), Some(&EOS));
    }

    #[test]
    fn turns_that_are_only_read_are_not_scored() {
        let say = |role, content: &str, weight: f64| {
            let mut message = Message::new(role, content);
            message.more.insert("weight".into(), weight.into());
            message
        };
        let talk = |first: f64, last: f64| {
            let asked = [
                say(Role::User, "a", 1.0),
                say(Role::Assistant, "b", first),
                say(Role::User, "c", 1.0),
            ];
            Row {
                responses: vec![say(Role::Assistant, "d", last)],
                ..Row::unanswered(0, None, Prompt::Messages(asked.to_vec()))
            }
        };
        let tokenizer = bytewise();
        let encode = |row: &Row, turns| {
            let encoder = Encoder {
                template: &Template::UserAssistant,
                turns,
                tokenizer: &tokenizer,
                truncation: truncation(99, TooLong::Drop),
                default_setting: None,
            };
            encoder.row(row).unwrap()
        };
        let scored = |row: &Row| match encode(row, Turns::All) {
            Encoded::Usable { example, .. } => {
                let Response { tokens, masked } = &example.responses[0];
                let mut in_loss = Vec::new();
                for (at, token) in tokens.iter().enumerate() {
                    if !masked.iter().any(|range| range.contains(&at)) {
                        in_loss.push(*token);
                    }
                }
                tokenizer.decode(&in_loss).unwrap()
            }
            Encoded::Dropped(reason) => reason.to_owned(),
        };
        assert_eq!(scored(&talk(1.0, 1.0)), " b d<eos>");
        assert_eq!(scored(&talk(0.0, 1.0)), " d<eos>");
        assert_eq!(scored(&talk(1.0, 0.0)), " b<eos>");
        assert_eq!(
            scored(&talk(0.0, 0.0)),
            "every turn is masked (weight 0 or train false)"
        );
        assert!(matches!(
            encode(&talk(0.0, 1.0), Turns::Last),
            Encoded::Usable { .. }
        ));
        assert_eq!(
            encode(&talk(1.0, 0.0), Turns::Last),
            Encoded::Dropped("last turn is masked (weight 0 or train false)")
        );
    }

    fn talk(turns: &[&str]) -> Row {
        let (said, before) = turns.split_last().unwrap();
        let role = |index: usize| {
            if index.is_multiple_of(2) {
                Role::User
            } else {
                Role::Assistant
            }
        };
        let before = before
            .iter()
            .enumerate()
            .map(|(index, text)| Message::new(role(index), *text))
            .collect();
        Row {
            responses: vec![Message::said(*said)],
            ..Row::unanswered(0, None, Prompt::Messages(before))
        }
    }

    #[test]
    fn a_conversation_of_which_every_turn_is_imitated_loses_its_end() {
        let tokenizer = bytewise();
        let cut = |row: &Row, turns, rule| {
            let truncation = truncation(40, rule);
            let found = Encoder {
                template: &Template::UserAssistant,
                turns,
                tokenizer: &tokenizer,
                truncation,
                default_setting: None,
            }
            .row(row);
            let Encoded::Usable { example, .. } = found.unwrap() else {
                panic!("usable")
            };
            [&example.prompt, &example.responses[0].tokens]
                .map(|ids| tokenizer.decode(ids).unwrap())
        };
        let long = talk(&["first question", "first answer", "second", "second answer"]);
        let start = [
            "User: first question\nAssistant:".to_owned(),
            " first an".to_owned(),
        ];
        assert_eq!(cut(&long, Turns::All, TooLong::CutPrompt), start);
        assert_eq!(cut(&long, Turns::All, TooLong::CutResponse), start);
        let end = |[prompt, response]: [String; 2]| (prompt.ends_with("ond\nAssistant:"), response);
        assert_eq!(
            end(cut(&long, Turns::Last, TooLong::CutPrompt)),
            (true, " second answer<eos>".to_owned())
        );
        // A single turn is the last turn, too.
        let one = talk(&["a question that is rather long", "answer"]);
        assert_eq!(
            cut(&one, Turns::All, TooLong::CutPrompt),
            cut(&one, Turns::Last, TooLong::CutPrompt)
        );
    }

    #[test]
    fn turns_have_the_ids_of_the_whole_text() {
        let legacy = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let first = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        for (normalizer, pre_tokenizer) in [(legacy, Value::Null), (Value::Null, first)] {
            let dir = folder(|file| {
                file["normalizer"] = normalizer;
                file["pre_tokenizer"] = pre_tokenizer;
                file["decoder"] = json!({"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
                let letters = "▁\n[]/INSTabcd".chars().enumerate();
                file["model"]["vocab"] = letters
                    .map(|(id, letter)| (letter.to_string(), json!(id)))
                    .collect();
            });
            let settings = json!({"eos_token": "<eos>", "bos_token": "<bos>"});
            std::fs::write(
                dir.path().join("tokenizer_config.json"),
                settings.to_string(),
            )
            .unwrap();
            let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
            // Llama 2's turns; turns that start with a token.
            for (asks, says) in [
                ("[INST] ' + m.content + ' [/INST]'", "' ' + m.content"),
                ("' + m.content + bos_token", "m.content"),
            ] {
                let path = dir.path().join("turns.jinja");
                let text = format!(
                    "{{% for m in messages %}}{{{{ ('{asks}) if m.role == 'user' else ({says} + eos_token) }}}}{{% endfor %}}"
                );
                std::fs::write(&path, text).unwrap();
                let template =
                    Template::choose(Some(&TemplateName::File(path)), &[], &tokenizer).unwrap();
                let row = talk(&["a", "b", "c", "d"]);
                let Template::Chat(chat) = &template else {
                    panic!("a chat template")
                };
                let whole = [row.prompt.messages(), row.responses.clone()].concat();
                let whole = tokenizer
                    .verbatim(&chat.text(&whole, &[], false).unwrap().text)
                    .unwrap();
                for turns in [Turns::Last, Turns::All] {
                    let truncation = truncation(99, TooLong::Drop);
                    let encoder = Encoder {
                        template: &template,
                        turns,
                        tokenizer: &tokenizer,
                        truncation,
                        default_setting: None,
                    };
                    let Encoded::Usable { example, .. } = encoder.row(&row).unwrap() else {
                        panic!("usable")
                    };
                    assert_eq!(
                        [&example.prompt[..], &example.responses[0].tokens].concat(),
                        whole,
                        "{turns:?} {says}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_are_dropped_by_name() {
        let roomy = truncation(99, TooLong::CutPrompt);
        let dropped = |row: &Row, truncation| match one(row, Template::Raw, truncation) {
            Encoded::Dropped(reason) => reason,
            usable @ Encoded::Usable { .. } => panic!("{usable:?}"),
        };
        assert_eq!(dropped(&row(0, "p", &["<eos>"]), roomy), "empty response");
        assert_eq!(
            dropped(&row(0, "p", &["abcdefgh"]), truncation(5, TooLong::Drop)),
            "longer than the maximum length"
        );
        let alike = row(0, "p", &["abcdefgh", "abcdefxy"]);
        assert_eq!(
            dropped(&alike, truncation(5, TooLong::CutPrompt)),
            "chosen equals rejected within the maximum length"
        );
        assert_eq!(
            dropped(&row(0, "p", &["a", "a<eos>"]), roomy),
            "chosen equals rejected within the maximum length"
        );
    }

    #[test]
    fn many_rows_keep_their_order_and_the_first_error_wins() {
        let rows: Vec<Row> = (0..1000)
            .map(|index| row(index, &format!("p{index}"), &["a", "b"]))
            .collect();
        let tokenizer = bytewise();
        let mut seen = Vec::new();
        let encoded = encode(&rows, &raw(&tokenizer), 3, &mut |done| {
            seen.push(done);
            true
        })
        .unwrap();
        assert_eq!(seen.last(), Some(&1000));
        assert_eq!(
            encode(&rows, &raw(&tokenizer), 1, &mut |_| true).unwrap(),
            encoded
        );
        assert!(seen.is_sorted());
        for (index, encoded) in encoded.iter().enumerate() {
            assert!(matches!(encoded, Encoded::Usable { example, .. } if example.row == index));
        }
        let tokenizer = tokenizer.for_vocabulary(257).unwrap();
        let mut rows = rows;
        rows[900].prompt = Prompt::Text("<bos>".into());
        rows[300].responses[1] = Message::said("x<bos>");
        let error = encode(&rows, &raw(&tokenizer), 3, &mut |_| true).unwrap_err();
        assert!(
            error
                .message
                .starts_with("row 300: the tokenizer gives id 257"),
            "{}",
            error.message
        );
        assert_eq!(encode(&[], &raw(&tokenizer), 3, &mut |_| true).unwrap(), []);
    }
}
