//! Win rates as text and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use upright_base::counted;
use upright_judge::{Judge, Judged, WinRate};
use upright_math::mean::Mean;

/// A model's win rate.
pub struct Judgment {
    /// Name of the model.
    pub name: String,
    /// The win rate.
    pub rate: WinRate,
    /// The verdicts.
    pub judged: Vec<Judged>,
    /// Difference to the first model in points, on the pairs of both; none for the first.
    pub difference: Option<Mean>,
}

/// `61.9 ± 1.8`, with a sign for differences.
fn shown(mean: Mean, is_signed: bool) -> String {
    let value = if is_signed {
        format!("{:+.1}", mean.mean)
    } else {
        format!("{:.1}", mean.mean)
    };
    match mean.error {
        Some(error) => format!("{value} ± {error:.1}"),
        None => value,
    }
}

/// A table with a line per model, then a line per model with the details.
pub fn table(reference: &str, judgments: &[Judgment]) -> String {
    let width = judgments
        .iter()
        .map(|judgment| judgment.name.chars().count())
        .fold("model".len(), usize::max);
    let mut text = format!("win rate against {reference}, in % ± standard error\n");
    let _ = writeln!(
        text,
        "{:<width$}  {:>12}  {:>6}  {:>6}  {:>6}  {:>7}",
        "model", "win rate", "wins", "ties", "losses", "missing"
    );
    for judgment in judgments {
        let rate = &judgment.rate;
        let _ = write!(
            text,
            "{:<width$}  {:>12}  {:>6}  {:>6}  {:>6}  {:>7}",
            judgment.name,
            shown(rate.rate, false),
            rate.wins,
            rate.ties,
            rate.losses,
            rate.missing
        );
        if let Some(difference) = judgment.difference {
            let _ = write!(text, "  {} points", shown(difference, true));
        }
        text.push('\n');
    }
    for judgment in judgments {
        let _ = writeln!(text, "\n{}", judgment.name);
        for line in details(&judgment.rate) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// What a win rate alone hides, in sentences.
fn details(rate: &WinRate) -> Vec<String> {
    let mut lines = Vec::new();
    if rate.missing > 0 {
        lines.push(format!(
            "{} of {} missing: the win rate is {:.1} if all were lost and {:.1} if all were won",
            counted(rate.missing, "verdict"),
            rate.pairs,
            rate.bounds[0],
            rate.bounds[1]
        ));
    }
    if let Some([flips, compared]) = rate.flips {
        let share = 100.0 * flips as f64 / compared as f64;
        lines.push(format!(
            "the winner changes with the order in {share:.1}% of {}",
            counted(compared, "pair")
        ));
    }
    if let Some(first) = rate.first_shown {
        let share = shown(first, false);
        lines.push(format!("the answer that is shown first wins {share}%"));
    }
    lines.push(format!(
        "answers have {:.0} characters, references {:.0}",
        rate.lengths[0], rate.lengths[1]
    ));
    if let Some(adjusted) = rate.length_adjusted {
        lines.push(format!(
            "at equal lengths the win rate would be {adjusted:.1}"
        ));
    }
    lines
}

/// All win rates as one JSON object.
pub fn object(judge: &Judge, reference: &str, judgments: &[Judgment], cost: Option<f64>) -> Value {
    let mut models = Vec::with_capacity(judgments.len());
    for judgment in judgments {
        models.push(model(judgment));
    }
    json!({
        "judge": judge.model,
        "judge_url": judge.url,
        "protocol": judge.protocol.name(),
        "order_seed": judge.seed,
        "reference": reference,
        "cost_usd": cost,
        "models": models,
    })
}

fn model(judgment: &Judgment) -> Value {
    let rate = &judgment.rate;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("model", json!(judgment.name));
    put("win_rate", json!(rate.rate.mean));
    put("standard_error", json!(rate.rate.error));
    put("pairs", json!(rate.pairs));
    put("missing", json!(rate.missing));
    put("win_rate_if_missing_lost", json!(rate.bounds[0]));
    put("win_rate_if_missing_won", json!(rate.bounds[1]));
    put("wins", json!(rate.wins));
    put("ties", json!(rate.ties));
    put("losses", json!(rate.losses));
    put("discrete_win_rate", json!(rate.discrete_rate));
    if let Some([flips, compared]) = rate.flips {
        put("flips", json!(flips));
        put("compared_in_both_orders", json!(compared));
    }
    put(
        "first_shown_rate",
        json!(rate.first_shown.map(|first| first.mean)),
    );
    put("length_adjusted_win_rate", json!(rate.length_adjusted));
    put("mean_characters", json!(rate.lengths[0]));
    put("mean_characters_of_references", json!(rate.lengths[1]));
    if let Some(difference) = judgment.difference {
        put("points_over_first", json!(difference.mean));
        put("points_over_first_error", json!(difference.error));
        put("points_over_first_pairs", json!(difference.count));
    }
    Value::Object(object)
}
