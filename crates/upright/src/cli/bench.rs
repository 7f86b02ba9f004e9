//! `upright bench`: how fast this machine trains a model, and the upper bounds of its kernels.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};
use upright_engine::{
    Decoder, Tier,
    microbench::{self, KernelRate, MatrixRate},
    times::GroupTime,
};
use upright_model::Device;
use upright_train::fetch::fetched;

use super::{machine::Machine, print, print_json, terminal};
use crate::bench::{Base, Bench, MethodCost, StepCost};
use upright_base::{Error, Result, counted};
use upright_hub::Hub;
use upright_runs::{
    plan::checks::{count, device, threads},
    settings::{Config, List, Number, help},
};

/// Describes the reference model in the output.
const REFERENCE: &str =
    "the base model; its log-probabilities are computed in advance and not part of a step";

/// Measures the speed of training steps, methods or kernels.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Base model: a folder in Hugging Face layout, or a Hub id
    #[arg(
        long,
        value_name = "DIR|ID",
        required_unless_present = "kernels",
        conflicts_with = "kernels"
    )]
    model: Option<PathBuf>,
    /// Generate random weights in memory; the model folder needs only config.json and the tokenizer
    #[arg(long, conflicts_with = "kernels")]
    random_weights: bool,
    /// Instruction rows: a file or a Hub dataset
    #[arg(long, value_name = "FILE|ID", conflicts_with = "kernels")]
    sft: Option<PathBuf>,
    /// Preference rows: a file or a Hub dataset
    #[arg(long, value_name = "FILE|ID", conflicts_with = "kernels")]
    dpo: Option<PathBuf>,
    /// Rename columns of the instruction rows, e.g. prompt=question,completion=answer [default: no
    /// renaming]
    #[arg(long, value_name = "NAME=COLUMN,...", conflicts_with = "kernels")]
    sft_map: Option<List>,
    /// Rename columns of the preference rows, e.g. prompt=question,chosen=good,rejected=bad
    /// [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...", conflicts_with = "kernels")]
    dpo_map: Option<List>,
    /// Prompt template of the instruction rows [default: the default of upright train]
    #[arg(long, value_name = "NAME", conflicts_with = "kernels")]
    sft_template: Option<String>,
    /// Prompt template of the preference rows [default: the default of upright train]
    #[arg(long, value_name = "NAME", conflicts_with = "kernels")]
    dpo_template: Option<String>,
    /// Instruction rows per step [default: 12]
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "kernels",
        allow_hyphen_values = true
    )]
    sft_batch: Option<Number>,
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "kernels",
        allow_hyphen_values = true,
        help = help("dpo-batch")
    )]
    dpo_batch: Option<Number>,
    #[arg(
        long,
        value_name = "TOKENS",
        conflicts_with = "kernels",
        allow_hyphen_values = true,
        help = help("max-length")
    )]
    max_length: Option<Number>,
    #[arg(long, conflicts_with = "kernels", help = help("unpack-all"))]
    unpack_all: bool,
    /// Maximum tokens in a pack [default: 2048]
    #[arg(
        long,
        value_name = "TOKENS",
        conflicts_with = "kernels",
        allow_hyphen_values = true
    )]
    token_budget: Option<Number>,
    #[arg(long, value_name = "WHEN", conflicts_with = "kernels", help = help("recompute"))]
    recompute: Option<String>,
    /// LoRA rank [default: 32]
    #[arg(
        long,
        value_name = "R",
        conflicts_with = "kernels",
        allow_hyphen_values = true
    )]
    lora_rank: Option<Number>,
    #[arg(long, value_name = "NAMES", conflicts_with = "kernels", help = help("lora-targets"))]
    lora_targets: Option<List>,
    /// Seed of the row order, the initial adapter and the random weights [default: 42]
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "kernels",
        allow_hyphen_values = true
    )]
    seed: Option<Number>,
    /// Number of steps to measure per objective or method, after a warm-up step [default: 5]
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "kernels",
        allow_hyphen_values = true
    )]
    steps: Option<Number>,
    /// Compare the cost of the methods: each objective alone, and every joint method; methods that
    /// probe with k = 1, 10, 100
    #[arg(long, requires = "sft", requires = "dpo")]
    methods: bool,
    /// Measure each kernel against its upper bound; needs no model
    #[arg(long, conflicts_with = "methods")]
    kernels: bool,
    #[command(flatten)]
    machine: Machine,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.kernels {
        return kernels(arguments);
    }
    terminal::catch_signals()?;
    let mut terminal = terminal::Terminal::new();
    if arguments.sft.is_none() && arguments.dpo.is_none() {
        return Err(Error::input("there are no rows to train on")
            .hint("give --sft FILE, --dpo FILE, or both"));
    }
    let steps = count("steps", arguments.steps.as_ref(), 5)?;
    let base = if arguments.random_weights {
        Base::Random
    } else {
        Base::Files
    };
    let hub = Hub::from_environment();
    let mut config = settings(arguments, steps);
    if let (Base::Random, Some(model)) = (base, &config.model) {
        config.model = Some(hub.tokenizer("model", model, &mut terminal)?);
    }
    let config = fetched(&config, &hub, &mut terminal)?;
    let bench = Bench::open(&config, base, steps + 1, &mut terminal)?;
    if arguments.methods {
        let costs = bench.methods(steps, &mut terminal)?;
        let peak = peak_gb(bench.decoder());
        return if arguments.json {
            let methods =
                serde_json::to_value(&costs).map_err(|error| Error::failure(error.to_string()))?;
            print_json(&object(
                setting(&bench, base, steps),
                [("methods", methods), ("peak_gb", json!(peak))],
            ))
        } else {
            print(&methods_table(&bench, &costs, peak))
        };
    }
    let timed = bench.steps(steps, &mut terminal)?;
    let peak = peak_gb(bench.decoder());
    let mut kernel_times = Vec::new();
    if bench.decoder().tier().is_none() {
        kernel_times = bench.kernel_times(&mut terminal)?;
    }
    let matrix = bench.decoder().matrix_rate()?;
    let costs: Vec<StepCost> = timed.iter().map(|steps| StepCost::of(steps)).collect();
    if arguments.json {
        let names = bench
            .plan()
            .objectives
            .iter()
            .map(|objective| &objective.name[..]);
        let objectives = names.zip(costs.iter().map(|cost| step_json(cost, matrix)));
        let rates = json!({
            "registers_gflops": matrix.bound.map(billions), "large_product_gflops": billions(matrix.product),
        });
        let rest = [
            ("matrix_rate", rates),
            ("kernel_times", kernel_times_json(&bench, &kernel_times)),
            ("peak_gb", json!(peak)),
        ];
        return print_json(&object(
            setting(&bench, base, steps),
            objectives.chain(rest),
        ));
    }
    let mut text = steps_table(&bench, &costs, matrix, peak);
    text += &kernel_times_table(&bench, &kernel_times);
    print(&text)
}

