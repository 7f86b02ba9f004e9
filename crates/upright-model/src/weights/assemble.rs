//! Builds [`Weights`] from named tensors of any source.

use std::collections::BTreeSet;

use super::names::{LinearShape, block_name, block_shape};
use super::{BlockWeights, Linear, Matrix, Mlp, NormWeights, Qkv, Weights};
use crate::config::{DecoderConfig, NormKind};
use upright_base::Result;

/// Tensors by their names in a whole model.
pub(super) trait Tensors {
    /// A matrix, `[rows, cols]`.
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix>;

    /// A vector.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>>;

    /// Which of the known names the head has here.
    fn head(&self, names: &[&'static str]) -> Result<&'static str>;
}

/// Reads every tensor that the config requires. Also returns their names.
pub(super) fn assemble(
    tensors: &impl Tensors,
    config: &DecoderConfig,
) -> Result<(Weights, BTreeSet<String>)> {
    let mut assembly = Assembly {
        tensors,
        seen: BTreeSet::new(),
    };
    let names = &config.family.tensors;
    let embedding = assembly.matrix(
        names.embedding,
        names.embedding,
        config.vocab,
        config.hidden,
    )?;
    let blocks = (0..config.layers)
        .map(|layer| assembly.block(config, layer))
        .collect::<Result<Vec<_>>>()?;
    let final_norm = assembly.norm(names.final_norm, config.hidden, config.norm)?;
    let head = match config.tied_head {
        true => None,
        false => {
            let name = tensors.head(names.heads)?;
            Some(assembly.matrix(name, names.heads[0], config.vocab, config.hidden)?)
        }
    };
    Ok((
        Weights {
            embedding,
            blocks,
            final_norm,
            head,
        },
        assembly.seen,
    ))
}

struct Assembly<'t, T> {
    tensors: &'t T,
    seen: BTreeSet<String>,
}

impl<T: Tensors> Assembly<'_, T> {
    /// A matrix that is called `name` here, and `canonical` in a whole model.
    fn matrix(&mut self, name: &str, canonical: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let matrix = self.tensors.matrix(name, rows, cols)?;
        self.seen.insert(canonical.to_owned());
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let values = self.tensors.vector(name, len)?;
        self.seen.insert(name.to_owned());
        Ok(values)
    }

    fn linear(&mut self, block: &str, shape: &LinearShape) -> Result<Linear> {
        let module = format!("{block}.{}", shape.name);
        let name = format!("{module}.weight");
        let weight = self.matrix(&name, &name, shape.outputs, shape.inputs)?;
        let bias = if shape.bias {
            Some(self.vector(&format!("{module}.bias"), shape.outputs)?)
        } else {
            None
        };
        Ok(Linear {
            module,
            weight,
            bias,
        })
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
        let names = &config.family.tensors;
        let block = block_name(config.family, layer);
        let shape = block_shape(config);
        let qkv = match &shape.qkv[..] {
            [fused] => Qkv::Fused(self.linear(&block, fused)?),
            [q, k, v] => Qkv::Split {
                q: self.linear(&block, q)?,
                k: self.linear(&block, k)?,
                v: self.linear(&block, v)?,
            },
            _ => unreachable!("a name table has one fused linear or three"),
        };
        let mut q_norm = None;
        let mut k_norm = None;
        if let Some([q, k]) = names.head_norms {
            q_norm = Some(self.norm(&format!("{block}.{q}"), config.head_size, NormKind::Rms)?);
            k_norm = Some(self.norm(&format!("{block}.{k}"), config.head_size, NormKind::Rms)?);
        }
        let attention_norm = self.norm(
            &format!("{block}.{}", names.attention_norm),
            config.hidden,
            config.norm,
        )?;
        let mlp_norm = self.norm(
            &format!("{block}.{}", names.mlp_norm),
            config.hidden,
            config.norm,
        )?;
        let output = self.linear(&block, &shape.output)?;
        let gate = shape
            .gate
            .as_ref()
            .map(|gate| self.linear(&block, gate))
            .transpose()?;
        let mlp = Mlp {
            gate,
            up: self.linear(&block, &shape.up)?,
            down: self.linear(&block, &shape.down)?,
        };
        Ok(BlockWeights {
            attention_norm,
            qkv,
            q_norm,
            k_norm,
            output,
            mlp_norm,
            mlp,
        })
    }
}
