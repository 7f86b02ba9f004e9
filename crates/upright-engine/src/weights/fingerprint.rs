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

impl Fingerprint {
    /// Takes samples of a tensor, whose elements are numbered from 0.
    pub(crate) fn remember(&mut self, name: &str, shape: &[usize], value: impl Fn(usize) -> f32) {
        let len: usize = shape.iter().product();
        let samples = (0..SAMPLES.min(len)).map(|i| value(i * len / SAMPLES.min(len))).collect();
        self.seen.insert(name.to_owned(), (shape.to_vec(), samples));
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
