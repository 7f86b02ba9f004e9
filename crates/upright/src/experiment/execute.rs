//! Does jobs, and reads results of finished jobs.

use std::path::PathBuf;

use super::graph::{Job, JobKind};
use super::{Experiment, State};
use crate::export::Export;
use upright_base::progress::Progress;
use upright_base::{Error, Result};
use upright_hub::Hub;
use upright_runs::plan::{Plan, named_trackers};
use upright_runs::records::{EvalRecord, PerSet, lowest_loss};
use upright_runs::run_dir::{self, read_evaluations};
use upright_runs::settings::{Config, List, Number};
use upright_runs::trackers::Trackers;
use upright_train::run;

impl Experiment {
    /// Does one job after the jobs that it needs. A reference may already be in the cache.
    pub(super) fn work(&self, part: &Job, observer: &mut dyn Progress) -> Result<State> {
        let Some(folder) = self.folder(part) else {
            let trained = run::train_reference(&part.plan, observer)?;
            return Ok(if trained { State::Done } else { State::Found });
        };
        let config = match &part.kind {
            JobKind::Reference => unreachable!("a reference has no folder here"),
            JobKind::Alone => part.config.clone(),
            JobKind::Run { stops } => self.informed(part, *stops)?,
            JobKind::Sum(of) => {
                let sum = self.out.join("sums").join(
                    part.folder
                        .as_ref()
                        .and_then(|f| f.file_name())
                        .unwrap_or_default(),
                );
                if !sum.exists() {
                    let adapters = of
                        .iter()
                        .map(|(index, weight)| (self.adapter(*index), *weight))
                        .collect();
                    let model = Some(part.plan.model.clone());
                    let out = sum.clone();
                    Export {
                        adapters,
                        model,
                        base_name: None,
                        out,
                        hub: Hub::from_environment(),
                    }
                    .adapter(observer)?;
                }
                // The adapter exists, so a run without steps evaluates it. The reference keeps the
                // shape in the settings.
                Config {
                    init_adapter: Some(sum),
                    steps: Some(Number::from("0")),
                    epochs: None,
                    ..self.informed(part, false)?
                }
            }
        };
        let config = Config {
            out: Some(folder.clone()),
            ..config
        };
        let (plan, written) = (
            Plan::from_config(&config)?,
            self.as_written(part, &config).to_toml()?,
        );
        let mut trackers = Trackers::open(&named_trackers(&config)?, &folder);
        run::run(&plan, &written, true, &mut trackers, observer)?;
        Ok(State::Done)
    }

    /// The settings with Hub ids instead of fetched paths, as a user could give them to
    /// `upright train`.
    fn as_written(&self, part: &Job, config: &Config) -> Config {
        let ground = &self.graph.grounds[part.ground];
        let (written, fetched) = (&ground.written, &ground.settings);
        let mut config = config.clone();
        config.model.clone_from(&written.model);
        config.reference.clone_from(&written.reference);
        if config.init_adapter == fetched.init_adapter {
            config.init_adapter.clone_from(&written.init_adapter);
        }
        let places: Vec<_> = fetched.objective.iter().zip(&written.objective).collect();
        for objective in &mut config.objective {
            for (fetched, written) in &places {
                if objective.data == fetched.data {
                    objective.data.clone_from(&written.data);
                }
                if objective.eval == fetched.eval {
                    objective.eval.clone_from(&written.eval);
                }
            }
        }
        config
    }

    /// The settings of a job with the optima and, if it stops early, the points at which it stops.
    fn informed(&self, part: &Job, stops: bool) -> Result<Config> {
        let ground = &self.graph.grounds[part.ground];
        let optima = self.optima(part.ground)?;
        let list = |losses: &[Option<f64>]| {
            let named = ground
                .objectives()
                .zip(losses)
                .filter_map(|(name, loss)| Some(format!("{name}={}", (*loss)?)));
            List(named.collect())
        };
        let mut config = Config {
            optimum: Some(list(&optima.training)),
            ..part.config.clone()
        };
        let known = list(&optima.held_out);
        config.optimum_eval = (!known.0.is_empty()).then_some(known);
        if stops {
            let mut points = ground.given_front.clone();
            for &end in &ground.front {
                points.push(self.end(end)?);
            }
            points.push(
                optima
                    .training
                    .iter()
                    .map(|loss| loss.unwrap_or(f64::NEG_INFINITY))
                    .collect(),
            );
            let point = |point: &Vec<f64>| {
                let named = ground
                    .objectives()
                    .zip(point)
                    .map(|(name, loss)| format!("{name}={loss}"));
                named.collect::<Vec<_>>().join(",")
            };
            config.stop_at = points.iter().map(point).collect();
        }
        Ok(config)
    }

    fn adapter(&self, index: usize) -> PathBuf {
        run_dir::adapter_dir(
            &self.out.join(
                self.graph.parts[index]
                    .folder
                    .as_ref()
                    .expect("a run has a folder"),
            ),
        )
    }

    /// The lowest losses in any evaluation while each objective was trained alone, over all seeds;
    /// none if there are no held-out rows.
    pub(super) fn optima(&self, ground: usize) -> Result<PerSet<Vec<Option<f64>>>> {
        let ground = &self.graph.grounds[ground];
        let mut optima = PerSet::<Vec<Option<f64>>>::default();
        for (name, parts) in ground.objectives().zip(&ground.alone) {
            let mut evaluations = Vec::new();
            for part in parts {
                evaluations.extend(self.evaluations(*part)?);
            }
            let lowest = lowest_loss(&evaluations, name);
            optima.held_out.push(lowest.held_out);
            optima.training.push(lowest.training);
        }
        Ok(optima)
    }

    /// Final losses of a job on training rows.
    pub(super) fn end(&self, index: usize) -> Result<Vec<f64>> {
        let ground = &self.graph.grounds[self.graph.parts[index].ground];
        let evaluations = self.evaluations(index)?;
        let loss = |name: &str| evaluations.last()?.last.training.loss(name);
        ground
            .objectives()
            .map(loss)
            .collect::<Option<_>>()
            .ok_or_else(|| {
                Error::failure(format!(
                    "{}: the last evaluation lacks a loss",
                    self.graph.parts[index].name
                ))
            })
    }

    fn evaluations(&self, index: usize) -> Result<Vec<EvalRecord>> {
        let folder = self.graph.parts[index]
            .folder
            .as_ref()
            .expect("a run has a folder");
        read_evaluations(&self.out.join(folder))
    }
}
