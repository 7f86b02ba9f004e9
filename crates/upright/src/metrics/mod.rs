//! What a run is judged by, as plain functions of losses.

pub mod gap;
pub mod stopping;
