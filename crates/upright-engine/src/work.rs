//! What a step on a card takes: memory, launches, products and traffic. The decoder runs on a device that only counts, so no card
//! and no weights are needed.

use std::{collections::BTreeMap, sync::Arc};

use upright_base::Result;
use upright_math::adamw::AdamWStep;
use upright_model::{Recompute, adapter::AdapterLayout, config::DecoderConfig, pack::Pack};

use crate::{
    adapter::DeviceAdapter,
    backend::{Backend, Purpose},
    gpu::{Device, decoder::Decoder, meter::Meter},
    scores::Slopes,
};

/// Launches, products and copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Launches of every kernel, and the bytes that they read and write in global memory. What several blocks read counts once.
    /// Attention's bytes are not counted here: they depend on the tiles of a pack, and `upright_kernels::work` has them.
    pub launches: BTreeMap<&'static str, (usize, u64)>,
    /// Matrix products by shape `[m, n, k]`.
    pub products: BTreeMap<[usize; 3], usize>,
    /// Bytes of the products' operands, each once.
    pub product_bytes: u64,
    /// Copies and fills on the device, and their bytes.
    pub copies: (usize, u64),
    /// Transfers between host and device, and their bytes.
    pub transfers: (usize, u64),
}

impl Work {
    /// Multiply-adds of all products.
    pub fn multiply_adds(&self) -> u64 {
        let mut sum = 0;
        for ([m, n, k], count) in &self.products {
            sum += (*m * *n * *k * *count) as u64;
        }
        sum
    }

    /// Number of all launches.
    pub fn launch_count(&self) -> usize {
        self.launches.values().map(|(count, _)| count).sum()
    }

    /// Bytes of all launches.
    pub fn launch_bytes(&self) -> u64 {
        self.launches.values().map(|(_, bytes)| bytes).sum()
    }
}

/// What a step over one pack takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepWork {
    /// Bytes of the weights, with room for the adapter.
    pub weights: usize,
    /// Largest number of bytes at a time, weights included.
    pub peak: usize,
    /// The forward pass.
    pub forward: Work,
    /// The backward pass.
    pub backward: Work,
    /// The sum of gradients, clipping, AdamW, and the adapter's way into the weights.
    pub update: Work,
}

/// Counts the work of a step over one pack, with an adapter of this layout.
///
/// # Errors
/// The config has sizes that a GPU does not take.
pub fn of_step(
    config: &DecoderConfig,
    layout: &Arc<AdapterLayout>,
    pack: &Pack,
    recompute: Recompute,
) -> Result<StepWork> {
    let meter = Arc::new(Meter::default());
    let device = Arc::clone(&meter) as Arc<dyn Device>;
    let decoder = Decoder::open(Arc::new(config.clone()), None, device, recompute)?;
    let vector = || decoder.vector(vec![0.0; layout.len]);
    let mut adapter = DeviceAdapter {
        layout: Arc::clone(layout),
        parameters: vector()?,
    };
    // Makes room for the adapter.
    decoder.prepare(&adapter)?;
    let weights = meter.used() - 4 * layout.len;
    let mut gradient = vector()?;
    let (mut m, mut v) = (vector()?, vector()?);
    let mut sum = decoder.sum(layout.len, 0)?;
    meter.restart();
    let (_, activations) = decoder.forward(pack, &adapter, Purpose::Train)?;
    let forward = meter.take();
    let slopes = Slopes {
        logp: vec![0.0; pack.targets.len()],
    };
    decoder.backward(pack, &adapter, activations, &slopes, &mut gradient)?;
    let backward = meter.take();
    sum.add(&gradient)?;
    sum.write_to(&mut gradient)?;
    gradient.norm()?;
    gradient.scale(1.0)?;
    let step = AdamWStep::new([0.9, 0.95], 1e-8, 0.0, 1e-3, 1);
    adapter.parameters.adamw(&gradient, &mut m, &mut v, &step)?;
    adapter.parameters.is_finite()?;
    decoder.prepare(&adapter)?;
    let update = meter.take();
    Ok(StepWork {
        weights,
        peak: meter.peak(),
        forward,
        backward,
        update,
    })
}
