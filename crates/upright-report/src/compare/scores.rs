//! Scores of benchmarks by arm: means over seeds, and differences between arms.

use serde::Serialize;

use crate::read::benchmarks::Score;
use upright_core::metrics::{Sample, Spread};

/// The scores of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// Its short name, such as `mmlu`.
    pub name: String,
    /// Its name on the page.
    pub title: String,
    /// The unit of the scores; empty for none.
    pub unit: String,
    /// Whether a larger score is better.
    pub higher_is_better: bool,
    /// What it measures; may be empty.
    pub about: String,
    /// Models that are no run of the report, such as the base.
    pub references: Vec<ReferenceScore>,
    /// The arms that were scored, in the order of the report.
    pub arms: Vec<ArmScore>,
    /// Number of scores of run folders that the report does not show.
    pub left_out: usize,
}

/// The score of a model that is no run of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceScore {
    /// Its unique name.
    pub name: String,
    /// Its score.
    #[serde(flatten)]
    pub score: ModelScore,
}

/// The score of an arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmScore {
    /// Index of the report's arm.
    pub arm: usize,
    /// Its score.
    #[serde(flatten)]
    pub score: ModelScore,
}

/// The score of an arm, as the mean over its seeds, or of a single model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelScore {
    /// Mean and standard error: over seeds, or over questions if there is one seed.
    #[serde(flatten)]
    pub sample: Sample,
    /// Number of models that the mean is over.
    pub seeds: usize,
    /// Mean number of questions per model.
    pub count: f64,
    /// Number of missing verdicts, over all models.
    pub missing: usize,
    /// Mean score if all missing verdicts were lost and if all were won; none if none is missing.
    pub bounds: Option<[f64; 2]>,
    /// The difference to the base model on the same questions, if every model has one. Its error is
    /// over seeds, or over questions if there is one seed.
    pub difference: Option<Spread>,
}

impl ModelScore {
    /// The mean over models, each with its seed; none without a model.
    pub(crate) fn of(models: &[(u64, Score)]) -> Option<Self> {
        let mut by_seed = Vec::new();
        let mut counts = Vec::new();
        let mut bounds: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        let mut has_bounds = false;
        let mut differences = Vec::new();
        for (seed, score) in models {
            by_seed.push((*seed, score.value));
            counts.push(score.count as f64);
            // Without a missing verdict, the score is its own bound.
            bounds[0].push(score.low.unwrap_or(score.value));
            bounds[1].push(score.high.unwrap_or(score.value));
            has_bounds |= score.low.is_some();
            differences.extend(score.difference.map(|difference| difference.value));
        }
        let mut sample = Sample::of(by_seed)?;
        let mut difference = (differences.len() == models.len()).then(|| Spread::of(&differences));
        if let [(_, only)] = models {
            sample.spread.error = only.error;
            difference = only.difference.map(|difference| Spread {
                mean: difference.value,
                error: difference.error,
            });
        }
        Some(Self {
            sample,
            seeds: models.len(),
            count: Spread::of(&counts).mean,
            missing: models.iter().map(|(_, score)| score.missing).sum(),
            bounds: has_bounds.then(|| bounds.map(|values| Spread::of(&values).mean)),
            difference,
        })
    }

    /// What its error is over; empty if no error is known.
    pub fn error_over(&self) -> &'static str {
        match (self.sample.spread.error, self.seeds) {
            (None, _) => "",
            (Some(_), 1) => "questions",
            (Some(_), _) => "seeds",
        }
    }
}

impl Scores {
    /// The score of an arm, if it was scored.
    pub fn arm(&self, index: usize) -> Option<&ModelScore> {
        let found = self.arms.iter().find(|of| of.arm == index);
        found.map(|of| &of.score)
    }

    /// How far the score of one arm falls short of that of another: below 0 if the first is better.
    /// Arms that share at least two seeds are compared seed by seed; for others, both errors are
    /// combined. None if one of them was not scored.
    pub(crate) fn shortfall(&self, arm: usize, other: usize) -> Option<Spread> {
        let (own, theirs) = (&self.arm(arm)?.sample, &self.arm(other)?.sample);
        Some(if self.higher_is_better {
            theirs.less(own)
        } else {
            own.less(theirs)
        })
    }

