//! Flags for the machine that a model runs on.

use clap::Args;
use upright_base::Result;
use upright_engine::Options;
use upright_runs::{
    plan::checks::{device, threads},
    settings::{Number, help},
};

/// Machine flags of commands that open a model.
#[derive(Debug, Args)]
pub(super) struct Machine {
    #[arg(long, value_name = "DEVICE", help = help("device"))]
    pub(super) device: Option<String>,
    #[arg(long, value_name = "N", allow_hyphen_values = true, help = help("threads"))]
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
