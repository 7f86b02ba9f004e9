//! Optional file beside the runs: `benchmarks.json`, the scores of models on benchmarks such as
//! MMLU.

use std::{collections::HashSet, path::Path};

use serde::{Deserialize, Serialize};

use upright_base::{Error, Result, files};

/// Name of the file with the scores.
pub const BENCHMARKS: &str = "benchmarks.json";

/// The scores of several models on one benchmark: an entry of `benchmarks.json` (Table 1 of the
/// paper).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// A short name, unique in the file, such as `mmlu` or `win-rate`.
    pub name: String,
    /// Its name on the page; empty: `name`.
    #[serde(default)]
    pub title: String,
    /// The unit of the scores, such as `%`; empty for none.
    #[serde(default)]
    pub unit: String,
    /// Whether a larger score is better.
    pub higher_is_better: bool,
    /// What it measures, in one or two sentences; may be empty.
    #[serde(default)]
    pub about: String,
    /// The scores, one per model.
    pub scores: Vec<Score>,
}

/// The score of one model. Numbers are in the unit of the benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The run folder, relative to the folder of `benchmarks.json`. A text that is no folder and
    /// has no `/` is a name, such as `base`.
    pub run: String,
    /// Identifies the model if its name is ambiguous: the base of a study. With it, `run` is a
    /// name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// The score.
    pub value: f64,
    /// Its standard error over the questions, if it is known.
    #[serde(default)]
    pub error: Option<f64>,
    /// Number of questions, including those without a verdict.
    pub count: usize,
    /// Number of questions without a verdict.
    #[serde(default)]
    pub missing: usize,
    /// The score if all missing verdicts were lost; none if no verdict is missing.
    #[serde(default)]
    pub low: Option<f64>,
    /// The score if all missing verdicts were won; none if no verdict is missing.
    #[serde(default)]
    pub high: Option<f64>,
    /// The score minus that of the base model on the same questions, if it was measured.
    #[serde(default)]
    pub difference: Option<Difference>,
}

/// A paired difference between two models, in the unit of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The difference.
    pub value: f64,
    /// Its standard error over the questions, if it is known.
    #[serde(default)]
    pub error: Option<f64>,
}

/// Largest absolute value of a number. Sums of such numbers and their squares are finite.
const LARGEST: f64 = 1e12;
/// Largest number of benchmarks in a file.
const MOST_BENCHMARKS: usize = 100;
/// Largest number of questions of a benchmark. Sums over all scores are exact.
const MOST_QUESTIONS: usize = 1_000_000_000;
/// Largest number of scores in a file.
const MOST_SCORES: usize = 10_000;

