//! Finds the models of the scores beside the runs: runs of the report, grouped by arm, or models by
//! name.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    report::Report,
    scores::{ArmScore, ModelScore, ReferenceScore, Scores},
};
use crate::read::benchmarks::{self, BENCHMARKS, Benchmark, KEEP_ONE, Score, TWICE};
use upright_base::{Error, Result};

/// Name and hash of a model that is no run.
type Identity = (String, String);

/// A benchmark with its scores by model.
struct Gathered {
    /// The benchmark, without its scores.
    benchmark: Benchmark,
    /// Scores by index of the report's run.
    runs: HashMap<usize, Score>,
    /// Scores of models that are no run.
    references: Vec<Score>,
    /// The models of `references`.
    known: HashSet<Identity>,
    /// Folders with scores that the report does not show.
    left_out: HashSet<PathBuf>,
}

/// What a text in the file names.
enum Model {
    /// A run, by index.
    Run(usize),
    /// A folder that the report does not show: a damaged run, or one of an earlier study.
    LeftOut(PathBuf),
    /// Something else, by name.
    Name(Identity),
}

/// Reads the benchmarks beside the runs of a report. Several folders may have the same benchmark. A
/// model that several folders score keeps its first score.
///
/// # Errors
/// A file cannot be read or is damaged, names a run that does not exist, or differs from another
/// file about the same benchmark.
pub(crate) fn scores(report: &Report, folders: &[PathBuf]) -> Result<Vec<Scores>> {
    let mut indices = HashMap::new();
    for (index, run) in report.runs.iter().enumerate() {
        if let Ok(path) = run.path.canonicalize() {
            indices.insert(path, index);
        }
    }
    let mut all: Vec<Gathered> = Vec::new();
    for folder in folders {
        for benchmark in benchmarks::read(folder)? {
            let name = &benchmark.name;
            let position = all.iter().position(|other| other.benchmark.name == *name);
            let position = position.unwrap_or(all.len());
            if position == all.len() {
                all.push(Gathered::new(&benchmark));
            }
            all[position]
                .add(&benchmark, folder, &indices)
                .map_err(|(what, hint)| {
                    let path = folder.join(BENCHMARKS);
                    Error::input(format!("{}: {name}: {what}", path.display())).hint(hint)
                })?;
        }
    }
    let names = names(&all);
    let mut found = Vec::new();
    for gathered in all {
        found.extend(by_arm(report, gathered, &names));
    }
    Ok(found)
}

impl Gathered {
    fn new(benchmark: &Benchmark) -> Self {
        Self {
            benchmark: Benchmark {
                scores: Vec::new(),
                ..benchmark.clone()
            },
            runs: HashMap::new(),
            references: Vec::new(),
            known: HashSet::new(),
            left_out: HashSet::new(),
        }
    }

    /// Adds the scores in the file of a folder. `indices` has the report's runs by path.
    ///
    /// # Errors
    /// What is wrong, and a way out.
    fn add(
        &mut self,
        benchmark: &Benchmark,
        folder: &Path,
        indices: &HashMap<PathBuf, usize>,
    ) -> std::result::Result<(), (String, &'static str)> {
        let own = &self.benchmark;
        if own.title != benchmark.title
            || own.unit != benchmark.unit
            || own.higher_is_better != benchmark.higher_is_better
        {
            let what = "title, unit or direction differ between the folders of this report";
            return Err((what.into(), "report these folders one by one"));
        }
        let mut runs: HashMap<usize, Score> = HashMap::new();
        for score in &benchmark.scores {
            match model(score, folder, indices) {
                Some(Model::Run(index)) => {
                    if runs.insert(index, score.clone()).is_some() {
                        return Err((format!("{} {TWICE}", score.run), KEEP_ONE));
                    }
                }
                Some(Model::LeftOut(path)) => {
                    self.left_out.insert(path);
                }
                Some(Model::Name(identity)) => {
                    if self.known.insert(identity) {
                        self.references.push(score.clone());
                    }
                }
                None => {
                    let hint = "remove this score, or give a run folder relative to this file; a \
                                name such as base has no /";
                    return Err((format!("{}: no such run", score.run), hint));
                }
            }
        }
        for (index, score) in runs {
            self.runs.entry(index).or_insert(score);
        }
        Ok(())
    }
}

/// The model of a score; none if it names a run that does not exist.
fn model(score: &Score, folder: &Path, indices: &HashMap<PathBuf, usize>) -> Option<Model> {
    let name = || Model::Name((score.run.clone(), score.of.clone()));
    if !score.of.is_empty() {
        return Some(name());
    }
    match folder.join(&score.run).canonicalize() {
        Ok(path) => Some(match indices.get(&path) {
            Some(index) => Model::Run(*index),
            None => Model::LeftOut(path),
        }),
        Err(_) => (!score.run.contains('/')).then(name),
    }
}

/// A name for every model that is no run. Bases of several studies may have the same name; all but
/// the first get a number.
fn names(all: &[Gathered]) -> HashMap<Identity, String> {
    let mut names: HashMap<Identity, String> = HashMap::new();
    let mut taken = HashSet::new();
    let mut twins: HashMap<&String, usize> = HashMap::new();
    for score in all.iter().flat_map(|gathered| &gathered.references) {
        let identity = (score.run.clone(), score.of.clone());
        if names.contains_key(&identity) {
            continue;
        }
        let mut name = score.run.clone();
        while !taken.insert(name.clone()) {
            let count = twins.entry(&score.run).or_insert(1);
            *count += 1;
            name = format!("{} ({count})", score.run);
        }
        names.insert(identity, name);
    }
    names
}

/// Groups the scores of runs by arm; none if there is no score.
fn by_arm(
    report: &Report,
    gathered: Gathered,
    names: &HashMap<Identity, String>,
) -> Option<Scores> {
    let mut arms = Vec::new();
    for (index, arm) in report.arms.iter().enumerate() {
        let mut models = Vec::new();
        for run in &arm.runs {
            // The score is that of the iterate that the run exported.
            if let Some(score) = gathered.runs.get(run)
                && report.exported_arm(*run) == Some(index)
            {
                models.push((report.runs[*run].seed, score.clone()));
            }
        }
        let score = ModelScore::of(&models);
        arms.extend(score.map(|score| ArmScore { arm: index, score }));
    }
    let mut references = Vec::new();
    for score in gathered.references {
        let name = names[&(score.run.clone(), score.of.clone())].clone();
        let score = ModelScore::of(&[(0, score)]);
        references.extend(score.map(|score| ReferenceScore { name, score }));
    }
    let benchmark = gathered.benchmark;
    let title = if benchmark.title.is_empty() {
        benchmark.name.clone()
    } else {
        benchmark.title
    };
    (!arms.is_empty() || !references.is_empty()).then_some(Scores {
        name: benchmark.name,
        title,
        unit: benchmark.unit,
        higher_is_better: benchmark.higher_is_better,
        about: benchmark.about,
        references,
        arms,
        left_out: gathered.left_out.len(),
    })
}
