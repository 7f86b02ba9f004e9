//! Random weights without a file, for speed measurements: a step takes as long as with trained
//! weights.

use std::f32::consts::TAU;

use half::bf16;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::assemble::{Tensors, assemble};
use super::{Matrix, Weights};
use crate::config::DecoderConfig;
use upright_base::Result;
use upright_math::random::scattered;

/// Standard deviation of every matrix, the default of transformers.
const DEVIATION: f32 = 0.02;

/// Values per task.
const CHUNK: usize = 4096;

/// See [`Weights::random`].
pub(super) fn random(config: &DecoderConfig, seed: u64) -> Weights {
    assemble(&Random { seed }, config)
        .expect("no random tensor is missing or misshapen")
        .0
}

/// Every tensor is a function of the seed and its name.
struct Random {
    seed: u64,
}

impl Tensors for Random {
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let hash = Sha256::new_with_prefix(self.seed.to_le_bytes())
            .chain_update(name)
            .finalize();
        let key = u64::from_le_bytes(hash[..8].try_into().expect("eight bytes"));
        let mut values = vec![bf16::ZERO; rows * cols];
        values
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, values)| {
                for (pair, values) in values.chunks_mut(2).enumerate() {
                    let [x, y] = normal_pair(scattered(
                        key.wrapping_add((chunk * CHUNK / 2 + pair) as u64),
                    ));
                    values[0] = bf16::from_f32(DEVIATION * x);
                    if let Some(second) = values.get_mut(1) {
                        *second = bf16::from_f32(DEVIATION * y);
                    }
                }
            });
        Ok(Matrix::owned(rows, cols, values))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(vec![if name.ends_with(".bias") { 0.0 } else { 1.0 }; len])
    }

    fn head(&self, names: &[&'static str]) -> Result<&'static str> {
        Ok(names[0])
    }
}

/// Two independent draws of N(0, 1) from 64 random bits (Box and Muller).
fn normal_pair(bits: u64) -> [f32; 2] {
    let uniform = |bits: u64| (bits as u32 >> 8) as f32 / (1 << 24) as f32;
    let radius = (-2.0 * (1.0 - uniform(bits)).ln()).sqrt();
    let (sin, cos) = (TAU * uniform(bits >> 32)).sin_cos();
    [radius * cos, radius * sin]
}
