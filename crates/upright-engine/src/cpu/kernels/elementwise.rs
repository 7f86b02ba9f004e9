//! Vectorized functions along slices: elementwise maps and sums.

use super::simd::{Element, Lanes};

/// A function of N inputs that updates M outputs, applied lane by lane. `apply` must be
/// `#[inline(always)]`.
pub(crate) trait Map<const N: usize, const M: usize> {
    /// The function; `was` holds the previous values of the outputs.
    fn apply<L: Lanes>(&self, x: [L; N], was: [L; M]) -> [L; M];
}

/// Applies a function along slices of equal length. The tail goes through a padded vector, so that
/// the bits of an element do not depend on its position.
#[inline(always)]
pub(crate) fn map<L: Lanes, E: Element, const N: usize, const M: usize>(
    function: &impl Map<N, M>,
    inputs: [&[E]; N],
    outputs: [&mut [f32]; M],
) {
    let len = outputs[0].len();
    assert!(
        inputs.iter().all(|x| x.len() == len) && outputs.iter().all(|y| y.len() == len),
        "slices of equal length"
    );
    let whole = len - len % L::LEN;
    for at in (0..whole).step_by(L::LEN) {
        // SAFETY: LEN values from `at` on lie inside every slice.
        unsafe {
            let was = std::array::from_fn(|m| L::load(outputs[m].as_ptr().add(at)));
            let y = function.apply(inputs.map(|x| E::load(x.as_ptr().add(at))), was);
            for m in 0..M {
                y[m].store(outputs[m].as_mut_ptr().add(at));
            }
        }
    }
    if whole < len {
        let was = std::array::from_fn(|m| padded::<L, f32>(&outputs[m][whole..]));
        let y = function.apply(inputs.map(|x| padded::<L, E>(&x[whole..])), was);
        for m in 0..M {
            outputs[m][whole..].copy_from_slice(&y[m].to_array()[..len - whole]);
        }
    }
}

/// A function of N inputs to be summed, applied lane by lane. `apply` must be `#[inline(always)]`.
pub(crate) trait Summand<const N: usize> {
    /// The function.
    fn apply<L: Lanes>(&self, x: [L; N]) -> L;
}

/// Sum of a function along slices of equal length. The order depends only on the length and the
/// width of the vectors.
#[inline(always)]
pub(crate) fn total<L: Lanes, const N: usize>(
    function: &impl Summand<N>,
    inputs: [&[f32]; N],
) -> f32 {
    /// Independent sums.
    const CHAINS: usize = 4;
    let len = inputs[0].len();
    assert!(
        inputs.iter().all(|x| x.len() == len),
        "slices of equal length"
    );
    let mut sums = [L::splat(0.0); CHAINS];
    let whole = len - len % L::LEN;
    for first in (0..whole).step_by(CHAINS * L::LEN) {
        for (chain, sum) in sums.iter_mut().enumerate() {
            let at = first + chain * L::LEN;
            if at < whole {
                // SAFETY: LEN values from `at` on lie inside every slice.
                *sum =
                    sum.add(function.apply(inputs.map(|x| unsafe { L::load(x.as_ptr().add(at)) })));
            }
        }
    }
    let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum();
    let tail = function
        .apply(inputs.map(|x| padded::<L, f32>(&x[whole..])))
        .to_array();
    sum + tail[..len - whole].iter().sum::<f32>()
}

/// Sum of `a b` along slices of equal length. The order depends only on the length and the width of
/// the vectors.
#[inline(always)]
pub(crate) fn dot<L: Lanes, E: Element>(a: &[E], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "slices of equal length");
    let whole = a.len() - a.len() % L::LEN;
    let mut sum = padded::<L, E>(&a[whole..]).mul(padded::<L, f32>(&b[whole..]));
    for at in (0..whole).step_by(L::LEN) {
        // SAFETY: LEN values from `at` on lie inside both.
        sum = unsafe { E::load::<L>(a.as_ptr().add(at)).mul_add(L::load(b.as_ptr().add(at)), sum) };
    }
    sum.sum()
}

/// Loads fewer values than a vector has lanes, padded with zeros.
#[inline(always)]
fn padded<L: Lanes, E: Element>(x: &[E]) -> L {
    let mut lanes = [0.0; 16];
    lanes
        .iter_mut()
        .zip(x)
        .for_each(|(lane, x)| *lane = x.float());
    // SAFETY: no vector has more than 16 lanes.
    unsafe { L::load(lanes.as_ptr()) }
}