/// Where a step of each objective spends its time on a GPU; null on a CPU.
fn kernel_times_json(bench: &Bench, times: &[Vec<GroupTime>]) -> Value {
    let mut objectives = Map::new();
    for (objective, groups) in bench.plan().objectives.iter().zip(times) {
        let mut lines = Vec::with_capacity(groups.len());
        for group in groups {
            let milliseconds = (group.seconds * 1e6).round() / 1e3;
            lines.push(json!({
                "group": group.group, "launches": group.launches, "milliseconds": milliseconds,
            }));
        }
        objectives.insert(objective.name.clone(), Value::Array(lines));
    }
    if objectives.is_empty() {
        return Value::Null;
    }
    Value::Object(objectives)
}

/// The same as text; empty on a CPU.
fn kernel_times_table(bench: &Bench, times: &[Vec<GroupTime>]) -> String {
    let mut text = String::new();
    for (objective, groups) in bench.plan().objectives.iter().zip(times) {
        let total: f64 = groups.iter().map(|group| group.seconds).sum();
        let _ = writeln!(
            text,
            "\nkernels of one {} step       launches         ms    share",
            objective.name
        );
        for group in groups {
            let _ = writeln!(
                text,
                "{:28} {:>8} {:>10.3} {:>7.1}%",
                group.group,
                group.launches,
                group.seconds * 1e3,
                100.0 * group.seconds / total
            );
        }
    }
    text
}

/// The equivalent settings of `upright train`.
fn settings(arguments: &Arguments, steps: usize) -> Config {
    let number = |given: &Option<Number>, usual: &str| {
        Some(given.clone().unwrap_or_else(|| Number::from(usual)))
    };
    let file = |path: &Option<PathBuf>| {
        path.iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    };
    let a = arguments;
    Config {
        model: a.model.clone(),
        sft: file(&a.sft),
        dpo: file(&a.dpo),
        sft_map: a.sft_map.clone(),
        dpo_map: a.dpo_map.clone(),
        sft_template: a.sft_template.clone(),
        dpo_template: a.dpo_template.clone(),
        sft_batch: if a.sft.is_some() {
            number(&a.sft_batch, "12")
        } else {
            a.sft_batch.clone()
        },
        dpo_batch: if a.dpo.is_some() {
            number(&a.dpo_batch, "4")
        } else {
            a.dpo_batch.clone()
        },
        max_length: number(&a.max_length, "2048"),
        unpack_all: a.unpack_all,
        token_budget: a.token_budget.clone(),
        recompute: a.recompute.clone(),
        lora_rank: number(&a.lora_rank, "32"),
        lora_targets: a.lora_targets.clone(),
        seed: a.seed.clone(),
        threads: a.machine.threads.clone(),
        device: a.machine.device.clone(),
        held_out: number(&None, "0"),
        steps: number(&None, &steps.to_string()),
        ..Config::default()
    }
}

