//! A model's scores on a benchmark, question by question, in a file of their own.

use std::path::Path;

use serde::{Deserialize, Serialize};
use upright_base::{Error, Result, files};
use upright_math::mean::Mean;

use crate::mmlu::statistics::pooled;

/// Scores of the questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scores {
    /// Scores per group of questions, such as MMLU's subjects; `None` for a missing verdict.
    pub(super) groups: Vec<Vec<Option<f64>>>,
    /// The smallest and the largest score of a question.
    pub(super) range: [f64; 2],
}

impl Scores {
    /// The kept scores, if the file is there and whole.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = files::read_if_there(path).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps the scores. Scores with a missing verdict are not kept: the next start asks again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn keep(&self, path: &Path) -> Result<()> {
        if self.missing() > 0 {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            files::create_dir(folder)?;
        }
        let text =
            serde_json::to_string(self).map_err(|error| Error::failure(error.to_string()))?;
        files::write_atomic(path, text.as_bytes())
    }

    /// Number of questions.
    pub(super) fn count(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Number of missing verdicts.
    pub(super) fn missing(&self) -> usize {
        let all = self.groups.iter().flatten();
        all.filter(|score| score.is_none()).count()
    }

    /// The mean over all questions, with the error pooled over groups.
    pub(super) fn mean(&self) -> Mean {
        let mut parts = Vec::new();
        for group in &self.groups {
            let known: Vec<f64> = group.iter().flatten().copied().collect();
            if !known.is_empty() {
                parts.push(Mean::of(&known));
            }
        }
        pooled(&parts)
    }

    /// The mean if all missing verdicts were the smallest score, and if they were the largest.
    pub(super) fn bounds(&self) -> [f64; 2] {
        self.range.map(|replacement| {
            let mut sum = 0.0;
            for score in self.groups.iter().flatten() {
                sum += score.unwrap_or(replacement);
            }
            sum / self.count() as f64
        })
    }

    /// The mean difference to another model on the same questions.
    pub(super) fn over(&self, other: &Self) -> Mean {
        let mut parts = Vec::new();
        for (own, other) in self.groups.iter().zip(&other.groups) {
            let mut differences = Vec::new();
            for (own, other) in own.iter().zip(other) {
                if let (Some(own), Some(other)) = (own, other) {
                    differences.push(own - other);
                }
            }
            if !differences.is_empty() {
                parts.push(Mean::of(&differences));
            }
        }
        pooled(&parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(groups: &[&[Option<f64>]]) -> Scores {
        Scores {
            groups: groups.iter().map(|group| group.to_vec()).collect(),
            range: [0.0, 100.0],
        }
    }

    #[test]
    fn means_are_over_questions_and_missing_verdicts_are_bounded() {
        let own = scores(&[&[Some(100.0), Some(0.0)], &[Some(100.0), None, Some(100.0)]]);
        assert_eq!((own.count(), own.missing()), (5, 1));
        assert_eq!(own.mean().mean, 75.0);
        assert_eq!(own.bounds(), [60.0, 80.0]);
        let other = scores(&[&[Some(0.0), Some(0.0)], &[None, Some(0.0), Some(100.0)]]);
        let difference = own.over(&other);
        assert_eq!((difference.mean, difference.count), (100.0 / 3.0, 3));
    }

    #[test]
    fn only_whole_scores_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mmlu/a.json");
        scores(&[&[None]]).keep(&path).unwrap();
        assert_eq!(Scores::read(&path), None);
        let whole = scores(&[&[Some(1.5)]]);
        whole.keep(&path).unwrap();
        assert_eq!(Scores::read(&path), Some(whole));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Scores::read(&path), None);
    }
}
