//! Reports of runs: a self-explanatory HTML page with figures and tables, made from run folders
//! alone.
//!
//! [`Report::read`] turns folders into numbers; [`Report::write`] turns numbers into files. Runs
//! whose plans differ only in the seed form one [`Arm`]. A copied folder gives the same report.
//!
//! | modules | purpose |
//! |---|---|
//! | `discover`, `run`, `study`, `benchmarks` | reading folders |
//! | `arm`, `gather`, `labels`, `paths` | grouping runs into arms |
//! | `budget`, `level`, `matching`, `comparisons`, `ideal`, `sums` | which arms are compared with which |
//! | `scored_models`, `scores`, `grid` | scores of benchmarks by arm, in rows and columns |
//! | `fronts`, `claims`, `small` | verdicts, and which of them rest on little |
//! | `prose`, `glossary`, `table`, `tables`, `figures/` | text, tables and figures |
//! | `page` | the HTML page |
//!
//! ```
//! use upright_report::Report;
//!
//! let error = Report::read(&["no/such/folder".into()]).unwrap_err();
//! assert!(error.message.contains("no/such/folder"));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod arm;
mod benchmarks;
mod budget;
mod claims;
mod comparisons;
mod discover;
mod figures;
mod fronts;
mod gather;
mod glossary;
mod grid;
mod ideal;
mod labels;
mod level;
mod matching;
mod page;
mod paths;
mod prose;
mod run;
mod scored_models;
mod scores;
mod small;
mod study;
mod sums;
mod table;
mod tables;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use arm::{Arm, Role};
pub use benchmarks::{BENCHMARKS, Benchmark, Difference, Score};
pub use claims::{Claim, NoError, Verdict};
pub use fronts::{Best, Front};
pub use ideal::{Comparable, Optimum, Source};
pub use level::Level;
pub use run::{Point, Run};
pub use scores::{ArmScore, ModelScore, ReferenceScore, Scores};
pub use small::Small;
pub use study::{ANSWERS, Answer, Answers, STUDY, Study};

use upright_base::{Error, Result, files, parallel, progress::Progress};

/// File name of the page in a report folder.
pub const PAGE: &str = "report.html";

/// The content of the page, as numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Title and purpose of the runs, if a file beside them states them.
    pub study: Study,
    /// Names of the objectives compared.
    pub objectives: Vec<String>,
    /// The settings in which losses are measured.
    pub settings: Vec<Comparable>,
    /// The training budgets of the arms, by name: the settings in which they differ, or a number if
    /// these are many. Only arms with the same budget are compared.
    pub terms: Vec<String>,
    /// The settings in which each training budget differs from the others.
    pub budgets: Vec<String>,
    /// For each training budget, a number that is equal for budgets that differ only in their
    /// steps.
    #[serde(skip)]
    families: Vec<usize>,
    /// The arms, in the order of the page.
    pub arms: Vec<Arm>,
    /// Which arms are on the front.
    pub best: Best,
    /// Methods over their weights.
    pub fronts: Vec<Front>,
    /// Comparisons at equal tokens, where they differ from those at equal steps.
    pub levels: Vec<Level>,
    /// The paper's claims, tested on the arms.
    pub claims: Vec<Claim>,
    /// Scores of benchmarks, by arm.
    pub benchmarks: Vec<Scores>,
    /// Responses to the same prompts. A run is named by its arm and seed.
    pub answers: Vec<Answers>,
    /// The runs that could be read.
    pub runs: Vec<Run>,
    /// The runs that could not be read, and why.
    pub damaged: Vec<Damaged>,
}

/// A run folder that cannot be read, or whose content no run could have written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its path, relative to the given folder.
    pub place: String,
    /// The error.
    pub why: String,
}

