//! The scores as one JSON object: a task's name leads to its counts, a group's name to its mean.

use serde_json::{Map, Value, json};
use upright_data::mmlu::{Form, Group};

use super::{Mean, Score, TaskScores, statistics::pooled, tasks};

/// Scores of one form under one model.
pub struct FormScores {
    /// How the questions were asked.
    pub form: Form,
    /// Scores per subject.
    pub tasks: Vec<TaskScores>,
}

/// A score of lm-eval's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The right answer has the largest log-probability.
    Acc,
    /// The right answer has the largest log-probability per character.
    AccNorm,
}

impl Metric {
    /// The metrics that lm-eval reports for a form.
    pub fn of(form: Form) -> &'static [Self] {
        match form {
            Form::Letters => &[Self::Acc],
            Form::Cloze => &[Self::Acc, Self::AccNorm],
        }
    }

    /// lm-eval's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
        }
    }

    /// 1 for a right answer, else 0.
    pub fn value(self, score: &Score) -> f64 {
        let is_right = match self {
            Self::Acc => score.is_right,
            Self::AccNorm => score.is_right_by_length,
        };
        f64::from(u8::from(is_right))
    }
}

impl TaskScores {
    /// Mean of a metric over the questions.
    pub fn mean(&self, metric: Metric) -> Mean {
        let values: Vec<f64> = self
            .scores
            .iter()
            .map(|score| metric.value(score))
            .collect();
        Mean::of(&values)
    }

    /// Number of right answers.
    pub fn right(&self, metric: Metric) -> usize {
        let is_right = |score: &&Score| metric.value(score) > 0.0;
        self.scores.iter().filter(is_right).count()
    }

    /// Number of near ties.
    pub fn near_ties(&self) -> usize {
        self.scores.iter().filter(|score| score.is_near_tie).count()
    }

    /// Accuracy minus that of another model on the same questions, in points, with the error of the
    /// paired differences.
    pub fn points_over(&self, base: &Self, metric: Metric) -> Mean {
        let mut differences = Vec::with_capacity(self.scores.len());
        for (own, other) in self.scores.iter().zip(&base.scores) {
            differences.push(100.0 * (metric.value(own) - metric.value(other)));
        }
        Mean::of(&differences)
    }
}

/// Subjects of a group, or all.
fn members(tasks: &[TaskScores], group: Option<Group>) -> Vec<usize> {
    let mut members = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        if group.is_none_or(|group| task.about.group == group) {
            members.push(index);
        }
    }
    members
}

impl FormScores {
    /// The groups that have subjects, in lm-eval's order, and `None` for all subjects.
    pub fn groups(&self) -> Vec<Option<Group>> {
        let mut groups: Vec<Option<Group>> = Vec::new();
        for group in Group::ALL {
            if !members(&self.tasks, Some(group)).is_empty() {
                groups.push(Some(group));
            }
        }
        groups.push(None);
        groups
    }

    /// Accuracy over the questions of a group, or of all subjects.
    pub fn accuracy(&self, group: Option<Group>) -> Mean {
        let mut parts = Vec::new();
        for index in members(&self.tasks, group) {
            parts.push(self.tasks[index].mean(Metric::Acc));
        }
        pooled(&parts)
    }

    /// Number of right answers in a group, or in all subjects.
    pub fn right(&self, group: Option<Group>) -> usize {
        let members = members(&self.tasks, group).into_iter();
        members
            .map(|index| self.tasks[index].right(Metric::Acc))
            .sum()
    }

    /// Number of near ties in a group, or in all subjects.
    pub fn near_ties(&self, group: Option<Group>) -> usize {
        let members = members(&self.tasks, group).into_iter();
        members.map(|index| self.tasks[index].near_ties()).sum()
    }

    /// Accuracy minus the base's, in points, pooled over subjects like the accuracy itself.
    pub fn points_over(&self, base: &Self, group: Option<Group>) -> Mean {
        let mut parts = Vec::new();
        for index in members(&self.tasks, group) {
            parts.push(self.tasks[index].points_over(&base.tasks[index], Metric::Acc));
        }
        pooled(&parts)
    }

    /// Name of a group, or of all subjects.
    pub fn group_name(&self, group: Option<Group>) -> String {
        match group {
            Some(group) => tasks::group(self.form, group),
            None => tasks::whole(self.form).to_owned(),
        }
    }
}

