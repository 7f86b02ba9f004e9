//! What a step on a card takes: memory, launches, products and traffic. The decoder runs on a device that only counts, so no card
//! and no weights are needed.

use std::sync::Arc;

use upright_base::Result;
use upright_math::adamw::AdamWStep;
use upright_model::{Recompute, adapter::AdapterLayout, config::DecoderConfig, pack::Pack};

pub use crate::gpu::meter::Work;
use crate::{
    adapter::DeviceAdapter,
    backend::{Backend, Purpose},
    gpu::{Device, decoder::Decoder, meter::Meter},
    scores::Slopes,
};

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
