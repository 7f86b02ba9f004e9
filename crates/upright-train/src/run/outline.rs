//! What a run is about to do, and about how long it takes here: shown before the first step, and by `train --dry-run`.

use std::time::Instant;

use serde::Serialize;
use upright_base::{Result, counted};
use upright_core::{
    methods::{Cost, MethodSpec},
    optimizer::{Average, Curve},
};
use upright_data::{Dataset, Example};
use upright_model::adapter::{ALL_LINEAR, Adapter, LoraConfig};
use upright_runs::plan::{Plan, ReferencePlan, ReferenceRows, Schedule};

use super::{Model, optima, reference_policy};
use crate::packing::{pack, tokens};

/// Time of scoring tokens (forward pass only) as a fraction of the time of a training step with as many tokens. Measured on
/// the CPU engine; see `docs/log/2026-11-25-method-cost-deferred-head-gradient.md`.
pub const SCORING: f64 = 0.4;

/// Tokens of each objective in the measured forward pass. Enough to amortize the weights, few enough for a large model.
const MEASURED_TOKENS: usize = 256;

/// A forward pass slower than this, in seconds, is not repeated.
const LONG: f64 = 1.0;

/// What a run is about to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outline {
    /// The method.
    pub method: &'static MethodSpec,
    /// Number of updates.
    pub steps: usize,
    /// The objectives, in the order of the plan.
    pub objectives: Vec<ObjectiveOutline>,
    /// The adapter that is trained.
    pub adapter: AdapterOutline,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning-rate schedule.
    pub schedule: Curve,
    /// Warm-up steps of each stage.
    pub warmup: usize,
    /// The average that the run keeps.
    #[serde(skip_serializing_if = "Average::is_none")]
    pub average: Average,
    /// The reference model, if a loss uses one.
    pub reference: Option<ReferenceOutline>,
    /// Objectives whose optima are found by training them alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optima: Vec<OptimumOutline>,
    /// Number of evaluations.
    pub evaluations: usize,
    /// Estimated time.
    pub seconds: Seconds,
}

/// One objective of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveOutline {
    /// Name in the plan.
    pub name: String,
    /// Weight in the plan.
    pub weight: f64,
    /// Training rows.
    pub rows: usize,
    /// Held-out rows.
    pub held_out: usize,
    /// Rows per step.
    pub batch: usize,
    /// Steps that train on it: exact, or expected where the method decides by losses.
    pub steps: f64,
    /// Epochs over its training rows in these steps.
    pub epochs: f64,
    /// Template of its prompts.
    pub template: String,
}

/// The adapter of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterOutline {
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha.
    pub alpha: f64,
    /// Adapted linear layers.
    pub targets: Vec<String>,
    /// Number of parameters.
    pub parameters: usize,
    /// Whether it continues an existing adapter.
    pub continued: bool,
}

/// The reference model of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceOutline {
    /// Steps of training it; `None` if there is nothing left to train.
    pub steps: Option<usize>,
    /// What it is, in words.
    pub about: String,
    /// Rows that need its log-probabilities; some may be in the cache.
    pub rows: usize,
}

/// An objective that is trained alone for its optimum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimumOutline {
    /// Name of the objective.
    pub objective: String,
    /// Steps of training it alone; `None` if the optimum is known.
    pub steps: Option<usize>,
    /// Estimated time in seconds, with the evaluations; 0 if the optimum is known.
    pub seconds: f64,
    /// The optimum on training rows, if it is known.
    pub optimum: Option<f64>,
    /// The optimum on held-out rows, if it is known and there are such rows.
    pub optimum_eval: Option<f64>,
    /// The known optimum in words.
    #[serde(skip)]
    about: String,
}

/// Estimated time in seconds. Cached values are counted as if they had to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seconds {
    /// Training the reference model.
    pub reference_training: f64,
    /// Scoring rows with the reference model.
    pub reference_scoring: f64,
    /// Training objectives alone for their optima.
    pub optima: f64,
    /// All steps.
    pub steps: f64,
    /// All evaluations.
    pub evaluations: f64,
    /// All of these.
    pub total: f64,
}