fn object<'k>(
    first: Map<String, Value>,
    rest: impl IntoIterator<Item = (&'k str, Value)>,
) -> Map<String, Value> {
    first
        .into_iter()
        .chain(rest.into_iter().map(|(key, value)| (key.to_owned(), value)))
        .collect()
}

fn billions(rate: f64) -> f64 {
    (rate / 1e7).round() / 100.0
}

/// Peak memory in GB, base weights included.
fn peak_gb(decoder: &Decoder) -> Option<f64> {
    decoder
        .usage()
        .peak_bytes
        .map(|bytes| (bytes as f64 / 1e7).round() / 100.0)
}

/// The measured setting, for JSON.
fn setting(bench: &Bench, base: Base, steps: usize) -> Map<String, Value> {
    let (plan, decoder) = (bench.plan(), bench.decoder());
    let batch = plan
        .objectives
        .iter()
        .map(|objective| (objective.name.clone(), json!(objective.batch)));
    let value = json!({
        "model": plan.model, "model_type": decoder.config().model_type, "random_weights": base == Base::Random,
        "tier": decoder.tier_name(), "threads": decoder.threads(), "steps": steps, "lora_rank": plan.lora.rank,
        "lora_targets": bench.plan().lora.targets, "batch": Value::Object(batch.collect()),
        "max_length": plan.max_length, "reference": plan.needs_reference().then_some(REFERENCE),
    });
    match value {
        Value::Object(map) => map,
        _ => unreachable!("an object was written"),
    }
}

fn step_json(cost: &StepCost, matrix: MatrixRate) -> Value {
    let round =
        |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    json!({
        "seconds_per_step": round(cost.seconds_per_step, 4),
        "median_seconds_per_step": round(cost.median_seconds_per_step, 4),
        "unique_tokens_per_second": round(cost.unique_tokens_per_second, 1),
        "unique_tokens_per_step": round(cost.unique_tokens_per_step, 1),
        "operations_per_token": cost.operations_per_token.round(),
        "gflops": billions(cost.operations_per_second),
        "share_of_matrix_rate": round(cost.operations_per_second / matrix.product, 4),
        "share_of_register_rate": matrix.bound.map(|bound| round(cost.operations_per_second / bound, 4)),
    })
}

/// The measured setting, as text.
fn heading(bench: &Bench) -> String {
    let (plan, decoder) = (bench.plan(), bench.decoder());
    let config = decoder.config();
    let batches: Vec<String> = plan
        .objectives
        .iter()
        .map(|o| format!("{} {}", o.name, counted(o.batch, "row")))
        .collect();
    let mut text = format!(
        "{}: {} layers, hidden {}, vocabulary {}; LoRA rank {} on {}; {} per step; \
         {} kernels, {}\n",
        config.model_type,
        config.layers,
        config.hidden,
        config.vocab,
        plan.lora.rank,
        bench.plan().lora.targets.join(", "),
        batches.join(", "),
        decoder.tier_name(),
        counted(decoder.threads(), "thread")
    );
    if plan.needs_reference() {
        let _ = writeln!(text, "reference: {REFERENCE}");
    }
    text.push('\n');
    text
}

fn ending(peak: Option<f64>) -> String {
    peak.map_or_else(String::new, |peak| {
        format!("\npeak memory {peak:.2} GB, base weights included\n")
    })
}

fn steps_table(bench: &Bench, costs: &[StepCost], matrix: MatrixRate, peak: Option<f64>) -> String {
    let is_cpu = bench.decoder().tier().is_some();
    let mut text = heading(bench);
    let _ = writeln!(
        text,
        "{:10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "",
        "s/step",
        "median",
        "tokens",
        "tokens/s",
        "MFLOP/tok",
        "GFLOP/s",
        "of large",
        if is_cpu { "of reg." } else { "of peak" }
    );
    for (objective, cost) in bench.plan().objectives.iter().zip(costs) {
        let rate = cost.operations_per_second;
        let of_bound = matrix.bound.map_or_else(
            || "-".to_owned(),
            |bound| format!("{:.1}%", 100.0 * rate / bound),
        );
        let _ = writeln!(
            text,
            "{:10} {:>9.3} {:>9.3} {:>9.0} {:>9.1} {:>9.1} {:>9.0} {:>8.1}% {of_bound:>9}",
            objective.name,
            cost.seconds_per_step,
            cost.median_seconds_per_step,
            cost.unique_tokens_per_step,
            cost.unique_tokens_per_second,
            cost.operations_per_token / 1e6,
            rate / 1e9,
            100.0 * rate / matrix.product
        );
    }
    let _ = write!(
        text,
        "\nmatrix rate of this {}, measured now: {:.0} GFLOP/s in a large matrix product",
        if is_cpu { "machine" } else { "GPU" },
        matrix.product / 1e9
    );
    let _ = match matrix.bound {
        Some(bound) if is_cpu => writeln!(text, ", {:.0} GFLOP/s in registers", bound / 1e9),
        Some(bound) => writeln!(
            text,
            "; its published peak: {:.0} GFLOP/s, so `of peak` is MFU",
            bound / 1e9
        ),
        None => writeln!(text),
    };
    let _ = writeln!(
        text,
        "tokens are unique: the prompt of a pair counts once, and there is no padding;\n\
         FLOP are those of matrix products and attention, counted by the engine"
    );
    text + &ending(peak)
}

