//! Reads one run from its folder alone.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::discover::Found;
use upright_base::{Error, Result, files};
use upright_core::{
    metrics::{cost::median, stopping::reached},
    optimizer::Iterate,
};
use upright_model::model_files::hub_name;
use upright_runs::{
    plan::{Length, ObjectivePlan, Plan, ReferencePlan, Schedule, Stage, StopPlan},
    plan_record::PlanRecord,
    records::{EvalRecord, EvalSet, PerSet, StepRecord, loss_key},
    run_dir::{read_evaluations, read_steps},
    settings,
};

/// The content of a run folder.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Its path, relative to the given folder.
    pub place: String,
    /// Its seed.
    pub seed: u64,
    /// Steps taken.
    pub steps: usize,
    /// Steps planned.
    pub planned: usize,
    /// Total time of all steps, in seconds, without evaluations and checkpoints.
    pub seconds: f64,
    /// Seconds times CPU utilization, summed over the steps: the cost of the run itself,
    /// independent of other load on the machine. None unless every step recorded it.
    pub busy_seconds: Option<f64>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens of batches that were probed and not trained on in the same step.
    pub probed_tokens: u64,
    /// Median CPU utilization over the steps, 0 to 1, if it was recorded.
    pub utilization: Option<f64>,
    /// Peak memory, in GB.
    pub peak_memory_gb: Option<f64>,
    /// Its evaluations, in order.
    #[serde(skip)]
    pub points: Vec<Point>,
    /// Tokens trained on before each step, and at the end.
    #[serde(skip)]
    pub(crate) tokens_before: Vec<f64>,
    /// Seconds of training steps before each step, and at the end.
    #[serde(skip)]
    pub(crate) seconds_before: Vec<f64>,
    /// For every step, which objectives of the plan it trained on.
    #[serde(skip)]
    pub updates: Vec<Vec<bool>>,
    /// Stages of Sequential; one for a joint method.
    #[serde(skip)]
    pub(crate) stages: Vec<Stage>,
    /// Whether its weights were requested. Otherwise the weights of a sequential run are only a
    /// default, because its stages were given.
    #[serde(skip)]
    pub(crate) weighed: bool,
    #[serde(skip)]
    pub(crate) path: PathBuf,
    #[serde(skip)]
    pub(crate) written: PlanRecord,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Number of steps taken before it.
    pub step: usize,
    /// Loss of every objective of the plan, on held-out rows and on training rows.
    pub losses: PerSet<Vec<Option<f64>>>,
    /// The same losses of the averaged adapter; none if the run keeps no average.
    pub averaged: PerSet<Vec<Option<f64>>>,
}

impl Run {
    /// Reads a run.
    ///
    /// # Errors
    /// A file cannot be read, or its content is not what a run writes.
    pub(super) fn read(found: &Found) -> Result<Self> {
        let written = PlanRecord::read(&found.path)?;
        let plan = &written.plan;
        let rows: Vec<usize> = written
            .facts
            .data
            .iter()
            .map(|data| data.train_rows)
            .collect();
        if rows.len() != plan.objectives.len() {
            return Err(damaged(
                &found.path,
                "plan.toml",
                "does not describe the data of every objective",
            ));
        }
        let stages = match plan.length {
            // An adapter is evaluated and not trained.
            Some(Length::Steps(0)) => Vec::new(),
            _ => {
                Schedule::new(plan, &rows)
                    .map_err(|error| error.at(found.path.display()))?
                    .stages
            }
        };
        let planned = stages.last().map_or(0, |stage| stage.end);
        let lines = read_steps(&found.path)?;
        check_steps(&found.path, &lines, planned)?;
        let points = points(&found.path, plan, lines.len())?;
        let utilization: Vec<f64> = lines.iter().filter_map(|line| line.utilization).collect();
        let trained = |line: &StepRecord| {
            plan.objectives
                .iter()
                .map(|o| line.has_trained_on(&o.name))
                .collect()
        };
        let run = Self {
            place: found.place.clone(),
            seed: plan.seed,
            steps: lines.len(),
            planned,
            // `sum` of no steps would be -0.
            seconds: lines
                .iter()
                .filter_map(|line| line.seconds)
                .fold(0.0, |sum, seconds| sum + seconds),
            tokens_before: sums(&lines, |line| line.tokens.map(|tokens| tokens as f64)),
            seconds_before: sums(&lines, |line| line.seconds),
            busy_seconds: lines.iter().try_fold(0.0, |sum, line| {
                Some(sum + line.seconds? * line.utilization?)
            }),
            tokens: lines.iter().filter_map(|line| line.tokens).sum(),
            probed_tokens: lines.iter().map(|line| line.probed_tokens).sum(),
            utilization: median(&utilization),
            peak_memory_gb: lines
                .iter()
                .filter_map(|line| line.peak_memory_gb)
                .reduce(f64::max),
            points,
            updates: lines.iter().map(trained).collect(),
            stages,
            weighed: plan.stages.is_empty() || asks_for_weights(&found.path),
            path: found.path.clone(),
            written,
        };
        if run.is_finished() {
            run.check_end()?;
        }
        Ok(run)
    }

