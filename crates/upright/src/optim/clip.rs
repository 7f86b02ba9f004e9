//! Clipping by the global norm, as torch's `clip_grad_norm_` does it.

/// Numbers that are summed on their own before the sums are: the result depends on the length alone.
const CHUNK: usize = 4096;

/// Scales the gradient by min(1, `max_norm` / (norm + 1e-6)) and returns its norm before that. With a `max_norm` of 0 the
/// norm is only measured.
pub fn clip(gradient: &mut [f32], max_norm: f64) -> f64 {
    let norm = norm(gradient);
    let coefficient = max_norm / (norm + 1e-6);
    if max_norm > 0.0 && coefficient < 1.0 {
        let coefficient = coefficient as f32;
        gradient.iter_mut().for_each(|g| *g *= coefficient);
    }
    norm
}

/// Euclidean norm, in f64.
fn norm(values: &[f32]) -> f64 {
    // Eight running sums let the compiler use vector registers; their order is fixed all the same.
    let chunk_sum = |chunk: &[f32]| {
        let mut lanes = [0.0f64; 8];
        let eights = chunk.chunks_exact(8);
        let rest: f64 = eights
            .remainder()
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum();
        for eight in eights {
            lanes
                .iter_mut()
                .zip(eight)
                .for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
        }
        lanes.iter().sum::<f64>() + rest
    };
    values.chunks(CHUNK).map(chunk_sum).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Norm 5, limit 1: coefficient 1 / 5.000001.
    #[test]
    fn a_long_gradient_is_cut_to_the_limit() {
        let mut gradient = [3.0f32, 0.0, -4.0];
        assert_eq!(clip(&mut gradient, 1.0), 5.0);
        let c = 1.0 / 5.000_001;
        assert!(
            (f64::from(gradient[0]) - 3.0 * c).abs() < 1e-7
                && (f64::from(gradient[2]) + 4.0 * c).abs() < 1e-7
        );
    }

    #[test]
    fn a_short_gradient_and_a_limit_of_0_change_nothing() {
        let mut gradient = [0.3f32, -0.4];
        assert!((clip(&mut gradient, 1.0) - 0.5).abs() < 1e-7);
        clip(&mut gradient, 0.0);
        assert_eq!(gradient, [0.3, -0.4]);
        assert_eq!(clip(&mut [], 1.0), 0.0);
    }

    #[test]
    fn long_vectors_keep_their_precision() {
        let mut ones = vec![1.0f32; 3 * CHUNK + 13];
        assert_eq!(clip(&mut ones, 0.0), ((3 * CHUNK + 13) as f64).sqrt());
        assert_eq!(clip(&mut [1e30; 4], 0.0), 2.0 * f64::from(1e30f32));
    }

    #[test]
    fn a_broken_gradient_shows_in_the_norm() {
        assert!(clip(&mut [1.0, f32::NAN], 1.0).is_nan());
    }
}
