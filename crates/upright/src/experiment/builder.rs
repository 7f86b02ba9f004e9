//! Builds the graph of a study: its jobs, their names and their dependencies.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::forms::{Form, steps_at_equal_tokens};
use super::graph::{Graph, Job, JobKind, Setup};
use super::study::{Baseline, Front, Study, Sweep};
use upright_base::progress::Progress;
use upright_base::{Error, Result, files};
use upright_core::methods::{ALRIGHT, MIX, MethodSpec};
use upright_hub::Hub;
use upright_runs::plan::{ObjectivePlan, Plan, ReferencePlan, Schedule};
use upright_runs::settings::{Config, List, Number, ObjectiveConfig};
use upright_train::fetch::fetched;
use upright_train::run::Preflight;

/// Subfolder of a study with the run folders.
const RUNS: &str = "runs";

impl Graph {
    /// Builds the graph of a study with the folder `out`. Opens models, reads data, and checks
    /// every run, so that errors are found before the first run starts.
    pub fn of(study: &Study, out: &Path, observer: &mut dyn Progress) -> Result<Self> {
        let there = std::fs::read_dir(out.join(RUNS))
            .into_iter()
            .flatten()
            .flatten();
        let there = there
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let graph = Self {
            parts: Vec::new(),
            grounds: Vec::new(),
        };
        let mut builder = Builder {
            study,
            out,
            there,
            sweep: String::new(),
            graph,
        };
        let mut on = Vec::new();
        for sweep in &study.sweeps {
            let place = |error: Error| error.at(format!("sweep {}", sweep.name));
            on.push(builder.ground(sweep, observer).map_err(place)?);
        }
        for (sweep, &ground) in study.sweeps.iter().zip(&on) {
            let place = |error: Error| error.at(format!("sweep {}", sweep.name));
            let beside = study
                .sweeps
                .iter()
                .zip(&on)
                .filter(|(_, other)| **other == ground)
                .map(|(other, _)| other);
            let mut others =
                beside.filter(|other| other.front != Front::None && other.front != sweep.front);
            if let (true, Some(other)) = (sweep.front != Front::None, others.next()) {
                return Err(place(
                    Error::input(format!("stops at a different front than sweep {}", other.name)).hint(
                        "sweeps with the same model, data and reference share one front; split them into two studies",
                    ),
                ));
            }
            if let Front::Of(folder) = &sweep.front {
                let points = builder.graph.grounds[ground]
                    .read_front(folder)
                    .map_err(place)?;
                builder.graph.grounds[ground].given_front = points;
            }
        }
        for ground in 0..builder.graph.grounds.len() {
            let sweeps: Vec<&Sweep> = study
                .sweeps
                .iter()
                .zip(&on)
                .filter(|(_, other)| **other == ground)
                .map(|(sweep, _)| sweep)
                .collect();
            builder.sweep.clone_from(&sweeps[0].name);
            builder.common(ground, &sweeps)?;
            let prefix = builder.prefix(&sweeps);
            for sweep in sweeps {
                builder
                    .sweep(ground, &prefix, sweep)
                    .map_err(|error| error.at(format!("sweep {}", sweep.name)))?;
            }
        }
        Ok(builder.graph)
    }
}

/// A run of a method that trains on all objectives jointly.
#[derive(Clone, Copy)]
struct Joint<'a> {
    form: &'a Form,
    weights: &'a [f64],
    seed: u64,
}

/// Builds a [`Graph`].
struct Builder<'a> {
    study: &'a Study,
    out: &'a Path,
    /// Names of existing run folders.
    there: Vec<String>,
    /// Name of the sweep whose jobs are being added.
    sweep: String,
    graph: Graph,
}

/// Converts a number to a setting.
fn number(value: impl std::fmt::Display) -> Number {
    Number::from(&value.to_string()[..])
}

