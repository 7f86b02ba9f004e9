//! `upright` post-trains language models on instruction data (SFT) and preference data (DPO) at once, so that neither
//! makes the model forget the other. Read [`train`] first: a `Learner` has several losses and can descend them; a
//! `Method` says which to descend now.

#![forbid(unsafe_code)]

pub mod error;
pub mod observer;
pub mod files;
pub mod random;
pub mod nearest;
pub mod objectives;
pub mod train;
pub mod methods;
pub mod metrics;
pub mod optim;
pub mod data;
pub mod config;
pub mod plan;
pub mod reference;
pub mod learner;
pub mod evaluation;
pub mod checkpoint;
pub mod run_dir;
pub mod tensorboard;
pub mod run;
pub mod generate;
pub mod demo;
pub mod cli;

pub use error::{Error, Result};
