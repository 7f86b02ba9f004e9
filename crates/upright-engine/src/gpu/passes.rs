//! Forward and backward passes of the decoder on a device. The mirror of `cpu/passes.rs`.

use upright_base::Result;
use upright_model::pack::Pack;

use super::{
    array::Array,
    block::{self, Trace},
    decoder::{Decoder, State},
    generation::DeviceSequences,
    head::HeadTrace,
    kernels::rows,
    memory::{Reserved, Way},
    tables::{DeviceTargets, Keys, Tables},
};
use crate::{
    adapter::{DeviceAdapter, Held},
    backend::{ActivationBytes, Backend, Purpose, WeightBytes, find_non_finite_tensor},
    cpu::head::Keep,
    scores::{Scores, Slopes},
    sum::Sum,
    usage::Usage,
    vector::Vector,
};

/// Saved activations of a forward pass, and the memory that its backward pass will need.
pub(crate) struct Activations {
    saved: Saved,
    reserved: Reserved,
}

/// Saved activations of a forward pass.
pub(super) struct Saved {
    tables: Tables,
    targets: DeviceTargets,
    blocks: Vec<Kept>,
    head: HeadTrace,
}

/// Saved activations of a block.
enum Kept {
    /// Nothing: no linear of this block or a lower one is adapted.
    Nothing,
    /// The block's input `[T, H]`; gradient checkpointing recomputes the rest.
    Input(Array<f32>),
    /// All activations.
    Trace(Box<Trace>),
}

impl Decoder {
    /// Log-probabilities of a pack's targets.
    fn run_score(
        &self,
        state: &State,
        pack: &Pack,
        tables: &Tables,
        adapted: bool,
    ) -> Result<Vec<f64>> {
        let scored = pack.scored_rows();
        let targets = DeviceTargets::new(&self.device, &scored, &pack.targets)?;
        let mut x = rows::embed(&state.weights.embedding, &tables.tokens, self.config.hidden)?;
        for layer in 0..self.config.layers {
            let block = self.block(state, tables, layer, adapted, false);
            x = block.forward(x)?.0;
        }
        let (logp, _) = self.head(state).forward(x, &targets, Keep::Nothing)?;
        Ok(logp)
    }

    /// The same with activations for [`Decoder::run_backward`], saved in the given way.
    pub(super) fn run_forward(
        &self,
        state: &State,
        pack: &Pack,
        tables: Tables,
        lowest: usize,
        way: Way,
    ) -> Result<(Vec<f64>, Saved)> {
        let scored = pack.scored_rows();
        let targets = DeviceTargets::new(&self.device, &scored, &pack.targets)?;
        let mut blocks = Vec::with_capacity(self.config.layers);
        let mut x = rows::embed(&state.weights.embedding, &tables.tokens, self.config.hidden)?;
        for layer in 0..self.config.layers {
            let keeps = layer >= lowest && way.traces;
            let input = (layer >= lowest && !way.traces).then(|| x.clone());
            let block = self.block(state, &tables, layer, true, keeps);
            let (y, trace) = block.forward(x)?;
            x = y;
            blocks.push(match input {
                Some(input) => Kept::Input(input),
                None if keeps => Kept::Trace(Box::new(trace)),
                None => Kept::Nothing,
            });
        }
        let (logp, head) = self.head(state).forward(x, &targets, way.head)?;
        let saved = Saved {
            tables,
            targets,
            blocks,
            head,
        };
        Ok((logp, saved))
    }

    /// Adds the adapter's gradient to `gradient`.
    pub(super) fn run_backward(
        &self,
        state: &State,
        pack: &Pack,
        saved: Saved,
        lowest: usize,
        slopes: &[f64],
        gradient: &Array<f32>,
    ) -> Result<()> {
        let Saved {
            tables,
            targets,
            mut blocks,
            head,
        } = saved;
        let layers = self.config.layers;
        if lowest >= layers {
            return Ok(());
        }
        let keys = Keys::new(&self.device, pack, &self.config.windows)?;
        let block = |layer| self.block(state, &tables, layer, true, true);
        let width = block(layers - 1).slope_width();
        let (mut dx, mut rounded) = self.head(state).backward(head, &targets, slopes, width)?;
        for layer in (lowest..layers).rev() {
            let trace = match blocks.pop().expect("one entry per block") {
                Kept::Nothing => break,
                Kept::Input(x) => block(layer).forward(x)?.1,
                Kept::Trace(trace) => *trace,
            };
            let below = (layer > lowest).then(|| block(layer - 1).slope_width());
            let passed = block(layer).backward(&trace, &keys, dx, rounded, gradient, below)?;
            let Some(passed) = passed else {
                break;
            };
            (dx, rounded) = passed;
        }
        Ok(())
    }

