//! A decoder on a device, and the building blocks of its passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use upright_base::{Error, Result};
use upright_model::{
    Recompute, adapter::AdapterLayout, config::DecoderConfig, weights::Weights as FrozenWeights,
};

use super::{
    array::Array,
    block::Block,
    device::Device,
    head::{Cut, Head},
    linear::Scope,
    memory::Pending,
    meter::Meter,
    tables::{Angles, Tables},
    weights::Weights,
};
use crate::{adapter::DeviceAdapter, cpu::kernels::counters::Counters};

/// A frozen decoder on a device.
pub(crate) struct Decoder {
    pub(super) config: Arc<DecoderConfig>,
    /// The weights as files have them; `None` where only sizes matter.
    pub(super) frozen: Option<FrozenWeights>,
    pub(crate) device: Arc<dyn Device>,
    pub(super) recompute: Recompute,
    pub(super) counters: Counters,
    pub(super) cut: Cut,
    /// Whether the device failed [`Decoder::rows_keep_their_bits`].
    pub(crate) rows_vary: bool,
    /// Passes whose backward pass is still to come.
    pub(super) pending: Pending,
    state: Mutex<State>,
}

/// What passes change. A pass holds it to its end, so passes run one after another.
pub(super) struct State {
    pub(super) weights: Weights,
    pub(super) angles: Angles,
    /// Version of the parameters that the weights hold.
    folded: Option<u64>,
    /// Why the weights are not whole: an adapter that needed more room did not fit, and they were being uploaded again.
    failure: Option<Error>,
}

impl Decoder {
    /// Uploads a model.
    ///
    /// # Errors
    /// A size that the kernels do not take, or the device has too little memory. Nothing was uploaded then.
    pub(crate) fn open(
        config: Arc<DecoderConfig>,
        frozen: Option<FrozenWeights>,
        device: Arc<dyn Device>,
        recompute: Recompute,
    ) -> Result<Self> {
        check_weights(&device, &config)?;
        let weights = Weights::open(&device, &config, frozen.as_ref())?;
        let angles = Angles::new(&device, &config.rotary)?;
        Ok(Self {
            config,
            frozen,
            device,
            recompute,
            counters: Counters::default(),
            cut: Cut::default(),
            rows_vary: false,
            pending: Pending::default(),
            state: Mutex::new(State {
                weights,
                angles,
                folded: None,
                failure: None,
            }),
        })
    }

    /// The state, with room for positions up to `end`, and the adapter in the weights.
    pub(super) fn prepared(
        &self,
        end: usize,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<MutexGuard<'_, State>> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        if let Some(error) = &state.failure {
            return Err(error.clone());
        }
        state
            .angles
            .extend(&self.device, &self.config.rotary, end)?;
        if let Some(adapter) = adapter {
            let (parameters, version) = adapter.parameters.device();
            assert!(
                Arc::ptr_eq(parameters.device(), &self.device),
                "the adapter is on the decoder's device"
            );
            if state.folded != Some(version) {
                state.folded = None;
                let folded = self.fold(state, &adapter.layout, parameters);
                state.failure = folded.err();
                if let Some(error) = &state.failure {
                    return Err(error.clone());
                }
                state.folded = Some(version);
            }
        }
        Ok(guard)
    }

    /// Copies an adapter into the weights, as a pass does before it begins.
    pub(crate) fn prepare(&self, adapter: &DeviceAdapter) -> Result<()> {
        self.prepared(0, Some(adapter)).map(drop)
    }

    /// Copies parameters into the weights.
    pub(super) fn fold(
        &self,
        state: &mut State,
        layout: &AdapterLayout,
        parameters: &Array<f32>,
    ) -> Result<()> {
        let frozen = self.frozen.as_ref();
        state.weights.fold(&self.device, layout, parameters, frozen)
    }

    /// The state without any preparation.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn block<'a>(
        &'a self,
        state: &'a State,
        tables: &'a Tables,
        layer: usize,
        adapted: bool,
        keeps: bool,
    ) -> Block<'a> {
        Block {
            config: &self.config,
            weights: &state.weights,
            layer,
            tables,
            angles: &state.angles,
            scope: Scope {
                device: &self.device,
                counters: &self.counters,
                adapted,
                identity: &tables.identity,
            },
            keeps,
        }
    }

    pub(super) fn head<'a>(&'a self, state: &'a State) -> Head<'a> {
        Head {
            device: &self.device,
            counters: &self.counters,
            norm: &state.weights.final_norm,
            weight: state.weights.head(),
            cut: self.cut,
        }
    }
}

/// Rejects a model whose weights do not fit into the device's memory.
fn check_weights(device: &Arc<dyn Device>, config: &DecoderConfig) -> Result<()> {
    let Some(available) = device.available() else {
        return Ok(());
    };
    let meter = Arc::new(Meter::default());
    let counting = Arc::clone(&meter) as Arc<dyn Device>;
    let _weights = Weights::open(&counting, config, None)?;
    let needed = meter.used();
    if needed <= available {
        return Ok(());
    }
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    Err(Error::input(format!(
        "the model's weights take {:.1} GB, and the device has {:.1} GB left: {:.1} GB are missing",
        gigabytes(needed),
        gigabytes(available),
        gigabytes(needed - available)
    ))
    .hint(format!(
        "use a model of at most {:.1} billion parameters in bf16, a larger GPU, or --device cpu",
        gigabytes(available) / 2.0
    )))
}
