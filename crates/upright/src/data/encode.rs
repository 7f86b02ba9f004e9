//! Rows to examples: rendered, tokenised and fitted, on several threads, in the order of the rows.

use std::ops::Range;

use super::rows::Row;
use super::template::{Piece, Turns};
use super::{Example, Template, Tokenizer, Truncation, hash64};
use crate::{Result, parallel};

/// A row after encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// It can be trained on.
    Usable {
        /// Its ids.
        example: Example,
        /// Hash of its rendered prompt.
        prompt_hash: u64,
        /// Whether its prompt was cut to fit.
        prompt_cut: bool,
        /// How many of its responses were.
        responses_cut: usize,
    },
    /// It cannot, with the reason.
    Dropped(&'static str),
}

impl Encoded {
    /// Without the rejected response, once that has had its say in what is cut and dropped. Whole responses end in `end`.
    #[must_use]
    pub fn chosen_alone(mut self, end: u32) -> Self {
        if let Self::Usable { example, responses_cut, .. } = &mut self {
            example.responses.truncate(1);
            example.read.truncate(1);
            *responses_cut = example.responses.iter().filter(|response| response.last() != Some(&end)).count();
        }
        self
    }
}

/// How rows become examples.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// The wording.
    pub template: &'a Template,
    /// Which turns of a conversation are imitated.
    pub turns: Turns,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How long a row may be.
    pub truncation: Truncation,
}

/// A response as ids, and the stretches of it that are only read.
type Said = (Vec<u32>, Vec<Range<usize>>);

impl Encoder<'_> {
    /// Encodes one row.
    ///
    /// # Errors
    /// The template cannot render it or the tokenizer cannot encode it; the message starts with the row's place.
    pub fn row(&self, row: &Row) -> Result<Encoded> {
        let Self { template, tokenizer, .. } = self;
        if let (Turns::Last, [said]) = (self.turns, row.responses.as_slice())
            && !said.is_trained()
        {
            return Ok(Encoded::Dropped("last turn marked as only read"));
        }
        let rendered = template.render(row, self.turns)?;
        let prompt = template.prompt_ids(&rendered.prompt, tokenizer).map_err(|error| error.at(row.place()))?;
        if prompt.is_empty() {
            return Ok(Encoded::Dropped("empty prompt"));
        }
        let said: Result<Vec<Said>> = rendered.responses.iter().map(|pieces| self.response(pieces)).collect();
        let (responses, read): (Vec<_>, Vec<_>) = said.map_err(|error| error.at(row.place()))?.into_iter().unzip();
        if responses.iter().any(Vec::is_empty) {
            let read = rendered.responses.iter().flatten().all(|piece| !piece.scored);
            return Ok(Encoded::Dropped(if read { "every turn marked as only read" } else { "empty response" }));
        }
        let head = template.head(&prompt, tokenizer);
        let Some(fitted) = self.truncation.fit(prompt, head, responses, template.end(tokenizer)) else {
            return Ok(Encoded::Dropped("longer than the maximum length"));
        };
        if matches!(fitted.responses.as_slice(), [chosen, rejected] if chosen == rejected) {
            return Ok(Encoded::Dropped("chosen equals rejected within the maximum length"));
        }
        let mut example = Example { row: row.index, prompt: fitted.prompt, responses: fitted.responses, read };
        example.clip();
        if (0..example.responses.len()).any(|response| example.scored(response) == 0) {
            return Ok(Encoded::Dropped("longer than the maximum length"));
        }
        Ok(Encoded::Usable {
            example,
            prompt_hash: hash64(&rendered.prompt),
            prompt_cut: fitted.prompt_cut,
            responses_cut: fitted.responses_cut,
        })
    }

    /// Ids of a response without the token that ends it, which is put back where there is room. What a chat template
    /// writes after that token, a line break mostly, is read where a turn follows and left out where none does: a model
    /// that has ended its turn is not asked for more.
    fn response(&self, pieces: &[Piece]) -> Result<Said> {
        let (template, end) = (self.template, self.template.end(self.tokenizer));
        let (mut ids, mut read): Said = (Vec::new(), Vec::new());
        for piece in pieces {
            let new = self.tokenizer.continued(&piece.text)?;
            let ended = new.iter().rposition(|&id| id == end).map_or(new.len(), |at| at + 1);
            let scored = match (piece.scored, template) {
                (false, _) => 0,
                (true, Template::Chat(_)) => ended,
                (true, _) => new.len(),
            };
            if scored < new.len() {
                read.push(ids.len() + scored..ids.len() + new.len());
            }
            ids.extend(new);
        }
        while let Some(last) = read.pop_if(|last| last.end == ids.len()) {
            ids.truncate(last.start);
        }
        while ids.last() == Some(&end) {
            ids.pop();
        }
        Ok((ids, read))
    }
}