    /// Tables of a pack, with its positions.
    pub(super) fn tables(&self, pack: &Pack) -> Result<Tables> {
        let scored = pack.scored_rows();
        Tables::of_pack(&self.device, pack, &self.config.windows, &scored)
    }
}

impl Backend for Decoder {
    type Activations = Activations;
    type Sequences<'a> = DeviceSequences<'a>;

    fn score(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Result<Scores> {
        self.counters.forward(pack.tokens.len());
        let tables = self.tables(pack)?;
        let state = self.prepared(tables.end, adapter)?;
        let logp = self.run_score(&state, pack, &tables, adapter.is_some())?;
        Ok(Scores { logp })
    }

    fn forward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        purpose: Purpose,
    ) -> Result<(Scores, Activations)> {
        self.counters.forward(pack.tokens.len());
        let tables = self.tables(pack)?;
        let state = self.prepared(tables.end, Some(adapter))?;
        let (way, reserved) = self.way(pack, &adapter.layout, purpose)?;
        let lowest = adapter.layout.lowest_layer();
        let (logp, saved) = self.run_forward(&state, pack, tables, lowest, way)?;
        Ok((Scores { logp }, Activations { saved, reserved }))
    }

    fn backward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        activations: Activations,
        slopes: &Slopes,
        gradient: &mut Vector,
    ) -> Result<()> {
        self.counters.backward(pack.tokens.len());
        let Activations { saved, reserved } = activations;
        let state = self.prepared(saved.tables.end, Some(adapter))?;
        gradient.clear()?;
        let (gradient, _) = gradient.device();
        let lowest = adapter.layout.lowest_layer();
        self.run_backward(&state, pack, saved, lowest, &slopes.logp, gradient)?;
        drop(reserved);
        Ok(())
    }

    fn sequences<'a>(&'a self, adapter: Option<Held<'a>>) -> DeviceSequences<'a> {
        DeviceSequences::new(self, adapter)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vector> {
        Vector::on_device(&self.device, &values)
    }

    fn sum(&self, len: usize, exponent: i32) -> Result<Sum> {
        Sum::on_device(&self.device, len, exponent)
    }

    fn find_non_finite(
        &self,
        pack: &Pack,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<Option<String>> {
        let family = self.config.family;
        let tensor = find_non_finite_tensor(self.frozen.as_ref(), family, adapter)?;
        if tensor.is_some() {
            return Ok(tensor);
        }
        let tables = self.tables(pack)?;
        let state = self.prepared(tables.end, adapter)?;
        let mut x = rows::embed(&state.weights.embedding, &tables.tokens, self.config.hidden)?;
        for layer in 0..self.config.layers {
            let block = self.block(&state, &tables, layer, adapter.is_some(), false);
            x = block.forward(x)?.0;
            if x.read()?.iter().any(|value| !value.is_finite()) {
                return Ok(Some(format!(
                    "the output of block {layer} (overflow; every weight is finite)"
                )));
            }
        }
        let scored = pack.scored_rows();
        let targets = DeviceTargets::new(&self.device, &scored, &pack.targets)?;
        let (logp, _) = self.head(&state).forward(x, &targets, Keep::Nothing)?;
        let is_broken = logp.iter().any(|value| !value.is_finite());
        Ok(is_broken.then(|| "the head's log-probabilities".to_owned()))
    }

    fn arithmetic(&self) -> String {
        let mut arithmetic = self.device.arithmetic();
        if self.rows_vary {
            arithmetic += "/rows-vary";
        }
        arithmetic
    }

    fn usage(&self) -> Usage {
        Usage {
            peak_bytes: Some(self.device.peak()),
            busy_seconds: self.device.busy_seconds(),
            energy_joules: self.device.energy_joules(),
            units: self.device.units(),
            counts: self.counters.counts(),
        }
    }

    fn weight_bytes(&self) -> WeightBytes {
        let frozen = self.frozen.as_ref();
        WeightBytes {
            mapped: frozen.map_or(0, |weights| weights.bytes_mapped()),
            owned: frozen.map_or(0, |weights| weights.bytes_owned()),
        }
    }

    fn bytes_per_token(&self, lowest_layer: usize) -> ActivationBytes {
        let layers = self.config.layers.saturating_sub(lowest_layer);
        ActivationBytes {
            kept: layers * block::bytes_per_token(&self.config),
            recomputed: size_of::<f32>() * layers * self.config.hidden,
        }
    }
}
