//! `upright` post-trains language models on instruction data (SFT) and preference data (DPO) at once, so that neither
//! makes the model forget the other. Read [`train`] first: a `Learner` has several losses and can descend them; a
//! `Method` says which to descend now.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod files;
pub mod learner;
pub mod methods;
pub mod metrics;
pub mod objectives;
pub mod observer;
pub mod optim;
pub mod plan;
pub mod reference;
pub mod run;
pub mod run_dir;
pub mod train;

pub use error::{Error, Result};
