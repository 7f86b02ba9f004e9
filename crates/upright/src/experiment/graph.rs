//! A study as a graph of jobs: references, each objective alone, and the compared runs. A job lists
//! the jobs that it needs. It is identified by a hash of everything that determines its result,
//! including the jobs that it needs.

use std::path::PathBuf;

use upright_base::{Error, Result};
use upright_runs::plan::Plan;
use upright_runs::settings::Config;
use upright_train::run::Preflight;

/// One job of a study.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name, for display and for `--only`.
    pub name: String,
    /// Its kind.
    pub kind: JobKind,
    /// Indices of the jobs that must be finished before it.
    pub needs: Vec<usize>,
    /// Its run folder, relative to the study folder; none for a reference, which is in the cache.
    pub folder: Option<PathBuf>,
    /// Hash of everything that determines its result.
    pub hash: String,
    /// Index of its setup in [`Graph::grounds`].
    pub ground: usize,
    /// Settings of its run, without the values that other jobs find.
    pub(super) config: Config,
    /// The plan of these settings.
    pub(super) plan: Plan,
}

/// The kind of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobKind {
    /// Trains a reference policy.
    Reference,
    /// Trains an objective alone, to find its optimum.
    Alone,
    /// Runs a method or a baseline.
    Run {
        /// Whether it stops when an evaluation reaches the front or the ideal point.
        stops: bool,
    },
    /// Adds the adapters of other jobs, each given with its weight.
    Sum(Vec<(usize, f64)>),
}

/// Model, data and reference that jobs share, with the results found for them.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Hashes of everything that the settings depend on.
    pub met: Preflight,
    /// For each objective, the jobs that train it alone, one per seed.
    pub alone: Vec<Vec<usize>>,
    /// The jobs whose final losses are the front.
    pub front: Vec<usize>,
    /// The front of another study: one loss on training rows per objective.
    pub given_front: Vec<Vec<f64>>,
    /// Settings with the objectives listed and with Hub ids as written.
    pub(super) written: Config,
    /// The same settings with local paths.
    pub(super) settings: Config,
    /// Their plan for a run that trains on all objectives jointly.
    pub(super) plan: Plan,
}

/// All jobs, each after the jobs that it needs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The jobs.
    pub parts: Vec<Job>,
    /// Their setups.
    pub grounds: Vec<Setup>,
}

impl Setup {
    /// Hash of everything that determines the results on this setup.
    pub(super) fn hash(&self) -> Result<String> {
        Ok(self.met.hash(&self.plan)?[..8].to_owned())
    }

    /// Names of the objectives.
    pub fn objectives(&self) -> impl Iterator<Item = &str> {
        self.plan
            .objectives
            .iter()
            .map(|objective| &objective.name[..])
    }
}

impl Graph {
    /// Indices of the named jobs and of all jobs that they need; all jobs if `names` is empty.
    ///
    /// # Errors
    /// A name is unknown.
    pub fn only(&self, names: &[String]) -> Result<Vec<usize>> {
        let mut wanted = vec![names.is_empty(); self.parts.len()];
        for name in names {
            let known = || self.parts.iter().map(|part| &part.name[..]);
            let Some(index) = known().position(|known| known == name) else {
                let error = Error::input(format!("only: there is no job `{name}`"));
                return Err(match upright_base::suggest::nearest(name, known()) {
                    Some(close) => {
                        error.hint(format!("did you mean `{close}`? --dry-run lists all jobs"))
                    }
                    None => error.hint("--dry-run lists all jobs"),
                });
            };
            wanted[index] = true;
        }
        // The jobs that a job needs come before it.
        for index in (0..self.parts.len())
            .rev()
            .filter(|index| wanted[*index])
            .collect::<Vec<_>>()
        {
            let mut open = vec![index];
            while let Some(index) = open.pop() {
                wanted[index] = true;
                open.extend(&self.parts[index].needs);
            }
        }
        Ok((0..self.parts.len())
            .filter(|index| wanted[*index])
            .collect())
    }
}
