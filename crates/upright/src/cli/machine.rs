//! Flags for the machine that a model runs on.

use clap::Args;
use upright_base::Result;
use upright_engine::Options;
use upright_runs::{
    plan::checks::{device, threads},
    settings::Number,
};

/// Machine flags of commands that open a model.
#[derive(Debug, Args)]
pub(super) struct Machine {
    /// Device to run on: auto, cpu, cuda, cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<String>,
    /// Number of CPU threads [default: one per core]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) threads: Option<Number>,
}

impl Machine {
    /// Options of the decoder.
    pub(super) fn options(&self) -> Result<Options> {
        Ok(Options {
            device: device(self.device.as_deref())?,
            threads: threads(self.threads.as_ref())?,
            ..Options::default()
        })
    }
}
