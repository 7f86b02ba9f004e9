//! The fingerprint of a model: a digest of every value that the engine computes with, and of the
//! architecture's arithmetic.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use upright_base::files::hex;

use super::digest::Digest;
use crate::config::DecoderConfig;

/// Prefix of recorded fingerprints. Older builds, which sampled 64 values per tensor, wrote 64
/// digits without a prefix.
const PREFIX: &str = "v2-";

/// Values per tensor that go into the older fingerprint.
const SAMPLES: usize = 64;

/// Identity of a model's weights: equal for any sharding of the same values, different if any value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Over every value, with [`PREFIX`].
    complete: String,
    /// Over samples, as recorded by older builds.
    sampled: String,
}

impl Fingerprint {
    /// The fingerprint of [`super::Weights::random`] with a seed.
    pub fn of_random(config: &DecoderConfig, seed: u64) -> Self {
        let mut hash = Sha256::new_with_prefix(arithmetic(config));
        hash.update(format!("random weights of seed {seed}"));
        let sampled = hex(&hash.finalize());
        Self {
            complete: format!("{PREFIX}{sampled}"),
            sampled,
        }
    }

    /// The recorded text: `v2-` and the 64 hexadecimal digits of a SHA-256.
    pub fn as_str(&self) -> &str {
        &self.complete
    }

    /// Whether a record names these weights. A record of an older build is a digest of samples, so
    /// it matches any model with these sampled values.
    pub fn matches(&self, recorded: &str) -> bool {
        recorded
            == if Self::is_complete(recorded) {
                &self.complete
            } else {
                &self.sampled
            }
    }

    /// Whether a record covers every value, not only samples.
    pub fn is_complete(recorded: &str) -> bool {
        recorded.starts_with(PREFIX)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.complete)
    }
}

/// Collects the tensors of a [`Fingerprint`].
#[derive(Default)]
pub(crate) struct Collector {
    /// By name.
    tensors: BTreeMap<String, Collected>,
}

/// One collected tensor.
struct Collected {
    shape: Vec<usize>,
    digest: Digest,
    samples: Vec<f32>,
}

/// Indices of the samples: one at a scattered position in each of equal stretches. With the first
/// index of each stretch, all samples of a matrix could be in its first column.
fn sampled_indices(len: usize) -> impl Iterator<Item = usize> {
    let count = SAMPLES.min(len);
    (0..count).map(move |i| {
        let start = i * len / count;
        let end = (i + 1) * len / count;
        // Knuth's multiplier scatters the numbers over all bits; the high bits are the best.
        let scattered = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        start + (scattered % (end - start) as u64) as usize
    })
}

impl Collector {
    /// Adds a tensor: the digest of all its values, and a function that gives the value at an index.
    pub(crate) fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        digest: Digest,
        value: impl Fn(usize) -> f32,
    ) {
        let len: usize = shape.iter().product();
        let samples = sampled_indices(len).map(value).collect();
        self.tensors.insert(
            name.to_owned(),
            Collected {
                shape: shape.to_vec(),
                digest,
                samples,
            },
        );
    }

    /// The fingerprint of a model of these tensors.
    pub(crate) fn finish(&self, config: &DecoderConfig) -> Fingerprint {
        let arithmetic = arithmetic(config);
        let mut complete = Sha256::new_with_prefix(&arithmetic);
        let mut sampled = Sha256::new_with_prefix(&arithmetic);
        for (name, tensor) in &self.tensors {
            let mut head = (name.len() as u64).to_le_bytes().to_vec();
            head.extend(name.as_bytes());
            head.extend((tensor.shape.len() as u64).to_le_bytes());
            for &size in &tensor.shape {
                head.extend((size as u64).to_le_bytes());
            }
            complete.update(&head);
            complete.update(tensor.digest);
            sampled.update(&head);
            for value in &tensor.samples {
                sampled.update(value.to_le_bytes());
            }
        }
        let complete = format!("{PREFIX}{}", hex(&complete.finalize()));
        Fingerprint {
            complete,
            sampled: hex(&sampled.finalize()),
        }
    }
}

/// The part of a config that determines what the weights compute. Names, ids and lengths do not
/// matter.
fn arithmetic(config: &DecoderConfig) -> Vec<u8> {
    let c = config;
    let wiring = (
        c.norm,
        c.norm_eps.to_bits(),
        c.qk_norm,
        c.residual,
        c.activation,
        c.tied_head,
    );
    let attention = (c.heads, c.kv_heads, c.head_size, &c.rotary, &c.windows);
    let text = format!("{wiring:?} {attention:?}");
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Matrices whose number of rows is a multiple of the samples: many columns are sampled, from every part of a row.
    #[test]
    fn samples_are_of_every_part_of_a_row() {
        for (rows, cols) in [(64, 64), (768, 768), (3072, 768), (50_304, 512)] {
            let columns: std::collections::BTreeSet<usize> = sampled_indices(rows * cols)
                .map(|index| index % cols)
                .collect();
            assert!(columns.len() > SAMPLES / 2, "{rows} x {cols}: {columns:?}");
            let parts: std::collections::BTreeSet<usize> =
                columns.iter().map(|column| 8 * column / cols).collect();
            assert_eq!(parts.len(), 8, "{rows} x {cols}: {columns:?}");
        }
        assert_eq!(sampled_indices(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(sampled_indices(0).count(), 0);
    }

    #[test]
    fn records_of_either_kind_are_matched() {
        let fingerprint = Fingerprint {
            complete: "v2-ab".into(),
            sampled: "cd".into(),
        };
        assert!(fingerprint.matches("v2-ab") && fingerprint.matches("cd"));
        assert!(!fingerprint.matches("ab") && !fingerprint.matches("v2-cd"));
        assert!(Fingerprint::is_complete(fingerprint.as_str()) && !Fingerprint::is_complete("cd"));
    }
}
