//! How alike two data sets are, and where they contradict each other (Figure 6): every preference prompt beside its nearest
//! instruction, and their answers beside each other, by the cosine of token counts.
//!
//! What is counted are the texts of the rows: without a template's words, and without the turn markers of HH-RLHF, which
//! are structure and would make all preference prompts alike.

pub mod counts;
pub mod figure;

use serde::Serialize;

use counts::{Counts, Index};
use upright_base::{Error, Result, observer::Observer, parallel};
use upright_data::{
    ColumnMap, DataFile, RowKind, Tokenizer,
    rows::{Prompt, Row},
};

/// Rows that one thread takes at a time.
const BLOCK: usize = 64;

/// A preference row and the instruction row whose prompt is nearest to its own. Similarities are cosines, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The preference row's number in its file, from 0.
    pub dpo_row: usize,
    /// The instruction row's.
    pub sft_row: usize,
    /// Of both prompts.
    pub prompts: f64,
    /// Of the chosen answer and the instruction's.
    pub chosen: f64,
    /// Of the rejected answer and the instruction's.
    pub rejected: f64,
    /// Of the chosen and the rejected answer.
    pub chosen_rejected: f64,
}

impl Pair {
    /// How much two sets contradict each other here: alike prompts whose wanted answers are unlike.
    pub fn conflict(&self) -> f64 {
        self.prompts * (1.0 - self.chosen)
    }
}

/// Rows as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// The usable rows, in file order.
    pub rows: Vec<Row>,
    kind: RowKind,
}

impl Texts {
    /// The first `most` usable rows of a file.
    ///
    /// # Errors
    /// The file cannot be read, is of another kind, or has no usable row.
    pub fn read(file: &DataFile, map: &ColumnMap, kind: RowKind, most: usize) -> Result<Self> {
        let (mut found, _) = file.read(map, kind)?;
        found.rows.truncate(most);
        if found.rows.is_empty() {
            let reasons: Vec<_> = found
                .dropped
                .iter()
                .map(|d| format!("{} {}", d.rows.len(), d.reason))
                .collect();
            return Err(Error::input(format!(
                "{}: no row can be used ({})",
                file.name(),
                reasons.join(", ")
            ))
            .hint("rows need a prompt and answers that differ"));
        }
        Ok(Self {
            rows: found.rows,
            kind,
        })
    }

