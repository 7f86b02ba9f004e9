//! MMLU of a model and its adapters: prompts, scores, groups and errors as lm-eval 0.4.13 defines
//! them.
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`] | which questions to ask, as flags and as keys of a study |
//! | [`sheet`] | the questions of one form, encoded and packed once for all models |
//! | [`statistics`] | means with their errors, over a subject and over groups |
//! | [`tasks`] | lm-eval's names of tasks and groups |
//! | [`results`] | the scores as one JSON object |
//! | [`harness`] | the scores as lm-eval's result files |

pub mod harness;
pub mod results;
pub mod settings;
pub mod sheet;
pub mod statistics;
pub mod tasks;

pub use settings::MmluSettings;
pub use sheet::{Score, Sheet, TaskScores};
pub use upright_math::mean::Mean;
