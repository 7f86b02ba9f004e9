//! Rotary position embedding in Hugging Face's two-halves layout: dimension `i` of a head rotates
//! with dimension `i + dims / 2`.

use super::{Lanes, Work, attention::HeadLayout, dispatch};
use upright_model::config::Rotary;

/// Cosines and sines of every token of a pack, `[T, dims / 2]`.
#[derive(Debug)]
pub(crate) struct Angles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Angles of the given positions, computed in f64.
    pub(crate) fn new(rotary: &Rotary, positions: &[usize]) -> Self {
        let half = rotary.frequencies.len();
        let angles = positions
            .iter()
            .flat_map(|&p| rotary.frequencies.iter().map(move |f| (p as f64) * f));
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Self { half, cos, sin }
    }

    /// Rotates `heads` heads of a token in place, in the token's `row`. `backward` rotates them
    /// back, which is the transpose.
    pub(crate) fn turn(
        &self,
        token: usize,
        row: &mut [f32],
        layout: HeadLayout,
        heads: usize,
        backward: bool,
    ) {
        let sign = if backward { -1.0 } else { 1.0 };
        let angles = token * self.half..(token + 1) * self.half;
        dispatch(Turn {
            row,
            layout,
            heads,
            cos: &self.cos[angles.clone()],
            sin: &self.sin[angles],
            sign,
        });
    }
}

/// The heads of one token.
struct Turn<'a> {
    row: &'a mut [f32],
    layout: HeadLayout,
    heads: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    sign: f32,
}

impl Work for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            row,
            layout,
            heads,
            cos,
            sin,
            sign,
        } = self;
        let half = cos.len();
        let whole = half - half % L::LEN;
        for start in (0..heads).map(|head| head * layout.head + layout.offset) {
            let (first, second) = row[start..start + 2 * half].split_at_mut(half);
            for at in (0..whole).step_by(L::LEN) {
                // SAFETY: all four have `half` values.
                unsafe {
                    let (to_first, to_second) =
                        (first.as_mut_ptr().add(at), second.as_mut_ptr().add(at));
                    let (a, b) = (L::load(to_first), L::load(to_second));
                    let (c, s) = (
                        L::load(cos.as_ptr().add(at)),
                        L::load(sin.as_ptr().add(at)).mul(L::splat(sign)),
                    );
                    a.mul(c).sub(b.mul(s)).store(to_first);
                    b.mul(c).add(a.mul(s)).store(to_second);
                }
            }
            for i in whole..half {
                let (a, b, c, s) = (first[i], second[i], cos[i], sin[i] * sign);
                first[i] = a * c - b * s;
                second[i] = b * c + a * s;
            }
        }
    }
}