    /// Counts of each row's prompt and answers.
    fn counts(
        &self,
        tokenizer: &Tokenizer,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Counts>>> {
        let blocks: Vec<&[Row]> = self.rows.chunks(BLOCK).collect();
        let what = if self.kind == RowKind::Instruction {
            "instructions, in rows"
        } else {
            "preferences, in rows"
        };
        observer.begin(what, self.rows.len());
        let count = |text: &str| tokenizer.response(text).map(|tokens| Counts::of(&tokens));
        let row = |row: &Row| -> Result<Vec<Counts>> {
            let answers = row.responses.iter().map(|answer| count(&answer.content));
            let all = std::iter::once(count(&text(&row.prompt))).chain(answers);
            all.collect::<Result<_>>()
                .map_err(|error| error.at(row.place()))
        };
        let work = |index: usize| blocks[index].iter().map(row).collect::<Result<Vec<_>>>();
        let counted = parallel::map(blocks.len(), threads, work, &mut |done| {
            observer.advance((done * BLOCK).min(self.rows.len()), "");
        });
        observer.end();
        Ok(counted?.concat())
    }
}

/// A prompt's text, without the markers of turns.
pub fn text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text
            .replace("\n\nHuman:", "\n")
            .replace("\n\nAssistant:", "\n")
            .trim()
            .to_owned(),
        Prompt::Instruction {
            system,
            instruction,
            input,
        } => {
            let parts = [system, instruction, input]
                .into_iter()
                .filter(|part| !part.trim().is_empty());
            parts.map(String::as_str).collect::<Vec<_>>().join("\n")
        }
        Prompt::Messages(messages) => messages
            .iter()
            .map(|message| message.content.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// Every preference row's pair, by falling similarity of the prompts; equal ones in file order.
///
/// # Errors
/// The tokenizer cannot encode a row.
pub fn similarity(
    sft: &Texts,
    dpo: &Texts,
    tokenizer: &Tokenizer,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Pair>> {
    let instructions = sft.counts(tokenizer, threads, observer)?;
    let preferences = dpo.counts(tokenizer, threads, observer)?;
    let index = Index::of(
        &instructions
            .iter()
            .map(|counts| counts[0].clone())
            .collect::<Vec<_>>(),
    );
    let blocks: Vec<(usize, &[Vec<Counts>])> = preferences
        .chunks(BLOCK)
        .enumerate()
        .map(|(block, rows)| (block * BLOCK, rows))
        .collect();
    observer.begin("nearest prompts, in rows", preferences.len());
    let work = |block: usize| {
        let (first, rows) = blocks[block];
        let mut dots = Vec::new();
        let mut pair = |(i, counts): (usize, &Vec<Counts>)| {
            let (nearest, prompts) = index.nearest(&counts[0], &mut dots);
            let answer = &instructions[nearest][1];
            Pair {
                dpo_row: dpo.rows[first + i].index,
                sft_row: sft.rows[nearest].index,
                prompts,
                chosen: counts[1].cosine(answer),
                rejected: counts[2].cosine(answer),
                chosen_rejected: counts[1].cosine(&counts[2]),
            }
        };
        Ok(rows.iter().enumerate().map(&mut pair).collect::<Vec<_>>())
    };
    let pairs = parallel::map(blocks.len(), threads, work, &mut |done| {
        observer.advance((done * BLOCK).min(preferences.len()), "");
    });
    observer.end();
    let mut pairs = pairs?.concat();
    pairs.sort_by(|a, b| {
        b.prompts
            .total_cmp(&a.prompts)
            .then(a.dpo_row.cmp(&b.dpo_row))
    });
    Ok(pairs)
}

/// The pairs that contradict each other most, the worst first.
pub fn conflicts(pairs: &[Pair], most: usize) -> Vec<Pair> {
    let mut worst = pairs.to_vec();
    worst.sort_by(|a, b| {
        b.conflict()
            .total_cmp(&a.conflict())
            .then(a.dpo_row.cmp(&b.dpo_row))
    });
    worst.truncate(most);
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use upright_data::rows::{Message, Role};

    #[test]
    fn templates_and_turns_are_not_counted() {
        let turns = "\n\nHuman: Where is it?\n\nAssistant: There.\n\nHuman: Where?\n\nAssistant:";
        assert_eq!(
            text(&Prompt::Text(turns.into())),
            "Where is it?\n There.\n Where?"
        );
        let instruction = Prompt::Instruction {
            system: " ".into(),
            instruction: "Count.".into(),
            input: "2".into(),
        };
        assert_eq!(text(&instruction), "Count.\n2");
        let say = |role, content: &str| Message::new(role, content);
        assert_eq!(
            text(&Prompt::Messages(vec![
                say(Role::System, "Be kind."),
                say(Role::User, "Hi")
            ])),
            "Be kind.\nHi"
        );
    }

    #[test]
    fn alike_prompts_with_unlike_answers_come_first() {
        let pair = |dpo_row, prompts, chosen| Pair {
            dpo_row,
            sft_row: 0,
            prompts,
            chosen,
            rejected: 0.0,
            chosen_rejected: 0.0,
        };
        let pairs = [
            pair(0, 1.0, 0.9),
            pair(1, 0.8, 0.0),
            pair(2, 0.5, 0.0),
            pair(3, 0.8, 0.0),
        ];
        let rows: Vec<_> = conflicts(&pairs, 3)
            .iter()
            .map(|pair| pair.dpo_row)
            .collect();
        assert_eq!(rows, [1, 3, 2]);
    }
}