    /// Number of decimals of its scores.
    pub(crate) fn decimals(&self) -> usize {
        if self.unit == "%" { 2 } else { 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Difference;

    fn score(value: f64, error: Option<f64>) -> Score {
        Score {
            run: String::new(),
            of: String::new(),
            value,
            error,
            count: 100,
            missing: 0,
            low: None,
            high: None,
            difference: None,
        }
    }

    fn scores(higher_is_better: bool, arms: Vec<Vec<(u64, Score)>>) -> Scores {
        let mut found = Vec::new();
        for (arm, models) in arms.iter().enumerate() {
            found.extend(ModelScore::of(models).map(|score| ArmScore { arm, score }));
        }
        Scores {
            name: "mmlu".into(),
            title: "MMLU".into(),
            unit: "%".into(),
            higher_is_better,
            about: String::new(),
            references: Vec::new(),
            arms: found,
            left_out: 0,
        }
    }

    #[test]
    fn the_error_is_over_seeds_or_over_the_questions_of_one_seed() {
        let one = ModelScore::of(&[(1, score(50.0, Some(0.5)))]).unwrap();
        assert_eq!(one.sample.spread.error, Some(0.5));
        assert_eq!(one.error_over(), "questions");
        let bare = ModelScore::of(&[(1, score(50.0, None))]).unwrap();
        assert_eq!((bare.sample.spread.error, bare.error_over()), (None, ""));
        let two = [(1, score(50.0, Some(9.0))), (2, score(52.0, None))];
        let two = ModelScore::of(&two).unwrap();
        assert_eq!(two.sample.spread, Spread::of(&[50.0, 52.0]));
        assert_eq!((two.error_over(), two.seeds), ("seeds", 2));
        assert_eq!(ModelScore::of(&[]), None);
    }

    #[test]
    fn bounds_and_differences_are_means_too() {
        let mut first = score(50.0, None);
        (first.missing, first.low, first.high) = (4, Some(48.0), Some(52.0));
        let (value, error) = (-1.0, Some(0.25));
        first.difference = Some(Difference { value, error });
        let one = ModelScore::of(&[(1, first.clone())]).unwrap();
        assert_eq!(one.difference.unwrap().error, Some(0.25));
        // A score without a missing verdict is its own bound.
        let mut second = score(60.0, None);
        let both = ModelScore::of(&[(1, first.clone()), (2, second.clone())]).unwrap();
        assert_eq!((both.missing, both.bounds), (4, Some([54.0, 56.0])));
        assert_eq!(both.difference, None);
        second.difference = Some(Difference { value: -3.0, error });
        let both = ModelScore::of(&[(1, first), (2, second)]).unwrap();
        assert_eq!(both.difference, Some(Spread::of(&[-1.0, -3.0])));
    }

    #[test]
    fn a_shortfall_is_below_0_for_the_better_arm() {
        let arms = || {
            let low = vec![(1, score(50.0, None)), (2, score(60.0, None))];
            let high = vec![(1, score(51.0, None)), (2, score(61.5, None))];
            vec![low, high]
        };
        let higher = scores(true, arms());
        // Seed by seed: differences of 1 and 1.5.
        assert_eq!(higher.shortfall(1, 0), Some(Spread::of(&[-1.0, -1.5])));
        let lower = scores(false, arms());
        assert_eq!(lower.shortfall(1, 0), Some(Spread::of(&[1.0, 1.5])));
        assert_eq!(lower.shortfall(0, 2), None);
        // With one seed, both errors over questions are combined.
        let one = |value: f64, error: f64| vec![(1, score(value, Some(error)))];
        let single = scores(true, vec![one(50.0, 0.3), one(52.0, 0.4)]);
        let shortfall = single.shortfall(1, 0).unwrap();
        assert_eq!((shortfall.mean, shortfall.error), (-2.0, Some(0.5)));
    }
}
