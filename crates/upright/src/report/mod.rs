//! The report of runs: one page that explains itself, its figures and its tables, from run folders alone.
//!
//! [`Report::read`] turns folders into numbers, [`Report::write`] numbers into files. Runs whose plans differ in nothing but
//! the seed are one [`Arm`]; a copied folder reports the same.

mod arms;
mod find;
mod ideal;
mod labels;
mod page;
mod run;
mod study;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use arms::{Arm, Role};
pub use ideal::{Optimum, Setting, Source};
pub use run::{Point, Run};
pub use study::{ANSWERS, Answer, Answers, STUDY, Study};

use crate::{Error, Result, files, observer::Observer};

/// Name of the page in a report's folder.
pub const PAGE: &str = "report.html";

/// Everything the page says, as numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Names of the objectives compared.
    pub objectives: Vec<String>,
    /// What losses are measured in.
    pub settings: Vec<Setting>,
    /// The arms, in the order of the page.
    pub arms: Vec<Arm>,
    /// The runs that could be read.
    pub runs: Vec<Run>,
    /// Runs that could not, and why.
    pub damaged: Vec<Damaged>,
}

/// A run that says what no run could have written, or nothing that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Where it is, seen from the folder that was given.
    pub place: String,
    /// What is wrong.
    pub why: String,
}

impl Report {
    /// Reads every run in or below the folders: a run's folder itself, or one that holds runs somewhere below.
    ///
    /// # Errors
    /// A folder holds no run, or none that can be read.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let (mut runs, mut damaged) = (Vec::new(), Vec::new());
        for found in find::runs(folders)? {
            match Run::read(&found) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    // The page names places as seen from the folder that was given.
                    let why = error.message.replace(&found.path.display().to_string(), &found.place);
                    damaged.push(Damaged { place: found.place, why });
                }
            }
        }
        if let (true, Some(first)) = (runs.is_empty(), damaged.first()) {
            return Err(Error::input(format!("no run can be read: {}", first.why)));
        }
        let objectives = compared(&runs);
        let settings = Setting::find(&runs, &objectives);
        let arms = Arm::gather(&runs, &objectives, &settings)?;
        Ok(Self { objectives, settings, arms, runs, damaged })
    }

    /// Writes the page, its figures and its tables into a folder; returns the page's path.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, out: &Path, _observer: &mut dyn Observer) -> Result<PathBuf> {
        files::create_dir(out)?;
        let path = out.join(PAGE);
        files::write_atomic(&path, page::page(self).as_bytes())?;
        Ok(path)
    }
}

/// The objectives that every run has, in the order of the first. A run of a single objective may lack the others; where
/// no objective is shared, all of them.
fn compared(runs: &[Run]) -> Vec<String> {
    let single = |run: &&Run| run.plan().objectives.len() == 1;
    let several: Vec<&Run> = runs.iter().filter(|run| !single(run)).collect();
    let asked: Vec<&Run> = if several.is_empty() { runs.iter().collect() } else { several };
    let mut all: Vec<String> = Vec::new();
    for objective in asked.iter().flat_map(|run| &run.plan().objectives) {
        if !all.contains(&objective.name) {
            all.push(objective.name.clone());
        }
    }
    let everywhere = |name: &&String| asked.iter().all(|run| run.objective(name).is_some());
    let shared: Vec<String> = all.iter().filter(everywhere).cloned().collect();
    if shared.is_empty() { all } else { shared }
}
