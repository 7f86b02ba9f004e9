//! `upright` post-trains language models on instruction data (SFT) and preference data (DPO) at once, so that neither
//! makes the model forget the other. Read [`train`] first: a `Learner` has several losses and can descend them; a
//! `Method` says which to descend now.

#![forbid(unsafe_code)]

pub mod error;
pub mod quiet;
pub mod observer;
pub mod files;
pub mod plot;
mod identity;
pub mod lineage;
pub mod model_files;
pub mod hub;
pub mod random;
pub mod parallel;
pub mod nearest;
pub mod objectives;
pub mod train;
pub mod methods;
pub mod metrics;
pub mod theory;
pub mod optim;
pub mod data;
pub mod similarity;
pub mod config;
pub mod plan;
pub mod reference;
pub mod learner;
pub mod evaluation;
pub mod checkpoint;
pub mod run_dir;
pub mod tensorboard;
pub mod run;
pub mod report;
pub mod bench;
pub mod export;
pub mod generate;
pub mod demo;
pub mod experiment;
pub mod cli;

pub use error::{Error, Result};
