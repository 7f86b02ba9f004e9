//! `upright export`: writes runs and adapters in formats that other tools load.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use upright_model::weights::Float;

use super::{print, print_json, terminal};
use crate::export::{Export, Exported, parse_size};
use upright_base::{Error, Result};
use upright_hub::Hub;
use upright_runs::settings::{List, Number};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright export runs/first --base-name ORG/MODEL --out adapter
  upright export runs/first --merge --out merged
  upright export --combine runs/sft runs/dpo --weights 0.5,0.5 --out sum";

/// Exports an adapter as a PEFT folder, a weighted sum of adapters, or a merged model.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Adapter to export: a run folder, a checkpoint folder, a PEFT folder, or a Hub id; several
    /// with --combine
    #[arg(value_name = "RUN|ADAPTER", required = true)]
    adapters: Vec<PathBuf>,
    /// Merge the adapter into the base model; the result loads without PEFT
    #[arg(long)]
    merge: bool,
    /// Add several adapters of one base model, each scaled by its weight. The sum is exact; its
    /// rank is the sum of the ranks
    #[arg(long, requires = "weights")]
    combine: bool,
    /// With --combine: weights of the adapters, e.g. 0.5,0.5
    #[arg(long, value_name = "WEIGHTS", allow_hyphen_values = true)]
    weights: Option<List>,
    /// Base model of the adapters, a folder or a Hub id [default: the model that the adapters name]
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Base model name in the exported adapter, e.g. a Hub id org/name [default: unchanged]
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    /// Data type of the merged weights: bf16, f16, f32 [default: as in the base model]
    #[arg(long, value_name = "TYPE", requires = "merge")]
    dtype: Option<String>,
    /// Maximum size of a weight file of the merged model [default: 5GB]
    #[arg(long, value_name = "SIZE", requires = "merge")]
    max_shard_size: Option<String>,
    /// Output folder
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
                    "{count} adapters are given, but export writes one folder"
                ))
                .hint("add them with --combine and --weights, or export them one at a time"));
            }
            return Ok(vec![1.0]);
        };
        if !self.combine {
            let message = format!("weights {list} are given without --combine");
            let hint = if count > 1 {
                "add --combine: the adapters are added, each scaled by its weight"
            } else {
                "name the other adapters and add --combine, or leave --weights out"
            };
            return Err(Error::input(message).hint(hint));
        }
        if list.0.len() != count {
            return Err(Error::input(format!(
                "weights must have one value for each of the {count} adapters, found `{list}`"
            ))
            .hint("for example --weights 0.5,0.5"));
        }
        let number = |text: &String| Number::from(&text[..]).real();
        let weight = |text: &String| {
            number(text).ok_or_else(|| {
                Error::input(format!(
                    "weights must be comma-separated numbers, found `{list}`"
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
            format!("{rounding:.2} times the change by the adapter")
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
