//! Similarity of two datasets, and where they conflict (Figure 6). Every preference prompt is
//! paired with its nearest instruction, and their responses are compared, by the cosine of token
//! counts.
//!
//! Counts cover the texts of the rows, without the words of a template and without the turn markers
//! of HH-RLHF. These markers are structure and would make all preference prompts similar.

pub mod counts;
pub mod figure;

use serde::Serialize;

use counts::{Counts, Index};
use upright_base::{Error, Result, parallel, progress::Progress};
use upright_data::{
    ColumnMap, DataFile, RowKind, Tokenizer,
    conversation::{Prompt, Row},
};

/// Rows per unit of work of a thread.
const BLOCK: usize = 64;

/// A preference row and the instruction row with the nearest prompt. Similarities are cosines, from
/// 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Index of the preference row in its file, from 0.
    pub dpo_row: usize,
    /// Index of the instruction row in its file, from 0.
    pub sft_row: usize,
    /// Similarity of the two prompts.
    pub prompts: f64,
    /// Similarity of the chosen response and the instruction's response.
    pub chosen: f64,
    /// Similarity of the rejected response and the instruction's response.
    pub rejected: f64,
    /// Similarity of the chosen and the rejected response.
    pub chosen_rejected: f64,
}

impl Pair {
    /// Strength of the conflict: high if the prompts are similar but the desired responses are not.
    pub fn conflict(&self) -> f64 {
        self.prompts * (1.0 - self.chosen)
    }
}

/// The rows of a dataset.
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
    /// The file cannot be read, has another kind of rows, or has no usable row.
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
                "{}: no usable rows ({})",
                file.name(),
                reasons.join(", ")
            ))
            .hint("rows need a prompt and responses that differ"));
        }
        Ok(Self {
            rows: found.rows,
            kind,
        })
    }

    /// Token counts of each row's prompt and responses.
    fn counts(
        &self,
        tokenizer: &Tokenizer,
        threads: usize,
        observer: &mut dyn Progress,
    ) -> Result<Vec<Vec<Counts>>> {
        let blocks: Vec<&[Row]> = self.rows.chunks(BLOCK).collect();
        let what = if self.kind == RowKind::Instruction {
            "instruction rows"
        } else {
            "preference rows"
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

/// The text of a prompt, without turn markers.
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

/// Computes the pair of every preference row, ordered by descending similarity of the prompts, then
/// by file order.
///
/// # Errors
/// The tokenizer cannot encode a row.
pub fn similarity(
    sft: &Texts,
    dpo: &Texts,
    tokenizer: &Tokenizer,
    threads: usize,
    observer: &mut dyn Progress,
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
    observer.begin("nearest prompts", preferences.len());
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

/// The pairs with the strongest conflict, strongest first.
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
    use upright_data::conversation::{Message, Role};

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
