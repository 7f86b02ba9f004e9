//! The win rate of a model: it answers prompts, and a judge compares its answers with the chosen
//! responses (Table 1 of the paper).
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`], [`judge`] | settings, as flags and as keys of a study |
//! | [`questions`] | preference rows as instructions with reference answers |
//! | [`answers`] | a model's answers, kept as they are generated |
//! | [`summary`] | win rates as text and as JSON |

pub mod answers;
pub mod judge;
pub mod questions;
pub mod settings;
pub mod summary;

pub use answers::Answerer;
pub use judge::JudgeSettings;
pub use questions::{Question, Questions, Style};
pub use settings::AnswerSettings;

/// Prompts that the paper takes (Section D.3 and Table 1).
pub const PAPER_PROMPTS: usize = 640;
/// Maximum tokens of an answer, as in the paper.
pub const MAX_TOKENS: usize = 1024;
/// Share of missing verdicts above which a win rate is no result.
pub const MOST_MISSING: f64 = 0.05;
