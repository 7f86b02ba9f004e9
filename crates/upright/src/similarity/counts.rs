//! Token counts of texts, and search for the nearest count vector by cosine similarity.

use std::collections::HashMap;

/// Token counts of a text. All sums are integers, so a cosine does not depend on any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens with their counts, ordered by token.
    counts: Vec<(u32, u64)>,
    /// Squared length of the vector.
    squared: u64,
}

impl Counts {
    /// Counts the tokens of a text.
    pub fn of(tokens: &[u32]) -> Self {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        let counts: Vec<(u32, u64)> = sorted
            .chunk_by(|a, b| a == b)
            .map(|same| (same[0], same.len() as u64))
            .collect();
        let squared = counts.iter().map(|(_, count)| count * count).sum();
        Self { counts, squared }
    }

    /// Cosine similarity, from 0 (no common token) to 1 (same proportions of the same tokens); 0
    /// for an empty text.
    pub fn cosine(&self, other: &Self) -> f64 {
        let (mut left, mut right) = (
            self.counts.iter().peekable(),
            other.counts.iter().peekable(),
        );
        let mut dot = 0;
        while let (Some((a, n)), Some((b, m))) = (left.peek(), right.peek()) {
            match a.cmp(b) {
                std::cmp::Ordering::Less => drop(left.next()),
                std::cmp::Ordering::Greater => drop(right.next()),
                std::cmp::Ordering::Equal => {
                    dot += n * m;
                    left.next();
                    right.next();
                }
            }
        }
        cosine(dot, self.squared, other.squared)
    }
}

fn cosine(dot: u64, a: u64, b: u64) -> f64 {
    if dot == 0 {
        0.0
    } else {
        (dot as f64 / ((a as f64).sqrt() * (b as f64).sqrt())).min(1.0)
    }
}

/// An inverted index of many vectors. A search only touches vectors that share a token.
#[derive(Debug)]
pub struct Index {
    /// For every token, the vectors that contain it, with its count.
    having: HashMap<u32, Vec<(u32, u64)>>,
    squared: Vec<u64>,
}

impl Index {
    /// Indexes at least one vector.
    pub fn of(vectors: &[Counts]) -> Self {
        let mut having: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
        for (row, vector) in vectors.iter().enumerate() {
            for (token, count) in &vector.counts {
                having.entry(*token).or_default().push((row as u32, *count));
            }
        }
        Self {
            having,
            squared: vectors.iter().map(|vector| vector.squared).collect(),
        }
    }

    /// Index of the vector with the largest cosine to `to`, and that cosine; the first of equally
    /// near vectors. `dots` is a scratch buffer that searches can share.
    pub fn nearest(&self, to: &Counts, dots: &mut Vec<u64>) -> (usize, f64) {
        dots.clear();
        dots.resize(self.squared.len(), 0);
        for (token, count) in &to.counts {
            for (row, theirs) in self.having.get(token).into_iter().flatten() {
                dots[*row as usize] += count * theirs;
            }
        }
        let mut best = (0, 0.0);
        for (row, (dot, squared)) in dots.iter().zip(&self.squared).enumerate() {
            let cosine = cosine(*dot, to.squared, *squared);
            if cosine > best.1 {
                best = (row, cosine);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (1, 2) and (2, 1): (2 + 2) / 5.
    #[test]
    fn cosines_by_hand() {
        let [a, b, none] = [&[7, 9, 9][..], &[9, 7, 7], &[]].map(Counts::of);
        assert!((a.cosine(&b) - 0.8).abs() < 1e-15);
        assert_eq!(
            (
                a.cosine(&none),
                none.cosine(&none),
                a.cosine(&Counts::of(&[1, 2]))
            ),
            (0.0, 0.0, 0.0)
        );
        // The same proportions of the same tokens.
        assert!((a.cosine(&Counts::of(&[9, 7, 9, 9, 7, 9])) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn the_first_of_equals_is_the_nearest() {
        let vectors = [&[1, 2][..], &[3], &[3, 3], &[4]].map(Counts::of);
        assert_eq!(
            Index::of(&vectors).nearest(&Counts::of(&[3]), &mut Vec::new()),
            (1, 1.0)
        );
        assert_eq!(
            Index::of(&vectors).nearest(&Counts::of(&[9]), &mut Vec::new()),
            (0, 0.0)
        );
    }

    proptest! {
        #[test]
        fn the_index_finds_what_comparing_with_all_finds(
            texts in prop::collection::vec(prop::collection::vec(0..12u32, 0..20), 1..30),
            to in prop::collection::vec(0..12u32, 0..20),
        ) {
            let vectors: Vec<Counts> = texts.iter().map(|text| Counts::of(text)).collect();
            let to = Counts::of(&to);
            let (row, cosine) = Index::of(&vectors).nearest(&to, &mut vec![99; 3]);
            prop_assert_eq!(cosine, vectors[row].cosine(&to));
            prop_assert!(vectors.iter().all(|vector| vector.cosine(&to) <= cosine));
        }
    }
}
