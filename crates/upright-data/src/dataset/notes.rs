//! What a user is told about the rows of a dataset: a summary, and notes on what is odd.

use upright_base::counted;

use super::Dataset;
use crate::rows;

/// TRL's columns of reference log-probabilities. They are valid for one tokenizer, template,
/// maximum length and model, which the file does not name.
const REFERENCE_COLUMNS: [&str; 2] = ["ref_chosen_logps", "ref_rejected_logps"];

/// Held-out losses of fewer rows than this are mostly noise.
pub const FEW_HELD_OUT: usize = 30;

impl Dataset {
    /// Summary of the loaded rows, in one line.
    pub fn describe(&self, name: &str) -> String {
        let held_out = match self.eval.len() {
            0 => String::new(),
            held_out => format!(" to train on, {held_out} held out"),
        };
        let (rows, dialect, template) = (self.train.len(), &self.dialect, &self.template);
        let rows = counted(rows, "row");
        let mut text = format!("{name}: {rows}{held_out} (dialect {dialect}, template {template})");
        if self.train.len() > self.train_hashes.len() {
            text += &format!(
                "; {} of them are repeats, to match the files' shares",
                self.train.len() - self.train_hashes.len()
            );
        }
        if !self.unread.is_empty() {
            text += &format!("; ignored columns: {}", rows::listed(self.unread.iter()));
            if self
                .unread
                .iter()
                .any(|column| REFERENCE_COLUMNS.contains(&&column[..]))
            {
                text += " (their tokens and model cannot be checked, so the reference is computed)";
            }
        }
        for dropped in self.dropped.iter().chain(&self.eval_dropped) {
            text += &format!(
                "; {} dropped, {}: {}",
                dropped.rows.len(),
                dropped.reason,
                dropped.named()
            );
        }
        if self.truncated_prompts + self.truncated_responses > 0 {
            text += &format!(
                "; truncated: {}, {}",
                counted(self.truncated_prompts, "prompt"),
                counted(self.truncated_responses, "response")
            );
        }
        if self.reasoning_left_out > 0 {
            text += &format!(
                "; reasoning is left out of {}: the template {template} does not support it",
                counted(self.reasoning_left_out, "row")
            );
        }
        if let Some(begin) = self.contested_bos {
            text += &format!("; {}", bos_note(begin));
        }
        if let Some(space) = self.contested_prefix_space {
            text += &format!("; {}", prefix_space_note(space));
        }
        if self.opens_alike {
            text += "; warning: nothing is held out, because all rows open with the same words";
        }
        text
    }

    /// A note on the shares of truncated prompts and responses; `None` unless more than half of the
    /// rows are truncated.
    pub fn truncation_note(&self) -> Option<String> {
        let share =
            |part: usize, whole: usize| format!("{:.0}%", part as f64 / whole as f64 * 100.0);
        (2 * self.truncated_rows > self.encoded_rows).then(|| {
            format!(
                "{} of the rows are truncated ({} of the prompts, {} of the responses); raise --max-length",
                share(self.truncated_rows, self.encoded_rows),
                share(self.truncated_prompts, self.encoded_rows),
                share(self.truncated_responses, self.encoded_responses)
            )
        })
    }

    /// A note on held-out rows that are fewer than [`FEW_HELD_OUT`]; `None` if there are more, or
    /// none at all.
    pub fn held_out_note(&self) -> Option<String> {
        let first = self.eval.first()?;
        let noun = if first.responses.len() == 2 {
            "held-out pair"
        } else {
            "held-out row"
        };
        (self.eval.len() < FEW_HELD_OUT).then(|| {
            format!(
                "{}: the held-out numbers say little",
                counted(self.eval.len(), noun)
            )
        })
    }

    /// A note on how many rows are longer than the `positions` that the model was trained for;
    /// `None` if no row is.
    pub fn positions_note(&self, positions: usize) -> Option<String> {
        let mut longer = 0;
        let mut longest = 0;
        for example in self.train.iter().chain(&self.eval) {
            // The last token of a response is predicted, but never an input.
            let lengths = example.responses.iter();
            let lengths = lengths.map(|response| response.tokens.len());
            let response = lengths.max().unwrap_or(0);
            let length = (example.prompt.len() + response).saturating_sub(1);
            longer += usize::from(length > positions);
            longest = longest.max(length);
        }
        (longer > 0).then(|| {
            let (are, them) = if longer == 1 { ("is", "it") } else { ("are", "them") };
            let rows = counted(longer, "row");
            format!(
                "{rows} {are} longer than the model's {positions} positions (max_position_embeddings), up to \
                 {longest} tokens; --max-length {positions} truncates {them}"
            )
        })
    }
}

/// A note on whether prompts start with BOS, if the tokenizer's files disagree about it.
pub fn bos_note(begin: bool) -> String {
    let (with, puts) = if begin {
        ("with", "none")
    } else {
        ("without", "one")
    };
    format!(
        "prompts start {with} BOS, as add_bos_token in tokenizer_config.json says; transformers 5 uses \
         only tokenizer.json, which adds {puts}"
    )
}

/// A note on whether texts start with a space, if the tokenizer's files disagree about it.
pub fn prefix_space_note(space: bool) -> String {
    let (with, puts) = if space {
        ("with", "none")
    } else {
        ("without", "one")
    };
    format!(
        "texts start {with} a space, as add_prefix_space in tokenizer_config.json says and as in \
         transformers; tokenizer.json alone adds {puts}"
    )
}