/// Reads the benchmarks beside some runs; none if there is no file.
///
/// # Errors
/// The file cannot be read, is not a list of benchmarks, has two entries for one model, or holds a
/// number that no benchmark has.
pub(crate) fn read(folder: &Path) -> Result<Vec<Benchmark>> {
    let path = folder.join(BENCHMARKS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_text(&path)?;
    let benchmarks: Vec<Benchmark> = serde_json::from_str(&text).map_err(|error| {
        Error::input(format!("{}: {error}", path.display())).hint(
            "expected a list of {\"name\": .., \"higher_is_better\": .., \"scores\": \
             [{\"run\": .., \"value\": .., \"count\": ..}]}",
        )
    })?;
    check(&benchmarks)
        .map_err(|(what, hint)| Error::input(format!("{}: {what}", path.display())).hint(hint))?;
    Ok(benchmarks)
}

/// Checks the content of a file.
///
/// # Errors
/// What is wrong, and a way out.
fn check(benchmarks: &[Benchmark]) -> std::result::Result<(), (String, &'static str)> {
    if benchmarks.len() > MOST_BENCHMARKS {
        let what = format!("holds {} benchmarks", benchmarks.len());
        return Err((what, "keep at most 100 benchmarks"));
    }
    let scores: usize = benchmarks.iter().map(|of| of.scores.len()).sum();
    if scores > MOST_SCORES {
        let what = format!("holds {scores} scores");
        return Err((what, "keep at most 10000 scores"));
    }
    let mut names = HashSet::new();
    for benchmark in benchmarks {
        if benchmark.name.is_empty() {
            let hint = "give every benchmark a name, such as mmlu";
            return Err(("a benchmark has an empty name".into(), hint));
        }
        if !names.insert(&benchmark.name) {
            let what = format!("two benchmarks have the name {}", benchmark.name);
            return Err((what, "put all scores of a benchmark into one entry"));
        }
        let mut models = HashSet::new();
        for score in &benchmark.scores {
            let place = format!("{}, {}", benchmark.name, score.run);
            if !models.insert((&score.run, &score.of)) {
                return Err((format!("{place}: {TWICE}"), KEEP_ONE));
            }
            check_score(score).map_err(|(what, hint)| (format!("{place}: {what}"), hint))?;
        }
    }
    Ok(())
}

/// A model that has two scores.
pub(crate) const TWICE: &str = "has two scores";
/// The way out for a model that has two scores.
pub(crate) const KEEP_ONE: &str = "keep one score per model";

/// Checks the numbers of a score.
///
/// # Errors
/// What is wrong, and a way out.
fn check_score(score: &Score) -> std::result::Result<(), (String, &'static str)> {
    let difference = score.difference;
    let numbers = [
        ("value", Some(score.value)),
        ("low", score.low),
        ("high", score.high),
        ("difference", difference.map(|difference| difference.value)),
    ];
    for (key, number) in numbers {
        // A number that is not finite is not in the range either.
        if !number.is_none_or(|number| number.abs() <= LARGEST) {
            let what = format!("{key} is not between -1e12 and 1e12");
            return Err((what, "repeat the benchmark, or leave the model out"));
        }
    }
    let errors = [
        ("error", score.error),
        (
            "error of the difference",
            difference.and_then(|of| of.error),
        ),
    ];
    for (key, error) in errors {
        if !error.is_none_or(|error| (0.0..=LARGEST).contains(&error)) {
            let what = format!("{key} is not between 0 and 1e12");
            return Err((what, "write null if no error is known"));
        }
    }
    if score.count > MOST_QUESTIONS {
        let what = format!("count is {}", score.count);
        return Err((what, "count is the number of questions, at most 1e9"));
    }
    if score.missing > score.count {
        let what = format!("{} of {} verdicts are missing", score.missing, score.count);
        return Err((what, "count is the number of all questions"));
    }
    match (score.low, score.high) {
        (Some(low), Some(high)) if low <= high => Ok(()),
        (None, None) => Ok(()),
        (Some(_), Some(_)) => Err(("low is above high".into(), BOUNDS)),
        _ => Err(("only one of low and high is given".into(), BOUNDS)),
    }
}

const BOUNDS: &str = "low and high are the scores if all missing verdicts were lost or won";

#[cfg(test)]
mod tests {
    use super::*;

    fn benchmark(scores: Vec<Score>) -> Benchmark {
        Benchmark {
            name: "mmlu".into(),
            title: "MMLU".into(),
            unit: "%".into(),
            higher_is_better: true,
            about: String::new(),
            scores,
        }
    }

    fn score(run: &str) -> Score {
        Score {
            run: run.into(),
            of: String::new(),
            value: 50.0,
            error: Some(0.5),
            count: 100,
            missing: 0,
            low: None,
            high: None,
            difference: None,
        }
    }

    #[track_caller]
    fn refused(benchmarks: &[Benchmark], part: &str) {
        let (what, hint) = check(benchmarks).unwrap_err();
        assert!(what.contains(part) && !hint.is_empty(), "{what}: {hint}");
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let mut written = score("base");
        (written.of, written.missing) = ("hash".into(), 2);
        (written.low, written.high) = (Some(49.0), Some(51.0));
        written.difference = Some(Difference {
            value: -0.25,
            error: None,
        });
        let all = vec![benchmark(vec![written, score("runs/a")])];
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Benchmark>>(&text).unwrap(), all);
        // What may be left out.
        let short = r#"[{"name": "loss", "higher_is_better": false, "scores": [
            {"run": "runs/a", "value": 1.5, "count": 3}]}]"#;
        let read: Vec<Benchmark> = serde_json::from_str(short).unwrap();
        assert_eq!(read[0].scores[0].difference, None);
        for text in [
            r#"[{"name": "a", "higher_is_better": true, "scores": [], "seed": 1}]"#,
            r#"[{"name": "a", "higher_is_better": true, "scores": [{"run": "b", "value": 1e999, "count": 1}]}]"#,
            r#"[{"name": "a", "higher_is_better": true, "scores": [{"run": "b", "value": NaN, "count": 1}]}]"#,
            r#"[{"name": "a", "higher_is_better": true, "scores": [{"run": "b", "value": 1, "count": -1}]}]"#,
        ] {
            assert!(serde_json::from_str::<Vec<Benchmark>>(text).is_err());
        }
    }

    #[test]
    fn numbers_that_no_benchmark_has_are_refused() {
        assert!(check(&[benchmark(vec![score("a"), score("b")])]).is_ok());
        type Edit = fn(&mut Score);
        let edits: [(Edit, &str); 9] = [
            (|score| score.value = f64::INFINITY, "value"),
            (|score| score.value = 1e13, "value"),
            (|score| score.error = Some(-0.1), "error"),
            (|score| score.error = Some(f64::NAN), "error"),
            (|score| score.count = usize::MAX, "count is"),
            (|score| score.missing = 101, "101 of 100"),
            (|score| score.low = Some(1.0), "only one"),
            (
                |score| (score.low, score.high) = (Some(2.0), Some(1.0)),
                "above",
            ),
            (
                |score| {
                    let (value, error) = (0.0, Some(-1.0));
                    score.difference = Some(Difference { value, error });
                },
                "difference",
            ),
        ];
        for (edit, part) in edits {
            let mut edited = score("a");
            edit(&mut edited);
            refused(&[benchmark(vec![edited])], part);
        }
    }

    #[test]
    fn repeated_and_countless_entries_are_refused() {
        refused(
            &[benchmark(vec![score("a"), score("a")])],
            "mmlu, a: has two",
        );
        let both = [benchmark(Vec::new()), benchmark(Vec::new())];
        refused(&both, "two benchmarks have the name mmlu");
        let mut unnamed = benchmark(Vec::new());
        unnamed.name.clear();
        refused(&[unnamed], "empty name");
        refused(&vec![benchmark(Vec::new()); 101], "101 benchmarks");
        let many = benchmark(vec![score("a"); 1_000_000]);
        refused(&[many], "1000000 scores");
        // A base of another hash is another model.
        let mut other = score("a");
        other.of = "hash".into();
        assert!(check(&[benchmark(vec![score("a"), other])]).is_ok());
    }
}
