//! `upright theory`: why sequential training forgets and joint training does not, as exact numbers.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{make_out, print, print_json, terminal::Terminal};
use upright_base::{Error, Result, files};
use upright_plot::Figure;
use upright_runs::{
    plan::checks::{count_from, threads},
    settings::{Number, help},
};
use upright_theory::{
    figures,
    theorem_3_3::{Theorem33, theorem_3_3},
    theorem_4_1::{Theorem41, Theorem41Config, theorem_4_1},
    toy::{Place, Toy, toy},
};

/// Computes the paper's toy example and theorems with the training loop.
#[derive(Args, Debug)]
pub(super) struct Theory {
    /// What to compute.
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// Write the results as JSON, and the figures, to this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Number of seeds per mean, for theorem-4.1 [default: 64]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seeds: Option<Number>,
    #[arg(long, value_name = "N", allow_hyphen_values = true, help = help("threads"))]
    threads: Option<Number>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Figure 2: three methods on a model of two parameters.
    Toy,
    /// Theorem 3.3: Sequential keeps an optimality gap.
    #[value(name = "theorem-3.3")]
    Theorem33,
    /// Theorem 4.1: the optimality gap of ALRIGHT vanishes.
    #[value(name = "theorem-4.1")]
    Theorem41,
    /// All of them.
    All,
}

/// The computed results.
#[derive(Debug, Default, Serialize)]
struct Results {
    #[serde(skip_serializing_if = "Option::is_none")]
    toy: Option<Toy>,
    #[serde(rename = "theorem-3.3", skip_serializing_if = "Option::is_none")]
    theorem_3_3: Option<Theorem33>,
    #[serde(rename = "theorem-4.1", skip_serializing_if = "Option::is_none")]
    theorem_4_1: Option<Theorem41>,
}

/// Seed of ALRIGHT's draws in the toy.
const TOY_SEED: u64 = 1;

/// Runs the command.
pub(super) fn run(arguments: &Theory) -> Result<()> {
    let mut settings = Theorem41Config::usual(threads(arguments.threads.as_ref())?);
    if arguments.seeds.is_some() && !matches!(arguments.what, What::Theorem41 | What::All) {
        return Err(Error::input("--seeds applies only to theorem-4.1")
            .hint("the other results are not averaged over seeds"));
    }
    settings.seeds = count_from(2, "seeds", arguments.seeds.as_ref(), settings.seeds)?;
    if let Some(out) = &arguments.out {
        make_out(out)?;
    }
    let wanted = |what: What| arguments.what == what || arguments.what == What::All;
    let mut terminal = Terminal::new();
    let mut results = Results::default();
    if wanted(What::Toy) {
        results.toy = Some(toy(TOY_SEED)?);
    }
    if wanted(What::Theorem33) {
        results.theorem_3_3 = Some(theorem_3_3()?);
    }
    if wanted(What::Theorem41) {
        results.theorem_4_1 = Some(theorem_4_1(&settings, &mut terminal)?);
    }
    let pictures = arguments
        .out
        .as_ref()
        .map(|out| results.save(out))
        .transpose()?;
    if arguments.json {
        return match (&results.toy, &results.theorem_3_3, &results.theorem_4_1) {
            (Some(toy), None, None) => print_json(toy),
            (None, Some(theorem), None) => print_json(theorem),
            (None, None, Some(theorem)) => print_json(theorem),
            _ => print_json(&results),
        };
    }
    let mut text = String::new();
    text += &results.toy.as_ref().map(toy_table).unwrap_or_default();
    text += &results
        .theorem_3_3
        .as_ref()
        .map(theorem_3_3_table)
        .unwrap_or_default();
    text += &results
        .theorem_4_1
        .as_ref()
        .map(theorem_4_1_table)
        .unwrap_or_default();
    for picture in pictures.into_iter().flatten() {
        let _ = write!(text, "\nfigure: {}", picture.display());
    }
    print(text.trim_start().trim_end())?;
    print("\n")
}

impl Results {
    /// Writes every result as JSON, and its figures. Returns the paths of the figures.
    fn save(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut pictures = Vec::new();
        if let Some(toy) = &self.toy {
            pictures.extend(save(folder, "toy", toy, figures::of_toy(toy))?);
        }
        if let Some(theorem) = &self.theorem_3_3 {
            pictures.extend(save(
                folder,
                "theorem-3.3",
                theorem,
                figures::of_theorem_3_3(theorem),
            )?);
        }
        if let Some(theorem) = &self.theorem_4_1 {
            pictures.extend(save(
                folder,
                "theorem-4.1",
                theorem,
                figures::of_theorem_4_1(theorem),
            )?);
        }
        Ok(pictures)
    }
}

/// Writes one result and its figures.
fn save(
    folder: &Path,
    name: &str,
    result: &impl Serialize,
    figures: Vec<(String, Figure)>,
) -> Result<Vec<PathBuf>> {
    let json =
        serde_json::to_string_pretty(result).map_err(|error| Error::failure(error.to_string()))?;
    files::write_atomic(
        &folder.join(format!("{name}.json")),
        format!("{json}\n").as_bytes(),
    )?;
    figures
        .into_iter()
        .map(|(name, figure)| figure.save(folder, &name))
        .collect()
}