impl Outline {
    /// The outline of a run whose model and rows are open. Runs one short forward pass to measure the speed.
    ///
    /// # Errors
    /// The forward pass fails, or the rows of a reference model that is to be trained cannot be read.
    pub(super) fn new(
        model: &Model,
        plan: &Plan,
        schedule: &Schedule,
        datasets: &[Dataset],
        (adapter, lora): (&Adapter, &LoraConfig),
        to_train: Option<&reference_policy::ToTrain>,
        alone: &[optima::Alone],
    ) -> Result<Self> {
        let token = seconds_per_token(model, plan, datasets, adapter)?;
        let mut objectives = Vec::new();
        let mut step_seconds = Vec::new();
        let mut evaluation = 0.0;
        for (index, data) in datasets.iter().enumerate() {
            let objective = &plan.objectives[index];
            let steps = expected_steps(plan, schedule, index);
            let rows = data.train.len();
            let epoch = Epoch::of(&data.train, objective.batch);
            objectives.push(ObjectiveOutline {
                name: objective.name.clone(),
                weight: objective.weight,
                rows,
                held_out: data.eval.len(),
                batch: plan.batch(index),
                steps,
                epochs: steps * plan.batch(index) as f64 / (objective.batch as f64 * epoch.steps),
                template: data.template.to_string(),
            });
            let share = plan.batch(index) as f64 / objective.batch as f64;
            step_seconds.push(share * epoch.tokens_per_step() * token / SCORING);
            for rows in [data.eval(plan.eval_rows), data.fit(plan.eval_rows)] {
                evaluation += tokens(rows) as f64 * token;
            }
        }
        let evaluations = 1 + match plan.eval_every {
            0 => usize::from(schedule.steps > 0),
            every => schedule.steps.div_ceil(every),
        };
        let needed = reference_policy::needed_rows(plan, schedule, datasets);
        let mut reference_steps = None;
        let mut reference_training = 0.0;
        if let Some(to_train) = to_train.filter(|to_train| !to_train.finished) {
            let steps = to_train.steps()?;
            let epoch = Epoch::of(&to_train.data.train, to_train.plan.objectives[0].batch);
            reference_training = steps as f64 * epoch.tokens_per_step() * token / SCORING;
            reference_steps = Some(steps);
        }
        let mut optima = Vec::new();
        let mut optima_seconds = 0.0;
        for run in alone {
            let objective = &plan.objectives[run.objective];
            let mut outlined = OptimumOutline {
                objective: objective.name.clone(),
                steps: None,
                seconds: 0.0,
                optimum: None,
                optimum_eval: None,
                about: String::new(),
            };
            if run.finished {
                let known = run.optimum()?;
                outlined.optimum = Some(known.fit);
                outlined.optimum_eval = objective.optimum_eval.or(known.held_out);
                outlined.about = known.to_string();
            } else {
                let epoch = Epoch::of(&datasets[run.objective].train, objective.batch);
                let step = epoch.tokens_per_step() * token / SCORING;
                outlined.steps = Some(schedule.steps);
                outlined.seconds = schedule.steps as f64 * step + evaluations as f64 * evaluation;
            }
            optima_seconds += outlined.seconds;
            optima.push(outlined);
        }
        if !plan.average.is_none() {
            // Before the first step, both adapters are the same.
            evaluation *= 2.0 - 1.0 / evaluations as f64;
        }
        let mut seconds = Seconds {
            reference_training,
            optima: optima_seconds,
            reference_scoring: tokens(needed.iter().copied()) as f64 * token,
            steps: seconds_of_steps(plan, schedule, &step_seconds),
            evaluations: evaluations as f64 * evaluation,
            total: 0.0,
        };
        seconds.total = seconds.reference_training
            + seconds.reference_scoring
            + seconds.optima
            + seconds.steps
            + seconds.evaluations;
        Ok(Self {
            method: plan.method,
            steps: schedule.steps,
            objectives,
            adapter: AdapterOutline {
                rank: lora.rank,
                alpha: lora.alpha,
                targets: lora.targets.clone(),
                parameters: adapter.layout.len,
                continued: plan.init_adapter.is_some(),
            },
            learning_rate: plan.optimizer.learning_rate,
            schedule: plan.optimizer.schedule,
            warmup: plan.optimizer.warmup,
            average: plan.average,
            reference: plan.needs_reference().then(|| ReferenceOutline {
                steps: reference_steps,
                about: about(&plan.reference),
                rows: needed.len(),
            }),
            optima,
            evaluations,
            seconds,
        })
    }

