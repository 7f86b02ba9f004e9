//! What tells models apart: a digest over the arithmetic and samples of every tensor.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::config::DecoderConfig;

/// Values of each tensor that go into the fingerprint.
const SAMPLES: usize = 64;

/// See [`super::Weights::fingerprint`]; samples are of the values that the engine computes with.
#[derive(Default)]
pub(crate) struct Fingerprint {
    /// Shape and samples by name.
    seen: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Where samples are taken: one in each of equal stretches, not at their beginnings, which in a matrix would be the first
/// column of every row.
fn places(len: usize) -> impl Iterator<Item = usize> {
    let count = SAMPLES.min(len);
    (0..count).map(move |i| {
        let (start, end) = (i * len / count, (i + 1) * len / count);
        // Knuth's multiplier scatters the numbers over all bits; the high ones are the best.
        let scattered = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        start + (scattered % (end - start) as u64) as usize
    })
}

impl Fingerprint {
    /// Takes samples of a tensor, whose elements are numbered from 0.
    pub(crate) fn remember(&mut self, name: &str, shape: &[usize], value: impl Fn(usize) -> f32) {
        let len: usize = shape.iter().product();
        self.seen.insert(name.to_owned(), (shape.to_vec(), places(len).map(value).collect()));
    }

    /// Whether it has samples of a tensor.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// The digest, in hexadecimal.
    pub(crate) fn finish(&self, config: &DecoderConfig) -> String {
        let mut hash = Sha256::new();
        // What the weights do depends on these too; names, ids and lengths do not matter.
        let c = config;
        let wiring = (c.norm, c.norm_eps.to_bits(), c.qk_norm, c.residual, c.activation, c.tied_head);
        let attention = (c.heads, c.kv_heads, c.head_size, &c.rotary, &c.windows);
        let arithmetic = format!("{wiring:?} {attention:?}");
        hash.update((arithmetic.len() as u64).to_le_bytes());
        hash.update(arithmetic);
        for (name, (shape, samples)) in &self.seen {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update((shape.len() as u64).to_le_bytes());
            shape.iter().for_each(|&n| hash.update((n as u64).to_le_bytes()));
            samples.iter().for_each(|v| hash.update(v.to_le_bytes()));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Matrices whose rows are a multiple of the samples: not one column is looked at, but many, from every part of a row.
    #[test]
    fn samples_are_of_every_part_of_a_row() {
        for (rows, cols) in [(64, 64), (768, 768), (3072, 768), (50_304, 512)] {
            let columns: std::collections::BTreeSet<usize> = places(rows * cols).map(|place| place % cols).collect();
            assert!(columns.len() > SAMPLES / 2, "{rows} x {cols}: {columns:?}");
            let parts: std::collections::BTreeSet<usize> = columns.iter().map(|column| 8 * column / cols).collect();
            assert_eq!(parts.len(), 8, "{rows} x {cols}: {columns:?}");
        }
        assert_eq!(places(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(places(0).count(), 0);
    }
}
