//! Rows to examples: rendered, tokenised and fitted, on every core, in the order of the rows.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::rows::Row;
use super::{Example, Template, Tokenizer, Truncation, hash64};
use crate::Result;

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
    /// Without the rejected response, once that has had its say in what is cut and dropped.
    #[must_use]
    pub fn chosen_alone(mut self, eos: u32) -> Self {
        if let Self::Usable { example, responses_cut, .. } = &mut self {
            example.responses.truncate(1);
            *responses_cut = example.responses.iter().filter(|response| response.last() != Some(&eos)).count();
        }
        self
    }
}

/// Encodes one row.
///
/// # Errors
/// The template cannot render it or the tokenizer cannot encode it; the message starts with the row's place.
pub fn encode_row(row: &Row, template: Template, tokenizer: &Tokenizer, truncation: &Truncation) -> Result<Encoded> {
    let at_row = |mut error: crate::Error| {
        error.message = format!("{}: {}", row.place(), error.message);
        error
    };
    let rendered = template.render(row)?;
    let prompt = tokenizer.prompt(&rendered.prompt).map_err(at_row)?;
    if prompt.is_empty() {
        return Ok(Encoded::Dropped("empty prompt"));
    }
    let mut responses = Vec::with_capacity(rendered.responses.len());
    for response in &rendered.responses {
        responses.push(tokenizer.response(response).map_err(at_row)?);
    }
    if responses.iter().any(Vec::is_empty) {
        return Ok(Encoded::Dropped("empty response"));
    }
    let bos = if prompt.starts_with(tokenizer.bos()) { tokenizer.bos().len() } else { 0 };
    let Some(fitted) = truncation.fit(prompt, bos, responses, tokenizer.eos()) else {
        return Ok(Encoded::Dropped("longer than the maximum length"));
    };
    if matches!(fitted.responses.as_slice(), [chosen, rejected] if chosen == rejected) {
        return Ok(Encoded::Dropped("chosen equals rejected within the maximum length"));
    }
    Ok(Encoded::Usable {
        example: Example { row: row.index, prompt: fitted.prompt, responses: fitted.responses },
        prompt_hash: hash64(&rendered.prompt),
        prompt_cut: fitted.prompt_cut,
        responses_cut: fitted.responses_cut,
    })
}

/// Encodes rows on every core. The result does not depend on how many there are; `progress` is called with the number of
/// rows done.
///
/// # Errors
/// That of the first row that has one.
pub fn encode(
    rows: &[Row],
    template: Template,
    tokenizer: &Tokenizer,
    truncation: &Truncation,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Encoded>> {
    const BLOCK: usize = 64;
    let blocks: Vec<&[Row]> = rows.chunks(BLOCK).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(blocks.len());
    let next = AtomicUsize::new(0);
    let mut encoded: Vec<Option<Result<Vec<Encoded>>>> = vec![None; blocks.len()];
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..threads {
            let (send, blocks, next) = (send.clone(), &blocks, &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(block) = blocks.get(index) else { break };
                    let result = block.iter().map(|row| encode_row(row, template, tokenizer, truncation)).collect();
                    if send.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut done = 0;
        for (index, result) in receive {
            encoded[index] = Some(result);
            done += blocks[index].len();
            progress(done);
        }
    });
    let mut all = Vec::with_capacity(rows.len());
    for block in encoded {
        all.extend(block.expect("every block was encoded")?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::rows::Prompt;
    use super::super::tokenize::tests::{EOS, bytewise};
    use super::super::{TooLong, Truncation};
    use super::*;

    fn row(index: usize, prompt: &str, responses: &[&str]) -> Row {
        let responses = responses.iter().map(|&response| response.to_owned()).collect();
        Row { index, line: None, prompt: Prompt::Text(prompt.to_owned()), responses }
    }

    fn truncation(max_length: usize, rule: TooLong) -> Truncation {
        Truncation { max_length, min_prompt: 2, rule }
    }

    fn one(row: &Row, template: Template, truncation: Truncation) -> Encoded {
        encode_row(row, template, &bytewise(), &truncation).unwrap()
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
        let encoded =
            encode(&rows, Template::Raw, &tokenizer, &truncation(99, TooLong::Drop), &mut |done| seen.push(done))
                .unwrap();
        assert_eq!(seen.last(), Some(&1000));
        assert!(seen.is_sorted());
        for (index, encoded) in encoded.iter().enumerate() {
            assert!(matches!(encoded, Encoded::Usable { example, .. } if example.row == index));
        }
        let tokenizer = tokenizer.for_vocabulary(257).unwrap();
        let mut rows = rows;
        rows[900].prompt = Prompt::Text("<bos>".into());
        rows[300].responses[1] = "x<bos>".into();
        let error = encode(&rows, Template::Raw, &tokenizer, &truncation(99, TooLong::Drop), &mut |_| ()).unwrap_err();
        assert!(error.message.starts_with("row 300: the tokenizer gives id 257"), "{}", error.message);
        assert_eq!(encode(&[], Template::Raw, &tokenizer, &truncation(99, TooLong::Drop), &mut |_| ()).unwrap(), []);
    }
}
