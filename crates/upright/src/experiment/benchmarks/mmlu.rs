//! MMLU of a study's models.

use upright_base::{
    Result,
    progress::{Progress, Quiet},
};
use upright_data::{
    Template,
    mmlu::{Form, Wording},
};
use upright_train::run::Model;

use super::{Candidate, OpenedMmlu, Taken, scores::Scores};
use crate::{
    experiment::Experiment,
    mmlu::{
        Sheet, TaskScores,
        results::Metric,
        sheet::{Limits, TOKEN_BUDGET},
    },
};

impl OpenedMmlu {
    /// Number of questions of one form.
    pub(super) fn questions(&self) -> usize {
        let limit = self.checked.limit.unwrap_or(usize::MAX);
        let subjects = self.subjects.iter();
        subjects.map(|subject| subject.test.len().min(limit)).sum()
    }

    /// Hash of everything that decides the scores of a form but the model.
    pub(super) fn key(&self, form: Form) -> String {
        format!("{} {}", self.hash, form.name())
    }

    /// The forms, each with its name as a benchmark and its title.
    pub(super) fn forms(&self) -> Vec<(Form, String, String)> {
        let list = self.checked.forms.list();
        let shots = self.checked.shots;
        let mut forms = Vec::new();
        for &form in list {
            let (name, form_title) = match form {
                Form::Cloze if list.len() > 1 => ("mmlu-cloze", ", cloze"),
                Form::Cloze => ("mmlu", ", cloze"),
                Form::Letters => ("mmlu", ""),
            };
            forms.push((
                form,
                name.to_owned(),
                format!("MMLU ({shots}-shot{form_title})"),
            ));
        }
        forms
    }
}

impl Experiment {
    /// Takes a form of MMLU with every candidate.
    pub(super) fn take_mmlu(
        &self,
        mmlu: &OpenedMmlu,
        form: Form,
        name: String,
        title: String,
        candidates: &[Candidate<'_>],
        observer: &mut dyn Progress,
    ) -> Result<Taken> {
        let mut scores = self.kept_scores(&name, &mmlu.key(form), candidates);
        let mut missing: Vec<usize> = (0..candidates.len()).collect();
        missing.retain(|index| scores[*index].is_none());
        // A model is opened once for all its adapters.
        while let Some(&first) = missing.first() {
            let path = candidates[first].setup.plan.model.clone();
            let (now, later): (Vec<usize>, Vec<usize>) = missing
                .into_iter()
                .partition(|index| candidates[*index].setup.plan.model == path);
            missing = later;
            let taking: Vec<&Candidate<'_>> = now.iter().map(|index| &candidates[*index]).collect();
            let taken = self.take_form(mmlu, form, &name, &taking, observer)?;
            for (index, own) in now.iter().zip(taken) {
                scores[*index] = Some(own);
            }
        }
        Ok(Taken {
            name,
            title,
            unit: "%",
            is_higher_better: true,
            about: format!(
                "Accuracy on {} questions of {} subjects, as lm-eval defines it.",
                mmlu.questions(),
                mmlu.subjects.len()
            ),
            scores,
            lacking: None,
        })
    }

    /// Scores one form under candidates with the same base model.
    fn take_form(
        &self,
        mmlu: &OpenedMmlu,
        form: Form,
        name: &str,
        candidates: &[&Candidate<'_>],
        observer: &mut dyn Progress,
    ) -> Result<Vec<Scores>> {
        let plan = &candidates[0].setup.plan;
        let model = Model::of_plan(plan, observer)?;
        let template = match &mmlu.checked.template {
            Some(name) => Template::choose(Some(name), &[], &model.tokenizer)?,
            None => Template::Raw,
        };
        let wording = Wording {
            form,
            shots: mmlu.checked.shots,
            template: &template,
        };
        let limits = Limits {
            questions: mmlu.checked.limit.unwrap_or(usize::MAX),
            positions: model.decoder.config().max_positions,
            token_budget: TOKEN_BUDGET,
            threads: plan.threads,
        };
        let sheet = Sheet::new(&mmlu.subjects, wording, &model.tokenizer, &limits, observer)?;
        for note in sheet.notes(limits.positions) {
            observer.note(&format!("{name}: {note}"));
        }
        let mut all = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let adapter = match self.adapter_of(candidate) {
                Some(folder) => Some(model.load_adapter(&folder, &mut Quiet(observer))?),
                None => None,
            };
            let what = format!("{name}: {}", candidate.name);
            let tasks = sheet.score(&model, adapter.as_ref(), &what, observer)?;
            let scores = of_tasks(&tasks);
            let path = self.scores_file(name, &mmlu.key(form), candidate);
            scores.keep(&path)?;
            all.push(scores);
        }
        Ok(all)
    }
}

/// Percent per question, grouped by subject.
fn of_tasks(tasks: &[TaskScores]) -> Scores {
    let mut groups = Vec::with_capacity(tasks.len());
    for task in tasks {
        let mut group = Vec::with_capacity(task.scores.len());
        for score in &task.scores {
            group.push(Some(100.0 * Metric::Acc.value(score)));
        }
        groups.push(group);
    }
    Scores {
        groups,
        range: [0.0, 100.0],
    }
}
