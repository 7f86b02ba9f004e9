//! From a gradient to an update: clip, pick a learning rate, step. Scalars only.

pub mod adamw;
pub mod clip;
pub mod learning_rate;

pub use adamw::{AdamW, AdamWConfig};
pub use clip::clip_coefficient;
pub use learning_rate::{Curve, LearningRate};
