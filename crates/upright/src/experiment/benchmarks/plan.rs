//! What the benchmarks of a study still need, before anything is trained.

use serde::Serialize;
use upright_base::{Result, progress::Progress};
use upright_judge::judging::Session;
use upright_runs::run_dir;

use super::{OpenedWinRate, win_rate};
use crate::experiment::Experiment;

/// The work of one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchmarkPlan {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Models that take it: bases, and runs of methods and baselines.
    pub models: usize,
    /// Models that have taken it.
    pub finished: usize,
    /// Questions or prompts per model; none for sets of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<usize>,
    /// The judge's work, for win rates.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgePlan>,
}

/// Requests to a judge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgePlan {
    /// Requests that are left.
    pub judge_calls: usize,
    /// Their estimated tokens.
    pub prompt_tokens: u64,
    /// The most tokens of their replies.
    pub reply_tokens: u64,
    /// Their estimated cost in US dollars; none without prices.
    pub cost_usd: Option<f64>,
}

impl Experiment {
    /// What the benchmarks still need once all runs are finished. Asks no judge.
    ///
    /// # Errors
    /// The judge's settings are wrong.
    pub fn benchmark_plans(&self, observer: &mut dyn Progress) -> Result<Vec<BenchmarkPlan>> {
        let candidates = self.candidates(|_| true)?;
        let models = candidates.len();
        let mut plans = Vec::new();
        if let Some(mmlu) = &self.opened.mmlu {
            for (form, name, _) in mmlu.forms() {
                let kept = self.kept_scores(&name, &mmlu.key(form), &candidates);
                plans.push(BenchmarkPlan {
                    finished: kept.iter().flatten().count(),
                    benchmark: name,
                    models,
                    questions: Some(mmlu.questions()),
                    judge: None,
                });
            }
        }
        if let Some(opened) = &self.opened.win_rate {
            let kept = self.kept_scores(win_rate::NAME, &opened.hash, &candidates);
            let finished = kept.iter().flatten().count();
            // The key is needed only when the judge is asked.
            let judge = opened.settings.judge.keyless();
            let session = judge
                .judge(opened.settings.answers.as_in_paper)?
                .open_to_plan(observer)?;
            plans.push(BenchmarkPlan {
                benchmark: win_rate::NAME.to_owned(),
                models,
                finished,
                questions: Some(opened.questions.all.len()),
                judge: Some(judge_plan(opened, &session, models - finished)),
            });
        }
        for set in &self.opened.sets {
            let mut finished = 0;
            for candidate in &candidates {
                let folder = self.set_folder(set, candidate)?;
                finished += usize::from(run_dir::is_finished(&folder));
            }
            plans.push(BenchmarkPlan {
                benchmark: set.name.clone(),
                models,
                finished,
                questions: None,
                judge: None,
            });
        }
        Ok(plans)
    }
}

/// The requests for some models.
fn judge_plan(opened: &OpenedWinRate, session: &Session, models: usize) -> JudgePlan {
    let tokens = win_rate::tokens(opened, session, models);
    let calls = session.plan(&opened.questions.expected_pairs()).calls;
    JudgePlan {
        judge_calls: calls * models,
        prompt_tokens: tokens.prompt,
        reply_tokens: tokens.reply,
        cost_usd: session.judge().price.map(|price| price.of(tokens)),
    }
}
