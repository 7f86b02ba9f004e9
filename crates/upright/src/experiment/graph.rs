//! A study as a graph of parts: references, each objective alone, and the runs that are compared. A part knows what it
//! needs, and is found by a hash of everything that decides its result, what it needs included.

use std::path::PathBuf;

use upright_base::{Error, Result};
use upright_runs::plan::Plan;
use upright_runs::settings::Config;
use upright_train::run::Preflight;

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name, for people and for `--only`.
    pub name: String,
    /// What it is.
    pub kind: JobKind,
    /// Parts that must be finished before it, by their place in the graph.
    pub needs: Vec<usize>,
    /// Folder of its run within the study's; none for a reference, which the cache keeps.
    pub folder: Option<PathBuf>,
    /// What it is called by: everything that decides its result.
    pub hash: String,
    /// Which of [`Graph::grounds`] it stands on.
    pub ground: usize,
    /// Settings of its run, without what other parts find out.
    pub(super) config: Config,
    /// What they mean.
    pub(super) plan: Plan,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq)]
pub enum JobKind {
    /// A reference policy that is trained first.
    Reference,
    /// An objective optimized alone: its optimum.
    Alone,
    /// A method or a baseline; whether it stops at the front.
    Run {
        /// Ends where an evaluation reaches the front or the ideal point.
        stops: bool,
    },
    /// The adapters of other parts, added up.
    Sum(Vec<(usize, f64)>),
}

/// Model, data and reference that parts have in common, with what is found out about them.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the settings met.
    pub met: Preflight,
    /// For each objective the parts that train it alone, one for each seed.
    pub alone: Vec<Vec<usize>>,
    /// Parts whose ends are the front.
    pub front: Vec<usize>,
    /// A front that another study found: a loss on training rows for every objective.
    pub given_front: Vec<Vec<f64>>,
    /// Settings, objectives listed, with ids of the hub as they were written.
    pub(super) written: Config,
    /// The same with local paths.
    pub(super) settings: Config,
    /// What they mean for a run of all objectives at once.
    pub(super) plan: Plan,
}

/// All parts, each after those it needs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The parts.
    pub parts: Vec<Job>,
    /// What they stand on.
    pub grounds: Vec<Setup>,
}

impl Setup {
    /// Names it, by everything that decides what is found out on it.
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
    /// The parts of that name, with all that they need; an unknown name is an error.
    pub fn only(&self, names: &[String]) -> Result<Vec<usize>> {
        let mut wanted = vec![names.is_empty(); self.parts.len()];
        for name in names {
            let known = || self.parts.iter().map(|part| &part.name[..]);
            let Some(index) = known().position(|known| known == name) else {
                let error = Error::input(format!("only: there is no part `{name}`"));
                return Err(match upright_base::suggest::nearest(name, known()) {
                    Some(close) => {
                        error.hint(format!("did you mean `{close}`? --dry-run lists all parts"))
                    }
                    None => error.hint("--dry-run lists all parts"),
                });
            };
            wanted[index] = true;
        }
        // Whatever a part needs stands before it.
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
