//! Win rates of a study's models against the chosen responses of preference rows.

use upright_base::{
    Error, Result, counted,
    progress::{Progress, Quiet},
};
use upright_data::{Template, TemplateName, conversation::Row};
use upright_judge::{cost::Tokens, judging::Session};
use upright_train::run::Model;

use super::{Candidate, OpenedWinRate, Taken, scores::Scores};
use crate::{
    experiment::{Experiment, Setup},
    win_rate::{Answerer, MOST_MISSING},
};

/// The name as a benchmark.
pub(super) const NAME: &str = "win-rate";

impl OpenedWinRate {
    /// The template of prompts: the one in the settings, else that of the setup's preference rows.
    fn template(&self, setup: &Setup, model: &Model, rows: &[Row]) -> Result<Template> {
        let name: TemplateName = match self.settings.answers.template()? {
            Some(name) => name,
            None => {
                let objectives = &setup.plan.objectives;
                let pairs = objectives
                    .iter()
                    .position(|objective| objective.is_preference());
                setup.met.template(pairs.unwrap_or(0)).parse()?
            }
        };
        Template::choose(Some(&name), rows, &model.tokenizer)
    }
}

/// Estimated tokens of the requests for some models. Before they have answered, each answer counts as
/// long as its reference.
pub(super) fn tokens(win_rate: &OpenedWinRate, session: &Session, models: usize) -> Tokens {
    let plan = session.plan(&win_rate.questions.expected_pairs());
    Tokens {
        prompt: plan.tokens.prompt * models as u64,
        reply: plan.tokens.reply * models as u64,
    }
}

impl Experiment {
    /// Has every candidate answer the prompts, and judges the answers.
    pub(super) fn take_win_rate(
        &self,
        win_rate: &OpenedWinRate,
        candidates: &[Candidate<'_>],
        observer: &mut dyn Progress,
    ) -> Result<Taken> {
        let judge = win_rate
            .settings
            .judge
            .judge(win_rate.settings.answers.as_in_paper)?;
        let mut taken = Taken {
            name: NAME.to_owned(),
            title: "Win rate".to_owned(),
            unit: "%",
            is_higher_better: true,
            about: format!(
                "How often {} prefers the answer to the chosen response, of {}; protocol {}.",
                judge.model,
                counted(win_rate.questions.all.len(), "prompt"),
                judge.protocol.name()
            ),
            scores: self.kept_scores(NAME, &win_rate.hash, candidates),
            lacking: None,
        };
        let mut session: Option<Session> = None;
        let mut opened: Option<Model> = None;
        let left = taken
            .scores
            .iter()
            .filter(|scores| scores.is_none())
            .count();
        for (index, candidate) in candidates.iter().enumerate() {
            if taken.scores[index].is_some() {
                continue;
            }
            let session = match &mut session {
                Some(session) => session,
                None => {
                    let opened = judge.clone().open(observer)?;
                    opened.check_cost(tokens(win_rate, &opened, left))?;
                    session.insert(opened)
                }
            };
            let plan = &candidate.setup.plan;
            let model = match opened.take() {
                Some(model) if model.model == plan.model => model,
                _ => Model::of_plan(plan, observer)?,
            };
            let model = opened.insert(model);
            let scores = self.judged(win_rate, session, model, candidate, observer)?;
            let share = scores.missing() as f64 / scores.count() as f64;
            if share > MOST_MISSING {
                taken.lacking.get_or_insert(
                    Error::failure(format!(
                        "{}: {} of {} are missing",
                        candidate.name,
                        counted(scores.missing(), "verdict"),
                        scores.count()
                    ))
                    .hint("run the same command to ask for them again, or take another judge"),
                );
            }
            scores.keep(&self.scores_file(NAME, &win_rate.hash, candidate))?;
            taken.scores[index] = Some(scores);
        }
        Ok(taken)
    }

    /// A candidate's scores: 100 for a win, 0 for a loss.
    fn judged(
        &self,
        win_rate: &OpenedWinRate,
        session: &Session,
        model: &Model,
        candidate: &Candidate<'_>,
        observer: &mut dyn Progress,
    ) -> Result<Scores> {
        let questions = &win_rate.questions;
        let rows: Vec<Row> = questions
            .all
            .iter()
            .map(|question| question.row.clone())
            .collect();
        let template = win_rate.template(candidate.setup, model, &rows)?;
        let adapter = match self.adapter_of(candidate) {
            Some(folder) => Some(model.read_adapter(&folder, &mut Quiet(observer))?),
            None => None,
        };
        let answerer = Answerer {
            model,
            adapter,
            template: &template,
            sampling: win_rate.settings.answers.sampling()?,
            batch: win_rate.settings.answers.batch()?,
        };
        let answers = answerer.answer(&candidate.name, questions, &mut Quiet(observer))?;
        let pairs = questions.pairs(&answers.texts);
        let judged = session.ask(&candidate.name, &pairs, observer)?;
        let mut scores = Vec::with_capacity(judged.len());
        for judged in &judged {
            let preference = judged.preference();
            scores.push(preference.map(|preference| 100.0 * (preference - 1.0)));
        }
        Ok(Scores {
            groups: vec![scores],
            range: [0.0, 100.0],
        })
    }
}
