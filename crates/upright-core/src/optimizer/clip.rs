//! Gradient clipping by the global norm, as in torch's `clip_grad_norm_`.

/// Factor for a gradient of this norm: min(1, `max_norm` / (norm + 1e-6)). `None` if the gradient
/// stays as it is; a `max_norm` of 0 disables clipping.
pub fn clip_coefficient(norm: f64, max_norm: f64) -> Option<f32> {
    let coefficient = max_norm / (norm + 1e-6);
    (max_norm > 0.0 && coefficient < 1.0).then_some(coefficient as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Norm 5, limit 1: coefficient 1 / 5.000001.
    #[test]
    fn a_long_gradient_is_cut_to_the_limit() {
        assert_eq!(clip_coefficient(5.0, 1.0), Some((1.0 / 5.000_001) as f32));
    }

    #[test]
    fn a_short_gradient_and_a_limit_of_0_change_nothing() {
        assert_eq!(clip_coefficient(0.5, 1.0), None);
        assert_eq!(clip_coefficient(1e9, 0.0), None);
    }

    #[test]
    fn a_broken_norm_is_not_clipped_away() {
        assert_eq!(clip_coefficient(f64::NAN, 1.0), None);
    }
}
