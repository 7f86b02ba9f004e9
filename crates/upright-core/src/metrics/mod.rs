//! Metrics of a run, as plain functions of losses and costs.

pub mod cost;
pub mod front;
pub mod gap;
pub mod hypervolume;
pub mod sample;
pub mod spread;
pub mod stopping;

pub use sample::Sample;
pub use spread::{Call, Spread};
