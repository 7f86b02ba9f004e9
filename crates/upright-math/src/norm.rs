//! The Euclidean norm of a long vector, in f64. The vector is split into chunks of a fixed length,
//! each chunk is summed on its own, and the sums are added in order. The result is bit-identical,
//! whichever thread sums which chunk.

/// Values per chunk.
pub const CHUNK: usize = 4096;

/// The sum of the squares of one chunk.
pub fn sum_of_squares(chunk: &[f32]) -> f64 {
    // Eight running sums let the compiler use vector registers; the order of the additions is still
    // fixed.
    let mut lanes = [0.0f64; 8];
    let eights = chunk.chunks_exact(8);
    let mut rest = 0.0;
    for x in eights.remainder() {
        rest += f64::from(*x).powi(2);
    }
    for eight in eights {
        for (sum, x) in lanes.iter_mut().zip(eight) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// The Euclidean norm.
pub fn norm(values: &[f32]) -> f64 {
    values.chunks(CHUNK).map(sum_of_squares).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_vectors_keep_their_precision() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(
            norm(&vec![1.0; 3 * CHUNK + 13]),
            ((3 * CHUNK + 13) as f64).sqrt()
        );
        assert_eq!(norm(&[1e30; 4]), 2.0 * f64::from(1e30f32));
    }

    #[test]
    fn a_broken_value_shows_in_the_norm() {
        assert!(norm(&[1.0, f32::NAN]).is_nan());
    }
}
