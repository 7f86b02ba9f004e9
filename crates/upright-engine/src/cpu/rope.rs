//! Rotary position embedding in Hugging Face's two-halves layout: dimension `i` of a head turns with dimension
//! `i + dims / 2`.

use rayon::prelude::*;

use super::attention::HeadLayout;
use crate::config::Rotary;

/// Cosines and sines of every token of a pack, `[T, dims / 2]`.
#[derive(Debug)]
pub struct Angles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Angles of the given positions, computed in f64.
    pub fn new(rotary: &Rotary, positions: &[usize]) -> Self {
        let half = rotary.frequencies.len();
        let angles = positions.iter().flat_map(|&p| rotary.frequencies.iter().map(move |f| (p as f64) * f));
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Self { half, cos, sin }
    }

    /// Turns `heads` heads of every token in place; `backward` turns them back, which is the transpose.
    pub fn turn(&self, values: &mut [f32], layout: HeadLayout, heads: usize, backward: bool) {
        let half = self.half;
        if half == 0 {
            return;
        }
        let sign = if backward { -1.0 } else { 1.0 };
        values.par_chunks_mut(layout.row).enumerate().for_each(|(token, row)| {
            let angles = token * half..(token + 1) * half;
            let (cos, sin) = (&self.cos[angles.clone()], &self.sin[angles]);
            for head in 0..heads {
                let start = head * layout.head + layout.offset;
                let (first, second) = row[start..start + 2 * half].split_at_mut(half);
                for i in 0..half {
                    let (a, b, c, s) = (first[i], second[i], cos[i], sin[i] * sign);
                    first[i] = a * c - b * s;
                    second[i] = b * c + a * s;
                }
            }
        });
    }
}
