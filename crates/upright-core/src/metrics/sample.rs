//! A number measured with several seeds, and how it compares with another number measured with the same seeds.

use super::{Spread, cost::quotient};

/// A number measured once with each of some seeds.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Sample {
    /// Its mean and standard error.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub spread: Spread,
    /// Seeds, each with its value. A seed occurs once.
    #[cfg_attr(feature = "serde", serde(skip))]
    by_seed: Vec<(u64, f64)>,
}

impl Sample {
    /// A number from its values by seed; `None` without values.
    pub fn of(by_seed: Vec<(u64, f64)>) -> Option<Self> {
        if by_seed.is_empty() {
            return None;
        }
        let values: Vec<f64> = by_seed.iter().map(|(_, value)| *value).collect();
        Some(Self {
            spread: Spread::of(&values),
            by_seed,
        })
    }

    /// A number without a known error, because no seed has a value of its own.
    pub fn bare(value: f64) -> Self {
        Self {
            spread: Spread::of(&[value]),
            by_seed: Vec::new(),
        }
    }

    /// The mean of several numbers, at least one. It has a value for each seed that all of them share.
    pub fn mean_of(all: &[Self]) -> Self {
        let spreads: Vec<Spread> = all.iter().map(|sample| sample.spread).collect();
        let mut by_seed = Vec::new();
        for (seed, _) in &all[0].by_seed {
            let values: Option<Vec<f64>> = all.iter().map(|sample| sample.with(*seed)).collect();
            if let Some(values) = values {
                by_seed.push((*seed, values.iter().sum::<f64>() / values.len() as f64));
            }
        }
        Self {
            spread: Spread::mean_of(&spreads),
            by_seed,
        }
    }

    /// This number minus another. If they share two seeds or more, it is the mean of the
    /// differences over the shared seeds, with the standard error of that mean. Otherwise it is the
    /// difference of the means, with both errors combined as independent errors; it has no error if
    /// one of the two has none.
    pub fn less(&self, other: &Self) -> Spread {
        let mut differences = Vec::new();
        for (own, theirs) in self.pairs(other) {
            differences.push(own - theirs);
        }
        if differences.len() > 1 {
            return Spread::of(&differences);
        }
        let error = self
            .spread
            .error
            .zip(other.spread.error)
            .map(|(own, theirs)| own.hypot(theirs));
        Spread {
            mean: self.spread.mean - other.spread.mean,
            error,
        }
    }

    /// This number divided by another, by the same rule as [`less`](Self::less). `None` if the other is not above 0.
    pub fn over(&self, other: &Self) -> Option<Spread> {
        let mut quotients = Vec::new();
        for (own, theirs) in self.pairs(other) {
            if theirs > 0.0 {
                quotients.push(own / theirs);
            }
        }
        if quotients.len() > 1 {
            return Some(Spread::of(&quotients));
        }
        quotient(&self.spread, &other.spread)
    }

    fn with(&self, seed: u64) -> Option<f64> {
        self.by_seed
            .iter()
            .find(|(own, _)| *own == seed)
            .map(|(_, value)| *value)
    }

    /// The values of both numbers for each seed that they share.
    fn pairs(&self, other: &Self) -> Vec<(f64, f64)> {
        self.by_seed
            .iter()
            .filter_map(|(seed, own)| Some((*own, other.with(*seed)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Call;

    fn sample(by_seed: &[(u64, f64)]) -> Sample {
        Sample::of(by_seed.to_vec()).unwrap()
    }

    /// Values that differ much between seeds and little for the same seed: only pairs show the
    /// difference.
    #[test]
    fn shared_seeds_are_pairs() {
        let (low, high) = (
            sample(&[(1, 1.0), (2, 3.0), (3, 5.0)]),
            sample(&[(3, 5.3), (1, 1.1), (2, 3.2)]),
        );
        let difference = low.less(&high);
        // Differences of -0.1, -0.2 and -0.3: standard deviation 0.1, over the root of 3.
        assert!(
            (difference.mean + 0.2).abs() < 1e-12
                && (difference.reach() - 0.1 / 3f64.sqrt()).abs() < 1e-12
        );
        assert_eq!(
            (difference.is_below(0.0), high.less(&low).is_below(0.0)),
            (Call::Yes, Call::No)
        );
        // The same values under other seeds are not pairs: errors of 2 / sqrt(3) each.
        let strangers = sample(&[(4, 1.1), (5, 3.2), (6, 5.3)]);
        let difference = low.less(&strangers);
        assert!((difference.mean + 0.2).abs() < 1e-12);
        assert!(
            (difference.reach() - low.spread.reach().hypot(strangers.spread.reach())).abs() < 1e-12
        );
        assert_eq!(difference.is_below(0.0), Call::TooCloseToCall);
        // One shared seed is not a pair either. Of more seeds, the shared ones count.
        let one = sample(&[(1, 1.1), (5, 3.2), (6, 5.3)]);
        assert_eq!(low.less(&one), low.less(&strangers));
        let two = sample(&[(1, 1.1), (2, 3.2), (6, 9.0)]);
        assert!((low.less(&two).mean + 0.15).abs() < 1e-12);
    }

    #[test]
    fn a_single_value_leaves_the_error_open() {
        let (one, many) = (sample(&[(1, 2.0)]), sample(&[(1, 1.0), (2, 5.0)]));
        assert_eq!(
            one.less(&many),
            Spread {
                mean: -1.0,
                error: None
            }
        );
        assert_eq!(
            many.over(&one),
            Some(Spread {
                mean: 1.5,
                error: None
            })
        );
        assert_eq!(
            Sample::bare(2.0).less(&many),
            Spread {
                mean: -1.0,
                error: None
            }
        );
        assert_eq!(Sample::of(Vec::new()), None);
    }

    #[test]
    fn quotients_are_taken_seed_by_seed() {
        let (own, other) = (sample(&[(1, 1.0), (2, 6.0)]), sample(&[(1, 2.0), (2, 4.0)]));
        // 0.5 and 1.5: mean 1, half their difference 0.5.
        assert_eq!(
            own.over(&other),
            Some(Spread {
                mean: 1.0,
                error: Some(0.5)
            })
        );
        assert_eq!(own.over(&sample(&[(1, 0.0), (2, 0.0)])), None);
        let strangers = sample(&[(3, 2.0), (4, 4.0)]);
        assert_eq!(
            own.over(&strangers),
            quotient(&own.spread, &strangers.spread)
        );
        // Two orders; one lacks a seed.
        let mean = Sample::mean_of(&[
            sample(&[(1, 1.0), (2, 3.0), (3, 9.0)]),
            sample(&[(1, 2.0), (2, 5.0)]),
        ]);
        assert_eq!(mean.by_seed, [(1, 1.5), (2, 4.0)]);
    }
}
