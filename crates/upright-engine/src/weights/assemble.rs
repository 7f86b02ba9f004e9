//! From tensors by name to [`Weights`], wherever the tensors come from.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::names::{LinearShape, block_name, block_shape, names};
use super::{BlockWeights, Linear, Matrix, Mlp, NormWeights, Qkv, Weights};
use crate::Result;
use crate::config::{DecoderConfig, NormKind};

/// Values of each tensor that go into the fingerprint.
const SAMPLES: usize = 64;

/// Tensors by the names that a whole model has for them.
pub(super) trait Tensors {
    /// A matrix, `[rows, cols]`.
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix>;

    /// A vector.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>>;

    /// Which of the names that are in use the head has here.
    fn head<'n>(&self, names: &[&'n str]) -> Result<&'n str>;
}

/// What the fingerprint is made of: shape and samples of every tensor that was read, by name.
pub(super) type Seen = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads every tensor that the config asks for, and says which those were.
pub(super) fn assemble(tensors: &impl Tensors, config: &DecoderConfig) -> Result<(Weights, Seen)> {
    let mut assembly = Assembly { tensors, seen: Seen::new() };
    let names = names(config.family);
    let embedding = assembly.matrix(names.embedding, names.embedding, config.vocab, config.hidden)?;
    let blocks = (0..config.layers).map(|layer| assembly.block(config, layer)).collect::<Result<Vec<_>>>()?;
    let final_norm = assembly.norm(names.final_norm, config.hidden, config.norm)?;
    let head = match config.tied_head {
        true => None,
        false => {
            let name = tensors.head(names.heads)?;
            Some(assembly.matrix(name, names.heads[0], config.vocab, config.hidden)?)
        }
    };
    let seen = assembly.seen;
    Ok((Weights { embedding, blocks, final_norm, head, fingerprint: fingerprint(config, &seen) }, seen))
}

struct Assembly<'t, T> {
    tensors: &'t T,
    seen: Seen,
}

impl<T: Tensors> Assembly<'_, T> {
    /// A matrix, read under `name` and remembered for the fingerprint as `canonical`.
    fn matrix(&mut self, name: &str, canonical: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let matrix = self.tensors.matrix(name, rows, cols)?;
        let data = matrix.data();
        self.remember(canonical, vec![rows, cols], data.len(), |i| data[i].to_f32());
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let values = self.tensors.vector(name, len)?;
        self.remember(name, vec![len], len, |i| values[i]);
        Ok(values)
    }

    fn remember(&mut self, name: &str, shape: Vec<usize>, len: usize, value: impl Fn(usize) -> f32) {
        let samples = (0..SAMPLES.min(len)).map(|i| value(i * len / SAMPLES.min(len))).collect();
        self.seen.insert(name.to_owned(), (shape, samples));
    }

    fn linear(&mut self, block: &str, shape: &LinearShape) -> Result<Linear> {
        let module = format!("{block}.{}", shape.name);
        let name = format!("{module}.weight");
        let weight = self.matrix(&name, &name, shape.outputs, shape.inputs)?;
        let bias = if shape.bias { Some(self.vector(&format!("{module}.bias"), shape.outputs)?) } else { None };
        Ok(Linear { module, weight, bias })
    }

    fn norm(&mut self, module: &str, len: usize, kind: NormKind) -> Result<NormWeights> {
        let scale = self.vector(&format!("{module}.weight"), len)?;
        let bias = match kind {
            NormKind::Layer => Some(self.vector(&format!("{module}.bias"), len)?),
            NormKind::Rms => None,
        };
        Ok(NormWeights { scale, bias })
    }

    fn block(&mut self, config: &DecoderConfig, layer: usize) -> Result<BlockWeights> {
        let block = block_name(config.family, layer);
        let shape = block_shape(config);
        let qkv = match &shape.qkv[..] {
            [fused] => Qkv::Fused(self.linear(&block, fused)?),
            [q, k, v] => {
                Qkv::Split { q: self.linear(&block, q)?, k: self.linear(&block, k)?, v: self.linear(&block, v)? }
            }
            _ => unreachable!("a name table has one fused linear or three"),
        };
        let mut head_norm = |name: &str| match config.qk_norm {
            true => self.norm(&format!("{block}.self_attn.{name}"), config.head_size, NormKind::Rms).map(Some),
            false => Ok(None),
        };
        let (q_norm, k_norm) = (head_norm("q_norm")?, head_norm("k_norm")?);
        let attention_norm = self.norm(&format!("{block}.input_layernorm"), config.hidden, config.norm)?;
        let mlp_norm = self.norm(&format!("{block}.post_attention_layernorm"), config.hidden, config.norm)?;
        let output = self.linear(&block, &shape.output)?;
        let gate = shape.gate.as_ref().map(|gate| self.linear(&block, gate)).transpose()?;
        let mlp = Mlp { gate, up: self.linear(&block, &shape.up)?, down: self.linear(&block, &shape.down)? };
        Ok(BlockWeights { attention_norm, qkv, q_norm, k_norm, output, mlp_norm, mlp })
    }
}

fn fingerprint(config: &DecoderConfig, seen: &Seen) -> String {
    let mut hash = Sha256::new();
    // What the weights do depends on these too; names, ids and lengths do not matter.
    let c = config;
    let wiring = (c.norm, c.norm_eps.to_bits(), c.qk_norm, c.residual, c.activation, c.tied_head);
    let attention = (c.heads, c.kv_heads, c.head_size, &c.rotary, &c.windows);
    let arithmetic = format!("{wiring:?} {attention:?}");
    hash.update((arithmetic.len() as u64).to_le_bytes());
    hash.update(arithmetic);
    for (name, (shape, samples)) in seen {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|&n| hash.update((n as u64).to_le_bytes()));
        samples.iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