/// Tasks of all forms: counts, accuracies and near ties.
pub fn tasks_json(forms: &[FormScores]) -> Value {
    let mut object = Map::new();
    for scores in forms {
        for task in &scores.tasks {
            let mut entry = Map::new();
            entry.insert("correct".into(), json!(task.right(Metric::Acc)));
            entry.insert("total".into(), json!(task.scores.len()));
            entry.insert("near_ties".into(), json!(task.near_ties()));
            for &metric in Metric::of(scores.form) {
                let Mean { mean, error, .. } = task.mean(metric);
                if metric == Metric::AccNorm {
                    entry.insert("correct_norm".into(), json!(task.right(metric)));
                }
                entry.insert(metric.name().into(), json!(mean));
                entry.insert(format!("{}_stderr", metric.name()), json!(error));
            }
            let name = tasks::task(scores.form, task.about.name);
            object.insert(name, Value::Object(entry));
        }
    }
    Value::Object(object)
}

/// Groups of all forms.
pub fn groups_json(forms: &[FormScores]) -> Value {
    let mut object = Map::new();
    for scores in forms {
        for group in scores.groups() {
            let Mean { mean, error, count } = scores.accuracy(group);
            object.insert(
                scores.group_name(group),
                json!({
                    "correct": scores.right(group), "total": count, "near_ties": scores.near_ties(group),
                    "acc": mean, "acc_stderr": error,
                }),
            );
        }
    }
    Value::Object(object)
}

/// Paired differences of an adapter to the base, in points, by task and group. A negative value
/// means that the adapter forgot.
pub fn differences_json(forms: &[FormScores], base: &[FormScores]) -> Value {
    let mut object = Map::new();
    for (scores, base) in forms.iter().zip(base) {
        let mut add = |name: String, points: Mean| {
            object.insert(
                name,
                json!({"points": points.mean, "points_stderr": points.error}),
            );
        };
        for (task, of_base) in scores.tasks.iter().zip(&base.tasks) {
            let name = tasks::task(scores.form, task.about.name);
            add(name, task.points_over(of_base, Metric::Acc));
        }
        for group in scores.groups() {
            add(scores.group_name(group), scores.points_over(base, group));
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use upright_data::mmlu::choose;

    fn task(subject: &str, right: &[bool]) -> TaskScores {
        let about = choose(Some(subject)).unwrap()[0];
        let mut scores = Vec::new();
        for &is_right in right {
            scores.push(Score {
                logp: vec![-1.0, -2.0, -3.0, -4.0],
                is_right,
                is_right_by_length: false,
                is_near_tie: !is_right,
            });
        }
        TaskScores { about, scores }
    }

    #[test]
    fn differences_are_paired() {
        let form = Form::Letters;
        let base = FormScores {
            form,
            tasks: vec![
                task("anatomy", &[true, true, true, false]),
                task("virology", &[true, false]),
            ],
        };
        let adapter = FormScores {
            form,
            tasks: vec![
                task("anatomy", &[true, false, false, false]),
                task("virology", &[true, true]),
            ],
        };
        // -100 * (0 + 1 + 1 + 0) / 4; squares 4 * 50^2; deviation sqrt(10000 / 3); over 2.
        let anatomy = adapter.tasks[0].points_over(&base.tasks[0], Metric::Acc);
        assert_eq!(anatomy.mean, -50.0);
        assert!((anatomy.error.unwrap() - (10_000.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
        // (-2 + 1) / 6 of 100 points.
        let all = adapter.points_over(&base, None);
        assert!((all.mean + 100.0 / 6.0).abs() < 1e-12);
        let same = base.points_over(&base, None);
        assert_eq!((same.mean, same.error), (0.0, Some(0.0)));
        let names: Vec<String> = base
            .groups()
            .into_iter()
            .map(|group| base.group_name(group))
            .collect();
        assert_eq!(names, ["mmlu_stem", "mmlu_other", "mmlu"]);
        let groups = groups_json(&[base]);
        assert_eq!(groups["mmlu"]["correct"], 4);
        assert_eq!(groups["mmlu"]["near_ties"], 2);
        assert_eq!(groups["mmlu_stem"]["acc"], 0.75);
    }
}
