//! Bytes that a pass over a pack takes. They are counted by running the pass on a [`Meter`], so the code that allocates is the
//! formula.

use std::sync::Arc;

use upright_base::{Error, Result};
use upright_model::{Recompute, adapter::AdapterLayout, pack::Pack};

use super::{array::Array, decoder::Decoder, meter::Meter};
use crate::{backend::Purpose, cpu::head::Keep};

/// How a forward pass saves its activations. The results have the same bits in every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Whether all activations of blocks are saved; gradient checkpointing saves only their inputs.
    pub(super) traces: bool,
    /// What the head saves.
    pub(super) head: Keep,
}

impl Decoder {
    /// Ways to save activations, fastest first.
    fn ways(&self, purpose: Purpose) -> Vec<Way> {
        let way = |traces, head| Way { traces, head };
        let mut ways = Vec::new();
        if self.recompute != Recompute::On {
            if purpose == Purpose::Probe {
                ways.push(way(true, Keep::Softmax));
            }
            ways.push(way(true, Keep::Gradient));
        }
        if self.recompute != Recompute::Off {
            ways.push(way(false, Keep::Gradient));
        }
        ways
    }

    /// The fastest way that fits into the device's memory.
    ///
    /// # Errors
    /// None of them does.
    pub(super) fn way(&self, pack: &Pack, layout: &AdapterLayout, purpose: Purpose) -> Result<Way> {
        let ways = self.ways(purpose);
        let Some(available) = self.device.available() else {
            return Ok(ways[0]);
        };
        let mut least = usize::MAX;
        for way in ways {
            let bytes = self.needed_bytes(pack, layout, way)?;
            if bytes <= available {
                return Ok(way);
            }
            least = least.min(bytes);
        }
        let megabytes = |bytes: usize| bytes.div_ceil(1 << 20);
        let hint = match self.recompute {
            Recompute::Off => "use --recompute auto, or shorter packs (--token-budget)",
            _ => "use shorter packs (--token-budget), or shorter rows (--max-length)",
        };
        Err(Error::failure(format!(
            "a pack of {} tokens takes {} MB on the device, and {} MB are left",
            pack.tokens.len(),
            megabytes(least),
            megabytes(available)
        ))
        .hint(hint))
    }

    /// Largest number of bytes at a time that a forward and a backward pass over a pack take besides the weights.
    pub(super) fn needed_bytes(
        &self,
        pack: &Pack,
        layout: &AdapterLayout,
        way: Way,
    ) -> Result<usize> {
        let meter = Arc::new(Meter::default());
        let device: Arc<dyn super::Device> = Arc::clone(&meter) as _;
        let config = Arc::clone(&self.config);
        let mut other = Self::open(config, None, Arc::clone(&device), self.recompute)?;
        other.cut = self.cut;
        let parameters = Array::new(&device, layout.len)?;
        let gradient = Array::new(&device, layout.len)?;
        other.fold(&mut other.state(), layout, &parameters)?;
        let tables = other.tables(pack)?;
        let state = other.prepared(tables.end, None)?;
        drop(tables);
        let before = meter.used();
        meter.restart();
        let tables = other.tables(pack)?;
        let lowest = layout.lowest_layer();
        let (logp, activations) = other.run_forward(&state, pack, tables, lowest, way)?;
        other.run_backward(&state, pack, activations, lowest, &logp, &gradient)?;
        Ok(device.peak() - before)
    }
}