    /// Whether it took all its steps, or stopped at the goal in its plan.
    pub fn is_finished(&self) -> bool {
        let Some(end) = self.points.last().filter(|point| point.step == self.steps) else {
            return false;
        };
        let losses: Vec<f64> = end
            .losses
            .training
            .iter()
            .map(|loss| loss.unwrap_or(f64::INFINITY))
            .collect();
        let stops = |stop: &StopPlan| reached(&losses, &stop.points, stop.within);
        self.steps == self.planned || self.plan().stop.as_ref().is_some_and(stops)
    }

    /// Whether it stopped at the goal in its plan before it took all its steps.
    pub fn ended_early(&self) -> bool {
        self.is_finished() && self.steps < self.planned
    }

    /// Checks that a finished run has a final loss on at least one set.
    fn check_end(&self) -> Result<()> {
        let end = self
            .points
            .last()
            .into_iter()
            .flat_map(|point| point.losses.iter());
        let measured = end.flatten().filter(|loss| loss.is_some()).count();
        if measured > 0 {
            return Ok(());
        }
        Err(damaged(
            &self.path,
            "evals.jsonl",
            "has no loss after the last step",
        ))
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.written.plan
    }

    /// Index of an objective in this run's plan.
    pub(crate) fn objective(&self, name: &str) -> Option<usize> {
        self.plan()
            .objectives
            .iter()
            .position(|objective| objective.name == name)
    }

    /// Loss of an objective at one evaluation, by one of the run's adapters.
    pub(crate) fn loss(
        &self,
        point: &Point,
        iterate: Iterate,
        set: EvalSet,
        name: &str,
    ) -> Option<f64> {
        let losses = match iterate {
            Iterate::Last => &point.losses,
            Iterate::Average => &point.averaged,
        };
        losses[set][self.objective(name)?]
    }

    /// Whether its last evaluation measured an averaged adapter. An unfinished or damaged run may
    /// lack the losses of the average that its plan asks for.
    pub(crate) fn has_average(&self) -> bool {
        let Some(end) = self.points.last() else {
            return false;
        };
        let measured = end.averaged.iter().flatten().any(Option::is_some);
        self.planned > 0 && !self.plan().average.is_none() && measured
    }

    /// Whether this run trains on an objective.
    pub(crate) fn trains_on(&self, objective: usize) -> bool {
        if self.plan().method.has_stages {
            return self
                .stages
                .iter()
                .any(|stage| stage.objective == Some(objective));
        }
        self.plan().objectives[objective].weight > 0.0
    }

    /// The objective that this run trains on, if there is only one.
    pub(crate) fn alone(&self) -> Option<usize> {
        if self.planned == 0 {
            return None;
        }
        let objectives = &self.plan().objectives;
        let mut used = (0..objectives.len()).filter(|i| self.trains_on(*i));
        used.next().filter(|_| used.next().is_none())
    }

    /// Epochs of training, by the objective that it trains most. None for a run that takes no step.
    pub(crate) fn epochs(&self) -> Option<f64> {
        let mut most: Option<f64> = None;
        for id in 0..self.plan().objectives.len() {
            let steps = self.updates.iter().filter(|step| step[id]).count();
            let rows = self.written.facts.data[id].train_rows;
            if steps > 0 && rows > 0 {
                let epochs = (steps * self.plan().batch(id)) as f64 / rows as f64;
                most = Some(most.unwrap_or(0.0).max(epochs));
            }
        }
        most
    }

    /// Name of the base model: its Hub id, or the name of its folder.
    pub(crate) fn model(&self) -> String {
        let model = &self.plan().model;
        let name = || model.file_name().map(|name| name.display().to_string());
        hub_name(model)
            .map(|(id, _)| id)
            .or_else(name)
            .unwrap_or_else(|| model.display().to_string())
    }

    /// Whether it is a sequential run with stages given in epochs.
    pub(crate) fn stages_in_epochs(&self) -> bool {
        self.plan()
            .stages
            .iter()
            .any(|stage| matches!(stage.length, Length::Epochs(_)))
    }

    /// For a run that evaluates a sum of adapters of a study: its name without seed and hash. A
    /// study keeps the sum in `sums/`, under the name of the run folder.
    pub(crate) fn sum(&self) -> Option<&str> {
        let (adapter, own) = (
            self.plan().init_adapter.as_ref()?,
            self.plan().out.file_name()?,
        );
        let added = self.planned == 0
            && adapter.file_name() == Some(own)
            && adapter.parent()?.ends_with("sums");
        let name = own.to_str().filter(|_| added)?;
        Some(name.rsplit_once("-seed-").map_or(name, |(name, _)| name))
    }

