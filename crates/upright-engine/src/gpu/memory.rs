//! Bytes that a pass over a pack takes. They are counted by running the pass on a [`Meter`], so the code that allocates is the
//! formula.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

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

/// Bytes of a pass over a pack, besides the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes {
    /// What the forward pass leaves for the backward pass.
    pub(super) kept: usize,
    /// Largest number at a time.
    pub(super) peak: usize,
}

/// Passes whose backward pass is still to come, and the bytes that each will take beyond those that it keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<BTreeMap<usize, usize>>>);

/// The entry of one pass, which ends with it.
#[derive(Debug)]
pub(super) struct Reserved {
    pending: Pending,
    number: usize,
}

impl Pending {
    fn with<R>(&self, work: impl FnOnce(&mut BTreeMap<usize, usize>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The largest entry.
    fn largest(&self) -> usize {
        self.with(|pending| pending.values().copied().max().unwrap_or(0))
    }

    fn add(&self, bytes: usize) -> Reserved {
        let number = self.with(|pending| {
            let number = pending.last_key_value().map_or(0, |(last, _)| last + 1);
            pending.insert(number, bytes);
            number
        });
        Reserved {
            pending: self.clone(),
            number,
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pending.with(|pending| pending.remove(&self.number));
    }
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

    /// The fastest way that fits into the device's memory, with room for the backward pass of every pass that is still kept.
    ///
    /// # Errors
    /// None of them does.
    pub(super) fn way(
        &self,
        pack: &Pack,
        layout: &AdapterLayout,
        purpose: Purpose,
    ) -> Result<(Way, Reserved)> {
        let ways = self.ways(purpose);
        let Some(available) = self.device.available() else {
            return Ok((ways[0], self.pending.add(0)));
        };
        let mut least = usize::MAX;
        for way in ways {
            let Bytes { kept, peak } = self.bytes_of(pack, layout, way)?;
            let needed = peak.max(kept + self.pending.largest());
            if needed <= available {
                return Ok((way, self.pending.add(peak - kept)));
            }
            least = least.min(needed);
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

    /// Bytes of a forward and a backward pass over a pack.
    pub(super) fn bytes_of(&self, pack: &Pack, layout: &AdapterLayout, way: Way) -> Result<Bytes> {
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
        let (logp, saved) = other.run_forward(&state, pack, tables, lowest, way)?;
        let kept = meter.used() - before;
        other.run_backward(&state, pack, saved, lowest, &logp, &gradient)?;
        let peak = device.peak() - before;
        Ok(Bytes { kept, peak })
    }
}