/// Encodes rows on so many threads, on which the result does not depend; `progress` is called with the number of rows done.
///
/// # Errors
/// That of the first row that has one.
pub fn encode(
    rows: &[Row],
    encoder: &Encoder<'_>,
    threads: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Encoded>> {
    const BLOCK: usize = 64;
    let blocks: Vec<&[Row]> = rows.chunks(BLOCK).collect();
    let work = |index: usize| blocks[index].iter().map(|row| encoder.row(row)).collect::<Result<Vec<_>>>();
    let encoded = parallel::map(blocks.len(), threads, work, &mut |done| progress((done * BLOCK).min(rows.len())))?;
    Ok(encoded.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Message, Prompt, Role};
    use super::super::tokenize::tests::{EOS, bytewise};
    use super::super::{TooLong, Truncation};
    use super::*;

    fn row(index: usize, prompt: &str, responses: &[&str]) -> Row {
        let responses = responses.iter().map(|&response| Message::said(response)).collect();
        Row { responses, ..Row::unanswered(index, None, Prompt::Text(prompt.to_owned())) }
    }

    fn truncation(max_length: usize, rule: TooLong) -> Truncation {
        Truncation { max_length, min_prompt: 2, rule }
    }

    fn raw(tokenizer: &Tokenizer) -> Encoder<'_> {
        Encoder { template: &Template::Raw, turns: Turns::Last, tokenizer, truncation: truncation(99, TooLong::Drop) }
    }

    fn one(row: &Row, template: Template, truncation: Truncation) -> Encoded {
        let encoder = Encoder { template: &template, turns: Turns::Last, tokenizer: &bytewise(), truncation };
        encoder.row(row).unwrap()
    }

    #[test]
    fn the_first_token_of_a_response_is_its_own_and_eos_ends_it() {
        let tokenizer = bytewise();
        let found = one(&row(4, "Hi", &["Yes", "No"]), Template::UserAssistant, truncation(99, TooLong::CutPrompt));
        let Encoded::Usable { example, prompt_hash, prompt_cut: false, responses_cut: 0 } = found else {
            panic!("{found:?}")
        };
        assert_eq!((example.row, prompt_hash), (4, hash64("User: Hi\nAssistant:")));
        assert_eq!(tokenizer.decode(&example.prompt).unwrap(), "User: Hi\nAssistant:");
        assert_eq!(tokenizer.decode(&example.responses[0]).unwrap(), " Yes<eos>");
        assert_eq!(example.responses[1].last(), Some(&EOS));
    }

    #[test]
    fn turns_that_are_only_read_are_not_scored() {
        let say = |role, content: &str, weight: f64| {
            let mut message = Message::new(role, content);
            message.more.insert("weight".into(), weight.into());
            message
        };
        let talk = |first: f64, last: f64| {
            let asked = [say(Role::User, "a", 1.0), say(Role::Assistant, "b", first), say(Role::User, "c", 1.0)];
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
            };
            encoder.row(row).unwrap()
        };
        let scored = |row: &Row| match encode(row, Turns::All) {
            Encoded::Usable { example, .. } => {
                let response = &example.responses[0];
                let read = |at: &usize| !example.read_of(0).iter().any(|read| read.contains(at));
                tokenizer.decode(&(0..response.len()).filter(read).map(|at| response[at]).collect::<Vec<_>>()).unwrap()
            }
            Encoded::Dropped(reason) => reason.to_owned(),
        };
        assert_eq!(scored(&talk(1.0, 1.0)), " b d<eos>");
        assert_eq!(scored(&talk(0.0, 1.0)), " d<eos>");
        assert_eq!(scored(&talk(1.0, 0.0)), " b<eos>");
        assert_eq!(scored(&talk(0.0, 0.0)), "every turn marked as only read");
        assert!(matches!(encode(&talk(0.0, 1.0), Turns::Last), Encoded::Usable { .. }));
        assert_eq!(encode(&talk(1.0, 0.0), Turns::Last), Encoded::Dropped("last turn marked as only read"));
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
        assert_eq!(dropped(&row(0, "p", &["a", "a<eos>"]), roomy), "chosen equals rejected within the maximum length");
    }

    #[test]
    fn many_rows_keep_their_order_and_the_first_error_wins() {
        let rows: Vec<Row> = (0..1000).map(|index| row(index, &format!("p{index}"), &["a", "b"])).collect();
        let tokenizer = bytewise();
        let mut seen = Vec::new();
        let encoded = encode(&rows, &raw(&tokenizer), 3, &mut |done| seen.push(done)).unwrap();
        assert_eq!(seen.last(), Some(&1000));
        assert_eq!(encode(&rows, &raw(&tokenizer), 1, &mut |_| ()).unwrap(), encoded);
        assert!(seen.is_sorted());
        for (index, encoded) in encoded.iter().enumerate() {
            assert!(matches!(encoded, Encoded::Usable { example, .. } if example.row == index));
        }
        let tokenizer = tokenizer.for_vocabulary(257).unwrap();
        let mut rows = rows;
        rows[900].prompt = Prompt::Text("<bos>".into());
        rows[300].responses[1] = Message::said("x<bos>");
        let error = encode(&rows, &raw(&tokenizer), 3, &mut |_| ()).unwrap_err();
        assert!(error.message.starts_with("row 300: the tokenizer gives id 257"), "{}", error.message);
        assert_eq!(encode(&[], &raw(&tokenizer), 3, &mut |_| ()).unwrap(), []);
    }
}