    /// Name of the initial adapter: its Hub id, or the name of its folder; for the adapter of a
    /// run, the name of the run folder.
    pub(crate) fn adapter(&self) -> String {
        let Some(folder) = &self.plan().init_adapter else {
            return self.place.clone();
        };
        let above = folder
            .parent()
            .filter(|above| folder.ends_with("adapter") && above.file_name().is_some());
        let name = || {
            above
                .unwrap_or(folder)
                .file_name()
                .map(|name| name.display().to_string())
        };
        hub_name(folder)
            .map(|(id, _)| id)
            .or_else(name)
            .unwrap_or_else(|| self.place.clone())
    }

    /// A short name of the reference policy.
    pub(crate) fn reference(&self) -> String {
        use upright_runs::plan::ReferenceRows::{Chosen, Sft};
        match &self.plan().reference {
            ReferencePlan::Base => "base".into(),
            ReferencePlan::Train { on: Chosen, .. } => "chosen".into(),
            ReferencePlan::Train { on: Sft, .. } => "sft".into(),
            ReferencePlan::Folder(folder) => folder
                .file_name()
                .map_or_else(|| "adapter".into(), |name| name.display().to_string()),
        }
    }
}

/// The names of an objective's files, without their folders.
pub(crate) fn file_names(plan: &ObjectivePlan) -> Vec<String> {
    let file = |file: &upright_data::DataFile| {
        let name = file.name();
        Path::new(&name)
            .file_name()
            .map_or_else(|| name.clone(), |name| name.display().to_string())
    };
    plan.data.iter().map(file).collect()
}

/// Whether the config of a run sets lambda or weights.
fn asks_for_weights(run: &Path) -> bool {
    let text = files::read_text(&run.join(settings::FILE)).unwrap_or_default();
    let config: toml::Table = text.parse().unwrap_or_default();
    let objectives = config
        .get("objective")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten();
    config.contains_key("lambda")
        || objectives
            .into_iter()
            .any(|objective| objective.get("weight").is_some())
}

fn damaged(run: &Path, file: &str, what: &str) -> Error {
    Error::input(format!("{}: {what}", run.join(file).display()))
}

/// Checks that steps are numbered from 0 without a gap, and that there are no more than planned.
fn check_steps(run: &Path, lines: &[StepRecord], planned: usize) -> Result<()> {
    if let Some(at) = (0..lines.len()).find(|i| lines[*i].step != *i) {
        return Err(damaged(
            run,
            "steps.jsonl",
            &format!("line {}: is not step {at}", at + 1),
        ));
    }
    if lines.len() > planned {
        let what = format!("has {} steps, but the plan has {planned}", lines.len());
        return Err(damaged(run, "steps.jsonl", &what));
    }
    Ok(())
}

fn points(run: &Path, plan: &Plan, steps: usize) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    for (i, line) in read_evaluations(run)?.iter().enumerate() {
        let step = line.step;
        if step > steps || points.last().is_some_and(|before| before.step >= step) {
            return Err(damaged(
                run,
                "evals.jsonl",
                &format!("line {}: step is not in order", i + 1),
            ));
        }
        let read = |iterate: Iterate| {
            losses(line, plan, iterate).map_err(|key| {
                let what = format!("line {}: {key} is not a number", i + 1);
                damaged(run, "evals.jsonl", &what)
            })
        };
        points.push(Point {
            step,
            losses: read(Iterate::Last)?,
            averaged: read(Iterate::Average)?,
        });
    }
    Ok(points)
}

/// The losses of one adapter in an evaluation. A missing key is a missing loss.
///
/// # Errors
/// The key of a loss that is not a finite number.
fn losses(
    line: &EvalRecord,
    plan: &Plan,
    iterate: Iterate,
) -> std::result::Result<PerSet<Vec<Option<f64>>>, String> {
    let mut found = PerSet::<Vec<Option<f64>>>::default();
    for set in EvalSet::ALL {
        for objective in &plan.objectives {
            let name = &objective.name;
            let measured = line.of(iterate).and_then(|sets| sets[set].objective(name));
            let loss = measured.and_then(|measured| measured.loss);
            if loss.is_some_and(|loss| !loss.is_finite()) {
                return Err(loss_key(iterate, set, name));
            }
            found[set].push(loss);
        }
    }
    Ok(found)
}

/// Sums of a number over the steps before each step, and over all steps. A step without the number
/// adds 0.
fn sums(lines: &[StepRecord], number: impl Fn(&StepRecord) -> Option<f64>) -> Vec<f64> {
    let mut sum = 0.0;
    let mut found = vec![sum];
    for line in lines {
        sum += number(line).unwrap_or(0.0);
        found.push(sum);
    }
    found
}
