//! From a gradient to an update: clip, pick a learning rate, step, average. Scalars only.

pub mod adamw;
pub mod average;
pub mod clip;
pub mod learning_rate;

pub use adamw::{AdamW, AdamWConfig};
pub use average::{Average, Iterate, newest_weight};
pub use clip::clip_coefficient;
pub use learning_rate::{Curve, LearningRate};