/// A point of a sweep in job names: the lambda of two objectives, or all weights.
fn point_name(plan: &Plan, weights: &[f64]) -> String {
    let pairs: Vec<usize> = (0..weights.len())
        .filter(|i| plan.objectives[*i].is_preference())
        .collect();
    match (&pairs[..], weights.len()) {
        ([pairs], 2) => format!("lambda-{}", weights[*pairs]),
        _ => format!(
            "weights-{}",
            weights
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join("-")
        ),
    }
}

/// The settings with these weights and this method.
pub(super) fn weighted(settings: &Config, weights: &[f64], method: &MethodSpec) -> Config {
    let mut config = settings.clone();
    for (objective, weight) in config.objective.iter_mut().zip(weights) {
        objective.weight = Some(number(weight));
    }
    Config {
        method: Some(method.name.to_owned()),
        ..config
    }
}

/// Weight 1 for one objective and 0 for the others.
fn alone(count: usize, index: usize) -> Vec<f64> {
    (0..count)
        .map(|i| if i == index { 1.0 } else { 0.0 })
        .collect()
}

impl Builder<'_> {
    /// The index of the setup of a sweep; an existing setup if nothing differs.
    fn ground(&mut self, sweep: &Sweep, observer: &mut dyn Progress) -> Result<usize> {
        let count = sweep.settings.objective.len();
        let even = vec![1.0 / count as f64; count];
        let settings = fetched(&sweep.settings, &Hub::from_environment(), observer)?;
        let config = Config {
            seed: Some(number(0)),
            ..weighted(&settings, &even, &MIX)
        };
        let plan = self.plan(&config)?;
        if plan.init_adapter.is_some()
            && sweep
                .baselines
                .iter()
                .any(|baseline| matches!(baseline, Baseline::Sum))
        {
            return Err(Error::input(
                "baseline sum: adapters that start from init-adapter cannot be added",
            )
            .hint(
                "each of them contains it; merge it into the model first: upright export --merge",
            ));
        }
        let known = self
            .graph
            .grounds
            .iter()
            .position(|ground| ground.plan == plan);
        if let Some(known) = known {
            return Ok(known);
        }
        let met = Preflight::of(&plan, observer)?;
        Schedule::new(&plan, &met.rows)?;
        // The runs do not print these notes again, because they are the same for all.
        let written = Config {
            objective: config.objective,
            ..sweep.written.clone()
        };
        for note in plan.notes(&written) {
            let place = if self.study.sweeps.len() > 1 {
                format!("sweep {}: ", sweep.name)
            } else {
                String::new()
            };
            observer.note(&format!("{place}{note}"));
        }
        self.graph.grounds.push(Setup {
            met,
            alone: Vec::new(),
            front: Vec::new(),
            given_front: Vec::new(),
            written: sweep.settings.clone(),
            settings,
            plan,
        });
        Ok(self.graph.grounds.len() - 1)
    }

    /// The plan of a config; its folder is set later.
    fn plan(&self, config: &Config) -> Result<Plan> {
        Plan::from_config(&Config {
            out: Some(self.out.to_owned()),
            ..config.clone()
        })
    }

    /// Prefix of job names if there are several setups. Sweeps with the same setup share jobs, so
    /// they share the prefix.
    fn prefix(&self, sweeps: &[&Sweep]) -> String {
        if self.graph.grounds.len() > 1 {
            format!("{}/", sweeps[0].name)
        } else {
            String::new()
        }
    }

    /// Steps of a run that trains on all objectives jointly.
    fn steps(&self, ground: usize) -> Result<usize> {
        let ground = &self.graph.grounds[ground];
        Ok(Schedule::new(&ground.plan, &ground.met.rows)?.steps)
    }

    /// Adds a job unless it exists; returns its index.
    fn push(
        &mut self,
        name: String,
        kind: JobKind,
        mut needs: Vec<usize>,
        ground: usize,
        config: Config,
    ) -> Result<usize> {
        let plan = self.plan(&config)?;
        let met = &self.graph.grounds[ground].met;
        if !matches!(kind, JobKind::Sum(_)) {
            // A baseline is an additional objective on existing rows.
            let rows = plan.objectives.iter().map(|objective| {
                let same = |other: &ObjectivePlan| other.same_rows(objective);
                met.rows[self.graph.grounds[ground]
                    .plan
                    .objectives
                    .iter()
                    .position(same)
                    .expect("the setup has its rows")]
            });
            Schedule::new(&plan, &rows.collect::<Vec<_>>()).map_err(|error| error.at(&name))?;
        }
        needs.sort_unstable();
        needs.dedup();
        let mut hasher = Sha256::new();
        let kind_text = match &kind {
            JobKind::Run { stops } => format!("run {stops}"),
            JobKind::Sum(of) => format!(
                "sum {:?}",
                of.iter().map(|(_, weight)| weight).collect::<Vec<_>>()
            ),
            JobKind::Reference => "reference".to_owned(),
            // Hashed like any other run: its purpose does not change its result.
            JobKind::Alone => "run false".to_owned(),
        };
        hasher.update(&kind_text);
        hasher.update(met.hash(&plan)?);
        for point in self.graph.grounds[ground]
            .given_front
            .iter()
            .filter(|_| kind == JobKind::Run { stops: true })
            .flatten()
        {
            hasher.update(point.to_le_bytes());
        }
        for need in &needs {
            hasher.update(&self.graph.parts[*need].hash);
        }
        let hash = files::hex(&hasher.finalize()[..8]);
        if let Some(known) = self.graph.parts.iter().position(|part| part.hash == hash) {
            return Ok(known);
        }
        // Runs of sweeps may differ only in their stages or in where they stop.
        let is_free = |name: &String| self.graph.parts.iter().all(|part| part.name != *name);
        let names = [
            name.clone(),
            format!("{name}-{}", self.sweep),
            format!("{name}-{}", &hash[..4]),
        ];
        let name = names
            .into_iter()
            .find(is_free)
            .unwrap_or_else(|| format!("{name}-{hash}"));
        // The hash identifies a folder, because names change when sweeps are added to the study.
        let end = format!("-{}", &hash[..8]);
        let there = self.there.iter().find(|folder| folder.ends_with(&end));
        let folder = there
            .cloned()
            .unwrap_or_else(|| name.replace('/', ".") + &end);
        let folder = (kind != JobKind::Reference).then(|| Path::new(RUNS).join(folder));
        self.graph.parts.push(Job {
            name,
            kind,
            needs,
            folder,
            hash,
            ground,
            config,
            plan,
        });
        Ok(self.graph.parts.len() - 1)
    }

    /// Adds the jobs that all sweeps of a setup share: the reference, each objective alone, the
    /// front.
    fn common(&mut self, ground: usize, sweeps: &[&Sweep]) -> Result<()> {
        let (prefix, steps) = (self.prefix(sweeps), self.steps(ground)?);
        let Setup { settings, plan, .. } = self.graph.grounds[ground].clone();
        let mut first = Vec::new();
        if matches!(plan.reference, ReferencePlan::Train { .. }) {
            let config = weighted(&settings, &plan.weights(), &MIX);
            first.push(self.push(
                format!("{prefix}reference"),
                JobKind::Reference,
                Vec::new(),
                ground,
                config,
            )?);
        }
        let count = plan.objectives.len();
        for index in 0..count {
            let mut parts = Vec::new();
            for &seed in &self.study.seeds {
                parts.push(self.alone(ground, &prefix, index, seed, steps, &first)?);
            }
            self.graph.grounds[ground].alone.push(parts);
        }
        let joint = |sweep: &&&Sweep| sweep.methods.iter().any(|method| !method.has_stages);
        for sweep in sweeps
            .iter()
            .filter(|sweep| sweep.front == Front::Own)
            .filter(joint)
        {
            for weights in &sweep.weights {
                let joint = Joint {
                    form: &Form::plain(&ALRIGHT),
                    weights,
                    seed: self.study.seeds[0],
                };
                let part = self.joint(ground, &prefix, &joint, &[], false)?;
                if !self.graph.grounds[ground].front.contains(&part) {
                    self.graph.grounds[ground].front.push(part);
                }
            }
        }
        Ok(())
    }

    /// Adds a job that trains an objective alone, for as many steps as the methods take.
    fn alone(
        &mut self,
        ground: usize,
        prefix: &str,
        index: usize,
        seed: u64,
        steps: usize,
        first: &[usize],
    ) -> Result<usize> {
        let Setup { settings, plan, .. } = self.graph.grounds[ground].clone();
        let config = Config {
            seed: Some(number(seed)),
            steps: Some(number(steps)),
            epochs: None,
            ..weighted(&settings, &alone(plan.objectives.len(), index), &MIX)
        };
        let name = format!("{prefix}alone-{}-seed-{seed}", plan.objectives[index].name);
        self.push(name, JobKind::Alone, first.to_vec(), ground, config)
    }

    /// The jobs that every run of a method or a baseline needs: the reference and the optima.
    fn optima(&self, ground: usize) -> Vec<usize> {
        let alone = &self.graph.grounds[ground].alone;
        alone
            .iter()
            .flatten()
            .flat_map(|part| self.graph.parts[*part].needs.iter().chain([part]))
            .copied()
            .collect()
    }

    /// Adds one run of a joint method. It stops at the final losses of the jobs in `front`, and at
    /// a given front.
    fn joint(
        &mut self,
        ground: usize,
        prefix: &str,
        joint: &Joint<'_>,
        front: &[usize],
        stops: bool,
    ) -> Result<usize> {
        let Joint {
            form,
            weights,
            seed,
        } = *joint;
        let steps = self.steps(ground)?;
        let Setup {
            settings,
            plan,
            met,
            ..
        } = self.graph.grounds[ground].clone();
        let mut config = Config {
            seed: Some(number(seed)),
            ..weighted(&settings, weights, form.method)
        };
        let equal = steps_at_equal_tokens(&plan, weights, &met.tokens, &met.rows, steps);
        form.write_to(&mut config, equal);
        let needs = self
            .optima(ground)
            .into_iter()
            .chain(front.iter().copied())
            .collect();
        let [before, after] = form.names();
        let point = point_name(&plan, weights);
        let name = format!("{prefix}{before}-{point}{after}-seed-{seed}");
        self.push(name, JobKind::Run { stops }, needs, ground, config)
    }

    /// Adds the runs of one sweep.
    fn sweep(&mut self, ground: usize, prefix: &str, sweep: &Sweep) -> Result<()> {
        self.sweep.clone_from(&sweep.name);
        let Setup {
            settings,
            plan,
            front,
            given_front,
            ..
        } = self.graph.grounds[ground].clone();
        let steps = self.steps(ground)?;
        let stops = sweep.front != Front::None && !(front.is_empty() && given_front.is_empty());
        let front = if sweep.front == Front::Own {
            front
        } else {
            Vec::new()
        };
        for (index, weights) in sweep.weights.iter().enumerate() {
            for &seed in &sweep.seeds {
                for &method in &sweep.methods {
                    for form in Form::of(method, &sweep.mix, &sweep.method_settings) {
                        let joint = Joint {
                            form: &form,
                            weights,
                            seed,
                        };
                        // Final losses of ALRIGHT are the front, so no seed stops at the front.
                        let is_front = sweep.front == Front::Own && form.is_plain(&ALRIGHT);
                        if is_front {
                            self.joint(ground, prefix, &joint, &[], false)?;
                        } else {
                            self.joint(ground, prefix, &joint, &front, stops)?;
                        }
                    }
                    if !method.has_stages {
                        continue;
                    }
                    for stages in self.stages(sweep, index, weights, &plan, steps)? {
                        let (order, stages) = stages;
                        let config = Config {
                            seed: Some(number(seed)),
                            stages: Some(List::from(&stages[..])),
                            steps: None,
                            epochs: None,
                            ..weighted(&settings, weights, method)
                        };
                        let point = point_name(&plan, weights);
                        let name = format!("{prefix}{method}-{order}-{point}-seed-{seed}");
                        self.push(
                            name,
                            JobKind::Run { stops: false },
                            self.optima(ground),
                            ground,
                            config,
                        )?;
                    }
                }
                for baseline in &sweep.baselines {
                    self.baseline(ground, prefix, baseline, weights, seed)?;
                }
            }
        }
        Ok(())
    }

    /// Stages of Sequential at a point of the sweep, each with the name of its order.
    fn stages(
        &self,
        sweep: &Sweep,
        index: usize,
        weights: &[f64],
        plan: &Plan,
        steps: usize,
    ) -> Result<Vec<(String, String)>> {
        let name = |i: usize| &plan.objectives[i].name[..];
        if let Some(stages) = sweep.stages.get(index) {
            let order = stages
                .0
                .iter()
                .map(|stage| stage.split(':').next().unwrap_or_default());
            return Ok(vec![(
                order.collect::<Vec<_>>().join("-"),
                stages.to_string(),
            )]);
        }
        let stages = |order: &Vec<usize>| {
            // Boundaries are rounded instead of lengths, so that the lengths sum to the total.
            let (mut weight, mut begun, mut stages) = (0.0, 0, Vec::new());
            for &i in order {
                weight += weights[i];
                let boundary = (steps as f64 * weight).round() as usize;
                if boundary == begun {
                    return Err(Error::input(format!(
                        "sequential gets no step of {}: its weight is {}, of {steps} steps in all",
                        name(i),
                        weights[i]
                    ))
                    .hint("increase steps, or set the length of each stage: stages = [\"dpo:1e,sft:5e\"]"));
                }
                stages.push(format!("{}:{}", name(i), boundary - begun));
                begun = boundary;
            }
            Ok((
                order.iter().map(|i| name(*i)).collect::<Vec<_>>().join("-"),
                stages.join(","),
            ))
        };
        sweep.orders.iter().map(stages).collect()
    }

    fn baseline(
        &mut self,
        ground: usize,
        prefix: &str,
        baseline: &Baseline,
        weights: &[f64],
        seed: u64,
    ) -> Result<usize> {
        let Setup { settings, plan, .. } = self.graph.grounds[ground].clone();
        match baseline {
            Baseline::Sum => {
                let steps = self.steps(ground)?;
                let first: Vec<usize> = self.optima(ground);
                let first: Vec<usize> = first
                    .into_iter()
                    .filter(|part| self.graph.parts[*part].kind == JobKind::Reference)
                    .collect();
                let mut of = Vec::new();
                for (index, weight) in weights.iter().enumerate() {
                    of.push((
                        self.alone(ground, prefix, index, seed, steps, &first)?,
                        *weight,
                    ));
                }
                let needs = self
                    .optima(ground)
                    .into_iter()
                    .chain(of.iter().map(|(part, _)| *part))
                    .collect();
                let config = Config {
                    seed: Some(number(seed)),
                    ..weighted(&settings, weights, &MIX)
                };
                let name = format!("{prefix}sum-{}-seed-{seed}", point_name(&plan, weights));
                self.push(name, JobKind::Sum(of), needs, ground, config)
            }
            Baseline::Loss(objective) => {
                let mut config = weighted(&settings, &vec![0.0; weights.len()], &MIX);
                let pairs = plan
                    .objectives
                    .iter()
                    .position(|objective| objective.is_preference());
                let ObjectiveConfig { data, eval, .. } =
                    settings.objective[pairs.expect("checked by the sweep")].clone();
                let weight = Some(number(1));
                config.objective.push(ObjectiveConfig {
                    weight,
                    data,
                    eval,
                    ..(**objective).clone()
                });
                let config = Config {
                    seed: Some(number(seed)),
                    ..config
                };
                let name = format!(
                    "{prefix}{}-seed-{seed}",
                    objective.name.as_deref().unwrap_or_default()
                );
                self.push(
                    name,
                    JobKind::Run { stops: false },
                    self.optima(ground),
                    ground,
                    config,
                )
            }
        }
    }
}