impl Report {
    /// Reads every run in or below the folders. A folder is a run folder itself, or contains run
    /// folders at some depth.
    ///
    /// # Errors
    /// A folder contains no run, or none that can be read. A file beside the runs is damaged.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let (mut runs, mut damaged) = (Vec::new(), Vec::new());
        for found in discover::runs(folders)? {
            match Run::read(&found) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    // The page names paths relative to the given folder.
                    let why = error
                        .message
                        .replace(&found.path.display().to_string(), &found.place);
                    damaged.push(Damaged {
                        place: found.place,
                        why,
                    });
                }
            }
        }
        if let (true, Some(first)) = (runs.is_empty(), damaged.first()) {
            return Err(Error::input(format!("no run can be read: {}", first.why))
                .hint("restore the file from a copy of the run, or train again to a new --out"));
        }
        let objectives = compared(&runs);
        let settings = Comparable::find(&runs, &objectives);
        let (arms, budgets) = Arm::gather(&runs, &objectives, &settings)?;
        let best = fronts::best(&arms, &settings);
        let mut report = Self {
            study: study::study(folders)?,
            fronts: fronts::fronts(&arms, &best, &objectives),
            levels: Vec::new(),
            claims: Vec::new(),
            benchmarks: Vec::new(),
            families: budgets.iter().map(|budget| budget.family).collect(),
            answers: Vec::new(),
            objectives,
            settings,
            terms: budgets.iter().map(|budget| budget.name.clone()).collect(),
            budgets: budgets.into_iter().map(|budget| budget.differs).collect(),
            arms,
            best,
            runs,
            damaged,
        };
        report.levels = level::levels(&report);
        report.benchmarks = scored_models::scores(&report, folders)?;
        report.claims = claims::claims(&report);
        for folder in folders {
            for mut asked in study::answers(folder)? {
                asked
                    .answers
                    .iter_mut()
                    .for_each(|answer| answer.run = report.who(folder, &answer.run));
                report.answers.push(asked);
            }
        }
        Ok(report)
    }

    /// Writes the page, its figures and its tables into a folder. Returns the path of the page.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, out: &Path, observer: &mut dyn Progress) -> Result<PathBuf> {
        let (figures, tables) = (out.join("figures"), out.join("tables"));
        files::create_dir(&figures)?;
        files::create_dir(&tables)?;
        for folder in [&figures, &tables] {
            files::check_inside(out, folder)?;
        }
        let shown = figures::figures(self);
        let mut all = tables::shown(self);
        all.extend(tables::behind_figures(self));
        for table in &all {
            files::write_atomic(
                &tables.join(format!("{}.csv", table.name)),
                table.csv().as_bytes(),
            )?;
            files::write_atomic(
                &tables.join(format!("{}.md", table.name)),
                table.markdown().as_bytes(),
            )?;
        }
        observer.begin("figures", shown.len());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let draw = |i: usize| shown[i].figure.save(&figures, shown[i].name);
        let drawn = parallel::map(shown.len(), threads, draw, &mut |done| {
            observer.advance(done, "");
        });
        observer.end();
        drawn?;
        // Remove files of an earlier report of these runs that this report does not have.
        let stale =
            |names: &[&str], current: &dyn Fn(&str) -> bool, folder: &Path, endings: &[&str]| {
                for name in names.iter().filter(|name| !current(name)) {
                    endings.iter().for_each(|ending| {
                        drop(std::fs::remove_file(folder.join(format!("{name}{ending}"))));
                    });
                }
            };
        stale(
            &figures::NAMES,
            &|name| shown.iter().any(|f| f.name == name),
            &figures,
            &[".svg", ".png", "-dark.png"],
        );
        stale(
            &tables::NAMES,
            &|name| all.iter().any(|t| t.name == name),
            &tables,
            &[".csv", ".md"],
        );
        let path = out.join(PAGE);
        files::write_atomic(&path, page::page(self, &shown).as_bytes())?;
        Ok(path)
    }

    /// Whether distances to the ideal point can be computed.
    fn has_ideal(&self) -> bool {
        self.settings
            .iter()
            .any(|setting| (0..2).any(|set| setting.ideal_point(set).is_some()))
    }

    /// Names a setting: by its model and reference if no other setting has them, else by a number.
    fn setting_name(&self, setting: usize) -> String {
        let of = &self.settings[setting];
        let several = |value: fn(&Comparable) -> &String| {
            self.settings.iter().any(|other| value(other) != value(of))
        };
        let mut words = Vec::new();
        if several(|setting| &setting.model) {
            words.push(format!("on {}", of.model));
        }
        if several(|setting| &setting.reference) {
            words.push(format!("reference {}", of.reference));
        }
        // The page has a legend of numbered settings.
        let twin = |other: &Comparable| other.model == of.model && other.reference == of.reference;
        match self.settings.iter().filter(|other| twin(other)).count() {
            1 if !words.is_empty() => words.join(", "),
            _ => format!("setting {}", setting + 1),
        }
    }

    /// Names the source of a response: the arm and seed if `run` is the path of a run, otherwise
    /// `run`.
    fn who(&self, folder: &Path, run: &str) -> String {
        let path = folder.join(run).canonicalize().ok();
        let index = self
            .runs
            .iter()
            .position(|other| path.is_some() && other.path.canonicalize().ok() == path);
        let arm = index.and_then(|index| self.exported_arm(index));
        let arm = arm.map(|arm| &self.arms[arm]);
        match (index, arm) {
            (Some(index), Some(arm)) if arm.all.len() > 1 => {
                format!("{}, seed {}", arm.label, self.runs[index].seed)
            }
            (_, Some(arm)) => arm.label.clone(),
            _ => run.to_owned(),
        }
    }

    /// The index of an arm. Labels are unique.
    fn index(&self, arm: &Arm) -> Option<usize> {
        self.arms.iter().position(|other| other.label == arm.label)
    }

    /// The arm of the iterate that a run exported.
    fn exported_arm(&self, run: usize) -> Option<usize> {
        let exported = self.runs[run].plan().export_iterate;
        let mut own = (0..self.arms.len()).filter(|arm| self.arms[*arm].all.contains(&run));
        own.clone()
            .find(|arm| self.arms[*arm].iterate == exported)
            .or_else(|| own.next())
    }

    /// Whether an arm competes with others. Arms that train one objective alone do not, unless
    /// there are no other arms.
    fn contends(&self, arm: &Arm) -> bool {
        let alone = |arm: &Arm| matches!(arm.role, Role::Alone(_));
        !alone(arm) || self.arms.iter().all(alone)
    }

    /// Whether the runs of an arm end at different steps.
    fn ends_apart(&self, arm: &Arm) -> bool {
        let end = |i: usize| self.runs[i].points.last().map(|point| point.step);
        arm.runs.iter().any(|i| end(*i) != end(arm.runs[0]))
    }

    /// The objectives that the first run of an arm trained on, as first step, end step (exclusive)
    /// and the share of each compared objective in these steps. Equal neighbors are one entry; very
    /// long runs are divided into bins.
    fn decisions(&self, arm: &Arm) -> Vec<(usize, usize, Vec<f64>)> {
        const BINS: usize = 400;
        let run = &self.runs[arm.runs[0]];
        let width = run.steps.div_ceil(BINS).max(1);
        let ids: Vec<Option<usize>> = self
            .objectives
            .iter()
            .map(|name| run.objective(name))
            .collect();
        let mut found: Vec<(usize, usize, Vec<f64>)> = Vec::new();
        for (bin, steps) in run.updates.chunks(width).enumerate() {
            let share = |id: &Option<usize>| {
                let Some(id) = *id else { return 0.0 };
                let of = |step: &Vec<bool>| {
                    if step[id] {
                        1.0 / step.iter().filter(|used| **used).count() as f64
                    } else {
                        0.0
                    }
                };
                steps.iter().map(of).sum::<f64>() / steps.len() as f64
            };
            let shares: Vec<f64> = ids.iter().map(share).collect();
            let (from, to) = (bin * width, bin * width + steps.len());
            match found.last_mut() {
                Some((_, end, before)) if *before == shares => *end = to,
                _ => found.push((from, to, shares)),
            }
        }
        found
    }

    /// Indices of MAXRIGHT arms that differ only in k, by k: one list per setting, budget and
    /// weights with several k.
    fn probed(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, arm) in self
            .arms
            .iter()
            .enumerate()
            .filter(|(_, arm)| arm.role == Role::Maxright)
        {
            let like = |other: &Arm| {
                other.comparison() == arm.comparison()
                    && matching::same(&other.weights, &arm.weights)
            };
            match groups.iter_mut().find(|group| like(&self.arms[group[0]])) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        for group in &mut groups {
            group.sort_by_key(|i| self.arms[*i].probe_every);
            group.dedup_by_key(|i| self.arms[*i].probe_every);
        }
        groups.retain(|group| group.len() > 1);
        groups
    }
}

/// The objectives that all runs share, in the order of the first run. A run with a single objective
/// may lack the others. If no objective is shared, all of them.
fn compared(runs: &[Run]) -> Vec<String> {
    let single = |run: &&Run| run.plan().objectives.len() == 1;
    let several: Vec<&Run> = runs.iter().filter(|run| !single(run)).collect();
    let asked: Vec<&Run> = if several.is_empty() {
        runs.iter().collect()
    } else {
        several
    };
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
