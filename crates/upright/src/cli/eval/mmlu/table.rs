//! The table of `upright eval mmlu`: a line per subject, then the groups, then what adapters forgot.

use std::{fmt::Write, path::Path};

use upright_base::counted;
use upright_data::mmlu::Form;

use crate::mmlu::{
    Mean,
    results::{FormScores, Metric},
    tasks,
};

/// One line of the table.
struct Line {
    name: String,
    right: usize,
    total: usize,
    accuracy: Mean,
    /// Accuracy by length, of the cloze form's subjects.
    by_length: Option<Mean>,
    near_ties: usize,
    /// Difference to the base in points, of adapters.
    points: Option<Mean>,
}

/// The scores of the base, then those of every adapter, then one sentence per adapter.
pub(super) fn table(base: &FormScores, adapters: &[(&Path, &FormScores)]) -> String {
    let mut text = match base.form {
        Form::Letters => "letters (lm-eval's mmlu); accuracy in % ± standard error\n",
        Form::Cloze => {
            "cloze (lm-eval's mmlu_continuation); accuracy in % ± standard error, by length: lm-eval's acc_norm\n"
        }
    }
    .to_owned();
    write_table(&mut text, &lines(base, None));
    for (path, scores) in adapters {
        let _ = writeln!(
            text,
            "\n{}; difference to the base in points",
            path.display()
        );
        write_table(&mut text, &lines(scores, Some(base)));
    }
    if !adapters.is_empty() {
        text.push('\n');
    }
    for (path, scores) in adapters {
        let points = scores.points_over(base, None);
        let _ = writeln!(text, "{} {}", path.display(), verdict(&points));
    }
    text
}

/// `forgot 3.1 ± 0.4 points`.
fn verdict(points: &Mean) -> String {
    let error = points
        .error
        .map_or_else(String::new, |error| format!(" ± {error:.1}"));
    let change = format!("{:.1}{error} points", points.mean.abs());
    if points.mean < 0.0 {
        format!("forgot {change}")
    } else if points.mean > 0.0 {
        format!("gained {change}")
    } else {
        format!("forgot nothing: {change}")
    }
}

fn lines(scores: &FormScores, base: Option<&FormScores>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, task) in scores.tasks.iter().enumerate() {
        let by_length = Metric::of(scores.form).contains(&Metric::AccNorm);
        lines.push(Line {
            name: task.about.words(),
            right: task.right(Metric::Acc),
            total: task.scores.len(),
            accuracy: task.mean(Metric::Acc),
            by_length: by_length.then(|| task.mean(Metric::AccNorm)),
            near_ties: task.near_ties(),
            points: base.map(|base| task.points_over(&base.tasks[index], Metric::Acc)),
        });
    }
    for group in scores.groups() {
        let accuracy = scores.accuracy(group);
        lines.push(Line {
            name: match group {
                Some(group) => format!("= {}", tasks::group_words(group)),
                None => "= all".to_owned(),
            },
            right: scores.right(group),
            total: accuracy.count,
            accuracy,
            by_length: None,
            near_ties: scores.near_ties(group),
            points: base.map(|base| scores.points_over(base, group)),
        });
    }
    lines
}

fn write_table(text: &mut String, lines: &[Line]) {
    let names = lines.iter().map(|line| line.name.chars().count());
    let width = names.max().unwrap_or(0).max("subject".len());
    for line in lines {
        let accuracy = shown(line.accuracy.times(100.0), false);
        let _ = write!(
            text,
            "{:<width$}  {:>5}/{:<5}  {accuracy:>11}",
            line.name, line.right, line.total
        );
        if let Some(by_length) = line.by_length {
            let by_length = shown(by_length.times(100.0), false);
            let _ = write!(text, "  by length {by_length:>11}");
        }
        if let Some(points) = line.points {
            let _ = write!(text, "  {:>12}", shown(points, true));
        }
        if line.near_ties > 0 {
            let _ = write!(text, "  {}", counted(line.near_ties, "near tie"));
        }
        text.push('\n');
    }
}

/// `45.2 ± 4.3`, with a sign for differences.
fn shown(mean: Mean, is_signed: bool) -> String {
    let value = if is_signed {
        format!("{:+.1}", mean.mean)
    } else {
        format!("{:.1}", mean.mean)
    };
    match mean.error {
        Some(error) => format!("{value} ± {error:.1}"),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_the_paired_error() {
        let points = |mean, error| Mean {
            mean,
            error,
            count: 9,
        };
        assert_eq!(
            verdict(&points(-3.13, Some(0.42))),
            "forgot 3.1 ± 0.4 points"
        );
        assert_eq!(verdict(&points(0.5, Some(0.25))), "gained 0.5 ± 0.2 points");
        assert_eq!(verdict(&points(0.0, None)), "forgot nothing: 0.0 points");
    }
}