    /// The outline in lines of text.
    pub fn lines(&self) -> Vec<String> {
        let seconds = &self.seconds;
        let mut lines = vec![format!(
            "plan: {} of {}, {} in all",
            counted(self.steps, "step"),
            self.method.name,
            duration(seconds.total)
        )];
        let names = self.objectives.iter().map(|objective| objective.name.len());
        let width = names.chain(["evaluation".len()]).max().unwrap_or(0);
        let mut line = |name: &str, text: String| lines.push(format!("  {name:width$}  {text}"));
        for objective in &self.objectives {
            let epochs = if objective.steps == 0.0 {
                "not trained on".to_owned()
            } else if self.method.uses_optima {
                format!("about {} epochs", short(objective.epochs))
            } else if objective.epochs < 1.0 {
                format!(
                    "{} epochs: some rows are never used",
                    short(objective.epochs)
                )
            } else {
                format!("{} epochs", short(objective.epochs))
            };
            line(
                &objective.name,
                format!(
                    "weight {}, {} per step of {} training rows ({epochs}), template {}",
                    short(objective.weight),
                    objective.batch,
                    objective.rows,
                    objective.template
                ),
            );
        }
        let AdapterOutline {
            rank,
            alpha,
            targets,
            parameters,
            continued,
        } = &self.adapter;
        let targets = match &targets[..] {
            [all] if all == ALL_LINEAR => "all linear layers".to_owned(),
            names => names.join(", "),
        };
        let start = if *continued { ", continued" } else { "" };
        line(
            "adapter",
            format!(
                "LoRA rank {rank}, alpha {}, on {targets}: {} parameters{start}",
                short(*alpha),
                large(*parameters)
            ),
        );
        let warmup = match self.warmup {
            0 => String::new(),
            steps => format!(", {steps} warm-up steps"),
        };
        let average = match self.average {
            Average::None => "",
            Average::Polynomial => ", with a polynomial average",
        };
        line(
            "optimizer",
            format!(
                "AdamW, learning rate {:e}, {}{warmup}{average}",
                self.learning_rate,
                self.schedule.name()
            ),
        );
        if let Some(reference) = &self.reference {
            let training = match reference.steps {
                Some(steps) => format!(
                    ", trained first in {} ({})",
                    counted(steps, "step"),
                    duration(seconds.reference_training)
                ),
                None => String::new(),
            };
            line(
                "reference",
                format!(
                    "{}{training}; {} to score ({})",
                    reference.about,
                    counted(reference.rows, "row"),
                    duration(seconds.reference_scoring)
                ),
            );
        }
        for optimum in &self.optima {
            let name = &optimum.objective;
            let text = match optimum.steps {
                Some(steps) => format!(
                    "{name} is trained alone first in {} ({})",
                    counted(steps, "step"),
                    duration(optimum.seconds)
                ),
                None => format!("{name}: {}, trained before", optimum.about),
            };
            line("optimum", text);
        }
        if self.steps > 0 {
            line(
                "training",
                format!(
                    "{}, {} per step",
                    duration(seconds.steps),
                    duration(seconds.steps / self.steps as f64)
                ),
            );
        }
        line(
            "evaluation",
            format!(
                "{}, {} each",
                counted(self.evaluations, "time"),
                duration(seconds.evaluations / self.evaluations as f64)
            ),
        );
        lines
    }
}

/// One pass over training rows.
struct Epoch {
    /// Number of steps. The last has fewer rows if the rows do not divide evenly.
    steps: f64,
    /// Number of tokens.
    tokens: f64,
}

impl Epoch {
    fn of(rows: &[Example], batch: usize) -> Self {
        Self {
            steps: rows.len().div_ceil(batch).max(1) as f64,
            tokens: tokens(rows) as f64,
        }
    }

    fn tokens_per_step(&self) -> f64 {
        self.tokens / self.steps
    }
}

