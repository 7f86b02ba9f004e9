//! Benchmarks of a study's models: MMLU, win rates, and losses on more rows (Table 1 of the paper).
//! Each score is kept in the study's folder, so that an interrupted study continues with the next
//! model.
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`] | the `[evaluate]` table |
//! | `scores` | scores on disk, and their means and differences |
//! | `mmlu`, `win_rate`, `sets` | one benchmark each |
//! | `plan` | what is left to do, and what it costs |

mod mmlu;
mod plan;
mod scores;
mod sets;
pub mod settings;
mod win_rate;

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use upright_base::{Error, Result, files, progress::Progress};
use upright_data::mmlu::Subject;
use upright_hub::Hub;
use upright_report::{BENCHMARKS, Benchmark, Difference, Score};
use upright_train::fetch::data_file;

use super::{Experiment, Job, JobKind, Setup};
use crate::{mmlu::settings::Checked, win_rate::Questions};
pub use plan::BenchmarkPlan;
use scores::Scores;
pub use settings::Benchmarks;
use settings::{RowSet, WinRateSettings};

/// Folder of the scores in the folder of a study.
const FOLDER: &str = "benchmarks";

/// The benchmarks of a study with their questions.
#[derive(Default)]
pub(super) struct Opened {
    mmlu: Option<OpenedMmlu>,
    win_rate: Option<OpenedWinRate>,
    sets: Vec<RowSet>,
}

/// MMLU's questions.
struct OpenedMmlu {
    checked: Checked,
    subjects: Vec<Subject>,
    hash: String,
}

/// The questions of a win rate.
struct OpenedWinRate {
    settings: WinRateSettings,
    questions: Questions,
    hash: String,
}

/// A model that takes the benchmarks.
struct Candidate<'a> {
    /// Its run folder relative to the study, or the name of a base.
    run: String,
    /// Identity of a base; empty for a run.
    of: String,
    /// Name for the progress.
    name: String,
    setup: &'a Setup,
    job: Option<&'a Job>,
    /// Hash of everything that decides its answers.
    hash: String,
}

/// A benchmark with the scores of all models.
struct Taken {
    name: String,
    title: String,
    unit: &'static str,
    is_higher_better: bool,
    about: String,
    /// Scores in the order of the candidates; `None` for models that did not take it.
    scores: Vec<Option<Scores>>,
    /// Why the scores are no result although there are some.
    lacking: Option<Error>,
}

impl Opened {
    /// Reads the questions. Downloads datasets of the Hub.
    ///
    /// # Errors
    /// A file is missing or broken, or a set names no objective.
    pub(super) fn new(
        benchmarks: &Benchmarks,
        setups: &[Setup],
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        for set in &benchmarks.sets {
            for setup in setups {
                set.objective_in(setup)?;
            }
        }
        let hub = Hub::from_environment();
        let mut opened = Self {
            sets: benchmarks.sets.clone(),
            ..Self::default()
        };
        if let Some(settings) = &benchmarks.mmlu {
            let at = |error: Error| error.at("[evaluate] mmlu");
            let checked = settings.checked().map_err(at)?;
            let subjects = settings.questions(&hub, &checked, observer).map_err(at)?;
            let hash = hash_of(&[&format!("{settings:?}"), &format!("{subjects:?}")]);
            opened.mmlu = Some(OpenedMmlu {
                checked,
                subjects,
                hash,
            });
        }
        if let Some(settings) = &benchmarks.win_rate {
            let at = |error: Error| error.at("[evaluate] win-rate");
            let file = data_file(&hub, "prompts", &settings.prompts, observer).map_err(at)?;
            let answers = &settings.answers;
            let questions =
                Questions::read(&file, &answers.map()?, answers.limit()?, answers.style())
                    .map_err(at)?;
            for note in questions.notes() {
                observer.note(&format!("[evaluate] win-rate: {note}"));
            }
            let judge = settings.judge.identity();
            let hash = hash_of(&[
                &format!("{answers:?}"),
                &judge,
                &format!("{:?}", questions.all),
            ]);
            opened.win_rate = Some(OpenedWinRate {
                settings: settings.clone(),
                questions,
                hash,
            });
        }
        for set in &mut opened.sets {
            let name = format!("[evaluate] sets.{}", set.name);
            let file = data_file(&hub, &name, &set.data, observer)?;
            let [path] = &file.shards[..] else {
                return Err(Error::input(format!(
                    "{name}: data has {} files, but one is expected",
                    file.shards.len()
                ))
                .hint("join the files, or make a set of each"));
            };
            set.data.clone_from(path);
        }
        Ok(opened)
    }

    fn is_empty(&self) -> bool {
        self.mmlu.is_none() && self.win_rate.is_none() && self.sets.is_empty()
    }
}

/// A hash of some texts.
fn hash_of(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    files::hex(&hash.finalize()[..16])
}

impl Experiment {
    /// Takes the benchmarks that are missing with every base model and every finished run, and writes
    /// `benchmarks.json`. If one fails, the others are taken and written.
    ///
    /// # Errors
    /// A benchmark failed, or a stop was requested.
    pub(super) fn take_benchmarks(&self, observer: &mut dyn Progress) -> Result<()> {
        let file = self.out.join(BENCHMARKS);
        if self.opened.is_empty() {
            // The scores of an earlier version of the study's file.
            let _ = std::fs::remove_file(file);
            return Ok(());
        }
        let candidates = self.candidates(|job| self.is_finished(job))?;
        let stop = observer.stop();
        let mut results = Vec::new();
        if let Some(mmlu) = &self.opened.mmlu {
            for (form, name, title) in mmlu.forms() {
                results.push(self.take_mmlu(mmlu, form, name, title, &candidates, observer));
            }
        }
        if let Some(win_rate) = &self.opened.win_rate
            && !stop.is_requested()
        {
            results.push(self.take_win_rate(win_rate, &candidates, observer));
        }
        for set in &self.opened.sets {
            if !stop.is_requested() {
                results.push(self.take_set(set, &candidates, observer));
            }
        }
        let mut listed = Vec::new();
        let mut failed: Option<Error> = None;
        for result in results {
            let lacking = match result {
                Ok(mut taken) => {
                    let lacking = taken.lacking.take();
                    listed.push(listed_scores(taken, &candidates));
                    lacking
                }
                Err(error) => Some(error),
            };
            // The first error counts.
            failed = failed.or(lacking);
        }
        let text = serde_json::to_string_pretty(&listed)
            .map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(&file, text.as_bytes())?;
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Every base model, and every run of a method or a baseline that `is_wanted`.
    fn candidates(&self, is_wanted: impl Fn(&Job) -> bool) -> Result<Vec<Candidate<'_>>> {
        let mut candidates = Vec::new();
        let bases = self.bases();
        for (index, setup) in self.graph.grounds.iter().enumerate() {
            if let Some((_, hash, name)) = bases.iter().find(|(ground, ..)| *ground == index) {
                candidates.push(Candidate {
                    run: name.clone(),
                    of: hash.clone(),
                    name: name.clone(),
                    setup,
                    job: None,
                    // Templates and the reference decide what a base scores, too.
                    hash: hash_of(&[hash, &setup.hash()?]),
                });
            }
            for job in &self.graph.parts {
                let is_arm = matches!(job.kind, JobKind::Run { .. } | JobKind::Sum(_));
                let Some(folder) = job.folder.as_ref().filter(|_| is_arm) else {
                    continue;
                };
                if job.ground == index && is_wanted(job) {
                    candidates.push(Candidate {
                        run: folder.display().to_string(),
                        of: String::new(),
                        name: job.name.clone(),
                        setup,
                        job: Some(job),
                        hash: job.hash.clone(),
                    });
                }
            }
        }
        Ok(candidates)
    }

    /// The kept scores of the candidates on a benchmark.
    fn kept_scores(
        &self,
        benchmark: &str,
        settings: &str,
        candidates: &[Candidate<'_>],
    ) -> Vec<Option<Scores>> {
        let mut kept = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            kept.push(Scores::read(
                &self.scores_file(benchmark, settings, candidate),
            ));
        }
        kept
    }

    /// The file of a model's scores on a benchmark.
    fn scores_file(&self, benchmark: &str, settings: &str, candidate: &Candidate<'_>) -> PathBuf {
        let name = hash_of(&[settings, &candidate.hash]);
        self.out
            .join(FOLDER)
            .join(benchmark)
            .join(format!("{name}.json"))
    }

    /// The folder of a run's adapter; none for a base.
    fn adapter_of(&self, candidate: &Candidate<'_>) -> Option<PathBuf> {
        let folder = self.folder(candidate.job?)?;
        Some(upright_runs::run_dir::adapter_dir(&folder))
    }
}

/// A benchmark as `benchmarks.json` lists it, with paired differences to each model's base.
fn listed_scores(taken: Taken, candidates: &[Candidate<'_>]) -> Benchmark {
    let mut scores = Vec::new();
    for (candidate, own) in candidates.iter().zip(&taken.scores) {
        let Some(own) = own else {
            continue;
        };
        let mean = own.mean();
        if !mean.mean.is_finite() {
            continue;
        }
        let mut difference = None;
        if candidate.job.is_some()
            && let Some(base) = base_of(candidate, candidates)
            && let Some(Some(other)) = taken.scores.get(base)
        {
            let paired = own.over(other);
            if paired.mean.is_finite() {
                difference = Some(Difference {
                    value: paired.mean,
                    error: paired.error,
                });
            }
        }
        let missing = own.missing();
        let bounds = (missing > 0).then(|| own.bounds());
        scores.push(Score {
            run: candidate.run.clone(),
            of: candidate.of.clone(),
            value: mean.mean,
            error: mean.error,
            count: own.count(),
            missing,
            low: bounds.map(|[low, _]| low),
            high: bounds.map(|[_, high]| high),
            difference,
        });
    }
    Benchmark {
        name: taken.name,
        title: taken.title,
        unit: taken.unit.to_owned(),
        higher_is_better: taken.is_higher_better,
        about: taken.about,
        scores,
    }
}

/// Index of the base of a run: the base with the run's model.
fn base_of(candidate: &Candidate<'_>, candidates: &[Candidate<'_>]) -> Option<usize> {
    candidates.iter().position(|other| {
        other.job.is_none() && other.setup.plan.model == candidate.setup.plan.model
    })
}