fn heading(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n{title}\n");
}

fn slips(text: &mut String, slips: &[String]) {
    let _ = writeln!(
        text,
        "\nWhere the paper's text does not match its numbers, or is silent:"
    );
    for slip in slips {
        let _ = writeln!(text, "- {slip}");
    }
}

fn toy_table(toy: &Toy) -> String {
    let mut text = String::new();
    heading(
        &mut text,
        "Toy (Figure 2): two parameters, one preference and one instruction; distance to the ideal point.",
    );
    for variant in &toy.variants {
        let _ = writeln!(
            text,
            "{:14} {:>10} {:>10} {:>19} {:>8} {:>8} {:>9}",
            variant.name, "dpo steps", "sft steps", "theta", "dpo", "sft", "distance"
        );
        let mut line = |name: &str, steps: [usize; 2], place: &Place, distance: Option<f64>| {
            let theta = format!("({:.3}, {:.3})", place.theta[0], place.theta[1]);
            let distance = distance
                .map(|distance| format!("{distance:.4}"))
                .unwrap_or_default();
            let row = format!(
                "  {name:12} {:>10} {:>10} {theta:>19} {:>8.4} {:>8.4} {distance:>9}",
                steps[0], steps[1], place.dpo, place.sft
            );
            let _ = writeln!(text, "{}", row.trim_end());
        };
        line("start", [0, 0], &variant.start, None);
        for walk in &variant.walks {
            if let Some(between) = &walk.between {
                line("  after dpo", [walk.steps[0], 0], between, None);
            }
            line(
                walk.method,
                walk.steps,
                &walk.end,
                Some(walk.ideal_distance),
            );
        }
    }
    slips(&mut text, &toy.slips);
    text
}

fn theorem_3_3_table(theorem: &Theorem33) -> String {
    let mut text = String::new();
    heading(
        &mut text,
        "Theorem 3.3: Sequential (dpo, then sft) keeps a gap, no matter how long it trains.",
    );
    let Theorem33 {
        c_star,
        gap_at_zero,
        argmin,
        minimum,
        ..
    } = theorem;
    let _ = writeln!(
        text,
        "c* {c_star:.3}, minimum {minimum:.5} at theta = {argmin:.5}, gap at theta = 0 {gap_at_zero:.5}"
    );
    let _ = writeln!(text, "\n{:31} gap at lambda", "");
    let lambdas = theorem
        .lambdas
        .iter()
        .map(|tradeoff| format!(" {:>8}", tradeoff.lambda))
        .collect::<String>();
    let _ = writeln!(
        text,
        "{:>8} {:>10} {:>9}  {lambdas}",
        "T", "after dpo", "end"
    );
    for run in &theorem.runs {
        let gaps = run
            .gaps
            .iter()
            .map(|gap| format!(" {gap:>8.4}"))
            .collect::<String>();
        let _ = writeln!(
            text,
            "{:>8} {:>10.3} {:>9.3}  {gaps}",
            run.steps, run.after_dpo, run.end
        );
    }
    let argmins = theorem
        .lambdas
        .iter()
        .map(|tradeoff| format!(" {:>8.3}", tradeoff.argmin))
        .collect::<String>();
    let _ = writeln!(text, "{:>29}  {argmins}", "theta of the minimum");
    slips(&mut text, &theorem.slips);
    text
}

fn theorem_4_1_table(theorem: &Theorem41) -> String {
    let mut text = String::new();
    heading(
        &mut text,
        "Theorem 4.1: the gap of ALRIGHT vanishes, at least as fast as log T / sqrt(T).",
    );
    for series in &theorem.series {
        let _ = writeln!(
            text,
            "alpha_0 {}, lambda {}, {} seeds: mean gap ± standard error",
            series.alpha_0, theorem.lambda, theorem.seeds
        );
        let _ = writeln!(
            text,
            "{:>9} {:>22} {:>13} {:>10} {:>10}",
            "T", "mean gap", "without noise", "bound", "printed"
        );
        for point in &series.points {
            let gap = format!("{:.3e} ±{:.1e}", point.mean_gap, point.standard_error);
            let _ = writeln!(
                text,
                "{:>9} {gap:>22} {:>13.3e} {:>10.3e} {:>10.3e}{}{}",
                point.steps,
                point.noiseless_gap,
                point.bound,
                point.printed_bound,
                if point.mean_gap > point.printed_bound {
                    " violated"
                } else {
                    ""
                },
                if point.transient { " (transient)" } else { "" },
            );
        }
        if let Some(slope) = series.transient_slope {
            let _ = writeln!(text, "slope in the transient: {slope:.3}");
        }
        if let (Some(slope), Some(error), Some(rate)) = (
            series.tail_slope,
            series.tail_slope_error,
            series.tail_rate_slope,
        ) {
            let _ = writeln!(
                text,
                "slope after the transient: {slope:.3} ±{error:.3}; log T / sqrt(T): {rate:.3}"
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    slips(&mut text, &theorem.slips);
    text
}