fn methods_table(bench: &Bench, costs: &[MethodCost], peak: Option<f64>) -> String {
    let names: Vec<String> = bench
        .plan()
        .objectives
        .iter()
        .map(|o| format!("{:>6}", o.name))
        .collect();
    let mut text = heading(bench);
    let _ = writeln!(
        text,
        "{:16} {:>6} {} {:>6} {:>9} {:>13} {:>13} {:>13} {:>9} {:>9}",
        "",
        "steps",
        names.join(" "),
        "probed",
        "s/step",
        "GMA updates",
        "GMA losers",
        "GMA all",
        "forward",
        "backward"
    );
    let billions = |multiply_adds: u64| multiply_adds as f64 / 1e9;
    for cost in costs {
        let trained: Vec<String> = cost
            .trained
            .iter()
            .map(|steps| format!("{steps:>6}"))
            .collect();
        let _ = writeln!(
            text,
            "{:16} {:>6} {} {:>6} {:>9.3} {:>13.3} {:>13.3} {:>13.3} {:>9} {:>9}",
            cost.method,
            cost.steps,
            trained.join(" "),
            cost.probed,
            cost.seconds_per_step,
            billions(cost.multiply_adds_of_updates),
            billions(cost.multiply_adds_of_losers),
            billions(cost.multiply_adds),
            cost.tokens_forward,
            cost.tokens_backward
        );
    }
    let _ = writeln!(
        text,
        "\nprobed: steps that probed losses; \
         GMA: 10^9 multiply-adds of matrix products and attention, counted by the engine;\n\
         losers: probes of objectives that were not trained on; forward, backward: tokens"
    );
    text + &ending(peak)
}

fn kernels(arguments: &Arguments) -> Result<()> {
    let device = device(arguments.machine.device.as_deref())?;
    if !matches!(device, Device::Auto | Device::Cpu) {
        return Err(Error::input(format!(
            "--kernels measures the kernels of the CPU, not of {device}"
        ))
        .hint("omit --device, or measure steps: --model, --sft, --dpo"));
    }
    let (tier, threads) = (
        Tier::from_environment()?,
        threads(arguments.machine.threads.as_ref())?,
    );
    let mut measured: Vec<KernelRate> = Vec::new();
    microbench::kernels(tier, threads, |rate| measured.push(rate))?;
    if arguments.json {
        let kernels = measured.iter().map(|rate| {
            json!({
                "kernel": rate.kernel, "shape": rate.shape, "milliseconds": rate.seconds * 1e3, "unit": rate.limit.unit(),
                "rate": billions(rate.rate), "bound": billions(rate.bound), "share": rate.rate / rate.bound,
            })
        });
        let kernels: Vec<Value> = kernels.collect();
        return print_json(&json!({"tier": tier.name(), "threads": threads, "kernels": kernels}));
    }
    let width = measured
        .iter()
        .map(|rate| rate.shape.len())
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{tier} tier, {}; best of several runs\n\n",
        counted(threads, "thread")
    );
    let _ = writeln!(
        text,
        "{:20} {:width$} {:>9} {:>8} {:>8} {:>7}  bound by",
        "kernel", "", "ms", "rate", "bound", "share"
    );
    for rate in &measured {
        let bound_by = match rate.limit {
            microbench::Limit::Tier => "multiply-adds of the tier, in registers",
            microbench::Limit::Memory => "a copy of the same number of bytes",
        };
        let _ = writeln!(
            text,
            "{:20} {:width$} {:>9.3} {:>8.1} {:>8.1} {:>6.1}%  {}: {bound_by}",
            rate.kernel,
            rate.shape,
            rate.seconds * 1e3,
            rate.rate / 1e9,
            rate.bound / 1e9,
            100.0 * rate.rate / rate.bound,
            rate.limit.unit()
        );
    }
    print(&text)
}
