//! From a gradient to an update: clip, pick a rate, step. All on flat f32 vectors.

pub mod adamw;
pub mod clip;
pub mod learning_rate;

pub use adamw::AdamW;
pub use clip::clip;
pub use learning_rate::{Curve, LearningRate};
