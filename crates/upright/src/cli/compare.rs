//! `upright doctor --compare-kernels`: every kernel of a GPU beside the emulator. Only with the feature `host-device`.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use clap::Args;
use serde_json::{Map, Value, json};
use upright_base::{Error, Result};
use upright_engine::{KernelComparison, compare_kernels};
use upright_runs::settings::{Number, checks::count, shared::device};

use super::{print, print_json};

/// Flags of the comparison.
#[derive(Args, Debug)]
pub(super) struct Comparison {
    /// Compare every kernel of --device with the emulator, and its products with the CPU, on the passes of --model.
    #[arg(long, requires = "model")]
    pub(super) compare_kernels: bool,
    /// Device whose kernels are compared: cuda, cuda:N, host.
    #[arg(long, value_name = "NAME", requires = "compare_kernels")]
    device: Option<String>,
    /// Generate random weights in memory; the model folder needs only config.json.
    #[arg(long, requires = "compare_kernels")]
    random_weights: bool,
    /// LoRA rank of the adapter, which is on all linear layers.
    #[arg(
        long,
        value_name = "R",
        default_value = "16",
        requires = "compare_kernels",
        allow_hyphen_values = true
    )]
    lora_rank: Number,
}

/// Compares and prints. A difference is a failure.
pub(super) fn run(arguments: &Comparison, model: &Path, is_json: bool) -> Result<()> {
    let device = device(arguments.device.as_deref())?;
    let rank = count("lora-rank", Some(&arguments.lora_rank), 1)?;
    let found = compare_kernels(model, arguments.random_weights, device, rank)?;
    if is_json {
        print_json(&json!({ "kernels": lines(&found) }))?;
    } else {
        print(&table(&found))?;
    }
    for (kernel, comparison) in &found {
        if let Some(failure) = &comparison.failure {
            return Err(Error::failure(format!("{kernel}: {failure}")));
        }
    }
    Ok(())
}

fn lines(found: &BTreeMap<&str, KernelComparison>) -> Map<String, Value> {
    let mut lines = Map::new();
    for (kernel, comparison) in found {
        lines.insert(
            (*kernel).to_owned(),
            json!({
                "launches": comparison.launches, "exact": comparison.is_exact,
                "largest_difference": comparison.largest, "failure": comparison.failure,
            }),
        );
    }
    lines
}

fn table(found: &BTreeMap<&str, KernelComparison>) -> String {
    let mut text = format!(
        "{:28} {:>8} {:>12}  largest difference / largest value\n",
        "", "launches", "has to be"
    );
    for (kernel, comparison) in found {
        let verdict = match comparison.failure {
            Some(_) => "  DIFFERS",
            None => "",
        };
        let _ = writeln!(
            text,
            "{kernel:28} {:>8} {:>12}  {:.1e}{verdict}",
            comparison.launches,
            if comparison.is_exact {
                "equal"
            } else {
                "close"
            },
            comparison.largest
        );
    }
    text
}
