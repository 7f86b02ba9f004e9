//! `upright export`: what a run or adapters become elsewhere.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use upright_model::weights::Float;

use super::{print, print_json, terminal};
use crate::export::{Export, Exported, parse_size};
use upright_base::{Error, Result};
use upright_hub::Hub;
use upright_runs::settings::{List, Number};

/// Writes an adapter as a PEFT folder, a weighted sum of adapters, or a merged model.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Folder of a run, of a checkpoint or of an adapter, or an adapter's id on the hub; several with --combine
    #[arg(value_name = "RUN|ADAPTER", required = true)]
    adapters: Vec<PathBuf>,
    /// Merge into the model: a folder that loads without PEFT
    #[arg(long)]
    merge: bool,
    /// Add several adapters of one model, each times its weight: the sum is exact, its rank that of all together
    #[arg(long, requires = "weights")]
    combine: bool,
    /// Weights of the adapters, as 0.5,0.5
    #[arg(
        long,
        value_name = "WEIGHTS",
        requires = "combine",
        allow_hyphen_values = true
    )]
    weights: Option<List>,
    /// The model that the adapters were trained on [default: the one they name]
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// What the exported adapter calls its base, as org/name on the hub [default: what it calls it now]
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    /// Type of the merged model's values: bf16, f16, f32 [default: that of the model]
    #[arg(long, value_name = "TYPE", requires = "merge")]
    dtype: Option<String>,
    /// Most bytes of a file of the merged model [default: 5GB]
    #[arg(long, value_name = "SIZE", requires = "merge")]
    max_shard_size: Option<String>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn weights(&self) -> Result<Vec<f64>> {
        let count = self.adapters.len();
        let Some(list) = &self.weights else {
            if count > 1 {
                return Err(Error::input(format!(
                    "{count} adapters are given, and export writes one folder"
                ))
                .hint("add them with --combine and --weights, or export one after the other"));
            }
            return Ok(vec![1.0]);
        };
        if list.0.len() != count {
            return Err(Error::input(format!(
                "weights must be one for each of the {count} adapters, found `{list}`"
            ))
            .hint("as --weights 0.5,0.5"));
        }
        let number = |text: &String| Number::from(&text[..]).real();
        let weight = |text: &String| {
            number(text).ok_or_else(|| {
                Error::input(format!(
                    "weights must be numbers with commas between, found `{list}`"
                ))
            })
        };
        list.0.iter().map(weight).collect()
    }

    fn dtype(&self) -> Result<Option<Float>> {
        Ok(Some(match self.dtype.as_deref() {
            None => return Ok(None),
            Some("bf16" | "bfloat16") => Float::Bf16,
            Some("f16" | "float16") => Float::F16,
            Some("f32" | "float32") => Float::F32,
            Some(other) => {
                return Err(Error::input(format!(
                    "dtype must be one of bf16, f16, f32, found `{other}`"
                )));
            }
        }))
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let weights = arguments.weights()?;
    let dtype = arguments.dtype()?;
    let max_shard_bytes = parse_size(arguments.max_shard_size.as_deref().unwrap_or("5GB"))?;
    terminal::catch_signals()?;
    let mut terminal = terminal::Terminal::new();
    let export = Export {
        adapters: arguments.adapters.iter().cloned().zip(weights).collect(),
        model: arguments.model.clone(),
        base_name: arguments.base_name.clone(),
        out: arguments.out.clone(),
        hub: Hub::from_environment(),
    };
    let exported = match arguments.merge {
        true => export.merged_model(dtype, max_shard_bytes, &mut terminal)?,
        false => export.adapter(&mut terminal)?,
    };
    if arguments.json {
        print_json(&exported)
    } else {
        print(&text(&exported))
    }
}

fn text(exported: &Exported) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "model        {}", exported.model.display());
    for part in &exported.adapters {
        let weight = if part.weight == 1.0 {
            String::new()
        } else {
            format!(", times {}", part.weight)
        };
        let _ = writeln!(text, "+ adapter    {}{weight}", part.name);
    }
    let _ = writeln!(text, "{:12} {}", exported.kind, exported.out.display());
    let _ = writeln!(text, "files        {}", exported.files.join(", "));
    if let Some(rounding) = exported.rounding {
        let times = if rounding > 0.0 {
            format!("{rounding:.2} times as far as the adapter")
        } else {
            "none".into()
        };
        let _ = writeln!(text, "rounding     {times}");
    }
    let _ = writeln!(
        text,
        "fingerprint  {}",
        exported.fingerprint.get(..12).unwrap_or_default()
    );
    text
}
