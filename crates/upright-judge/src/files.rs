//! AlpacaEval's result files: `annotations.json` and `leaderboard.csv`, which its commands and
//! notebooks read.

use std::path::Path;

use serde_json::{Value, json};
use upright_base::{Error, Result, files};

use crate::{
    Judge, Judged, Pair, WinRate,
    cost::{Price, Tokens},
};

/// A model's results, for its files.
#[derive(Clone, Copy, Debug)]
pub struct Results<'r> {
    /// The judge.
    pub judge: &'r Judge,
    /// Name of the model.
    pub generator: &'r str,
    /// Name of the reference.
    pub reference: &'r str,
    /// The pairs.
    pub pairs: &'r [Pair],
    /// What the judge said about each pair.
    pub judged: &'r [Judged],
    /// The win rate.
    pub rate: &'r WinRate,
}

/// Writes the files of a model into a folder that exists: its answers, the reference's, the
/// annotations and the leaderboard.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, results: &Results<'_>) -> Result<()> {
    let mut outputs = Vec::new();
    let mut references = Vec::new();
    let mut annotations = Vec::new();
    for (pair, judged) in results.pairs.iter().zip(results.judged) {
        outputs.push(json!({
            "instruction": pair.instruction, "output": pair.output, "generator": results.generator,
        }));
        references.push(json!({
            "instruction": pair.instruction, "output": pair.reference, "generator": results.reference,
        }));
        annotations.push(annotation(results, pair, judged));
    }
    write_json(&folder.join("model_outputs.json"), &outputs)?;
    write_json(&folder.join("reference_outputs.json"), &references)?;
    write_json(&folder.join("annotations.json"), &annotations)?;
    let table = leaderboard(results.generator, results.rate);
    files::write_atomic(&folder.join("leaderboard.csv"), table.as_bytes())
}

fn write_json(path: &Path, rows: &[Value]) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(rows).map_err(|error| Error::failure(error.to_string()))?;
    text.push('\n');
    files::write_atomic(path, text.as_bytes())
}

/// A row of `annotations.json`.
fn annotation(results: &Results<'_>, pair: &Pair, judged: &Judged) -> Value {
    let mut tokens = Tokens::default();
    let mut seconds = 0.0;
    let mut kept = Vec::new();
    let mut orders = Vec::new();
    for verdict in &judged.verdicts {
        tokens = tokens.plus(verdict.tokens);
        seconds += verdict.seconds;
        kept.push(verdict.kept.clone());
        orders.push(json!({"is_swapped": verdict.is_swapped, "preference": verdict.preference}));
    }
    let kept = match kept.len() {
        0 => Value::Null,
        1 => kept.swap_remove(0),
        _ => Value::Array(kept),
    };
    let price = results.judge.price.map(|price: Price| price.of(tokens));
    json!({
        "instruction": pair.instruction,
        "output_1": pair.reference,
        "generator_1": results.reference,
        "output_2": pair.output,
        "generator_2": results.generator,
        "annotator": results.judge.protocol.evaluator(),
        "preference": judged.preference(),
        "preference_raw_completion": kept,
        "preference_price_per_example": price,
        "preference_time_per_example": seconds,
        "preference_version": concat!("upright ", env!("CARGO_PKG_VERSION")),
        "judge": results.judge.model,
        "orders": orders,
    })
}

/// `leaderboard.csv` of one model: AlpacaEval's columns, then those that it lacks.
fn leaderboard(generator: &str, rate: &WinRate) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let share = rate
        .flips
        .map(|[flips, compared]| 100.0 * flips as f64 / compared as f64);
    let mut name = generator.to_owned();
    if name.contains([',', '"', '\n', '\r']) {
        name = format!("\"{}\"", name.replace('"', "\"\""));
    }
    let columns = [
        ("win_rate", number(Some(rate.rate.mean))),
        ("standard_error", number(rate.rate.error)),
        ("mode", "community".to_owned()),
        ("avg_length", format!("{:.0}", rate.lengths[0].floor())),
        ("n_wins", rate.wins.to_string()),
        ("n_wins_base", rate.losses.to_string()),
        ("n_draws", rate.ties.to_string()),
        ("n_total", rate.rate.count.to_string()),
        ("discrete_win_rate", number(Some(rate.discrete_rate))),
        ("n_missing", rate.missing.to_string()),
        ("win_rate_if_missing_lost", number(Some(rate.bounds[0]))),
        ("win_rate_if_missing_won", number(Some(rate.bounds[1]))),
        ("flip_rate", number(share)),
        (
            "first_shown_rate",
            number(rate.first_shown.map(|first| first.mean)),
        ),
        ("length_adjusted_win_rate", number(rate.length_adjusted)),
        ("avg_length_base", number(Some(rate.lengths[1]))),
    ];
    let mut header = String::new();
    let mut row = name;
    for (name, value) in columns {
        header.push(',');
        header.push_str(name);
        row.push(',');
        row.push_str(&value);
    }
    format!("{header}\n{row}\n")
}