/// Expected seconds of all steps, given the seconds per step of each objective.
pub fn seconds_of_steps(plan: &Plan, schedule: &Schedule, step_seconds: &[f64]) -> f64 {
    if plan.method.has_stages {
        let mut seconds = 0.0;
        for stage in &schedule.stages {
            seconds += stage.steps() as f64 * step_seconds[stage.objective.unwrap_or(0)];
        }
        return seconds;
    }
    let mut weighted = 0.0;
    let mut all = 0.0;
    for (objective, cost) in plan.objectives.iter().zip(step_seconds) {
        if objective.weight > 0.0 {
            weighted += objective.weight * cost;
            all += cost;
        }
    }
    let per_step = match plan.method.cost {
        Cost::All => all,
        Cost::One => weighted,
        Cost::OneAndProbes => {
            let every = plan.method.probe_every(&plan.method_settings);
            weighted + SCORING * (all - weighted) / every.unwrap_or(1) as f64
        }
    };
    schedule.steps as f64 * per_step
}

/// Steps that train on an objective. Methods that use optima decide by losses: the share of an
/// objective is taken to be its weight.
fn expected_steps(plan: &Plan, schedule: &Schedule, index: usize) -> f64 {
    if plan.method.uses_optima {
        return schedule.steps as f64 * plan.objectives[index].weight;
    }
    let mut method = plan.method(schedule);
    let mut steps = 0;
    for step in 0..schedule.steps {
        steps += usize::from(method.weights(step)[index] > 0.0);
    }
    steps as f64
}

/// Seconds per token of a forward pass over a few rows of every objective.
fn seconds_per_token(
    model: &Model,
    plan: &Plan,
    datasets: &[Dataset],
    adapter: &Adapter,
) -> Result<f64> {
    let mut rows: Vec<&Example> = Vec::new();
    for data in datasets {
        let mut tokens = 0;
        for example in &data.train {
            if tokens >= MEASURED_TOKENS {
                break;
            }
            tokens += example.tokens();
            rows.push(example);
        }
    }
    let packs = pack(&rows, plan.token_budget);
    let adapter = model.decoder.load(adapter.clone())?;
    let mut best = f64::INFINITY;
    // The first pass also reads the weights from disk.
    for _ in 0..2 {
        let began = Instant::now();
        for packed in &packs {
            model.decoder.score(&packed.pack, Some(&adapter))?;
        }
        let seconds = began.elapsed().as_secs_f64();
        best = best.min(seconds);
        if seconds > LONG {
            break;
        }
    }
    Ok(best / tokens(rows).max(1) as f64)
}

fn about(reference: &ReferencePlan) -> String {
    match reference {
        ReferencePlan::Base => "the base model".to_owned(),
        ReferencePlan::Folder(folder) => folder.display().to_string(),
        ReferencePlan::Train { on, .. } => match on {
            ReferenceRows::Chosen => "an adapter for the chosen responses".to_owned(),
            ReferenceRows::Sft => "an adapter for the instruction rows".to_owned(),
        },
    }
}

/// At most two decimals, without zeros at the end.
fn short(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count, in millions if it is that large.
fn large(count: usize) -> String {
    if count < 1_000_000 {
        count.to_string()
    } else {
        format!("{} million", short(count as f64 / 1e6))
    }
}

/// A time that is an estimate, in the unit that fits.
fn duration(seconds: f64) -> String {
    if seconds < 0.1 {
        "under 0.1 s".to_owned()
    } else if seconds < 10.0 {
        format!("about {seconds:.1} s")
    } else if seconds < 120.0 {
        format!("about {seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("about {:.0} min", seconds / 60.0)
    } else {
        format!("about {:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_counts_its_short_last_batch() {
        let row = Example {
            row: 0,
            prompt: vec![1; 3],
            responses: vec![vec![2; 5].into()],
        };
        let epoch = Epoch::of(&vec![row; 10], 4);
        assert_eq!((epoch.steps, epoch.tokens), (3.0, 80.0));
        assert_eq!(Epoch::of(&[], 4).steps, 1.0);
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let expected = [
            (0.01, "under 0.1 s"),
            (2.46, "about 2.5 s"),
            (59.0, "about 59 s"),
            (300.0, "about 5 min"),
            (9000.0, "about 2.5 h"),
        ];
        for (seconds, text) in expected {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(16.0), "16");
        assert_eq!(short(1.0 / 3.0), "0.33");
        assert_eq!(large(4_884_480), "4.88 million");
        assert_eq!(large(6272), "6272");
    }
}
