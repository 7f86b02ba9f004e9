//! The decoder that callers see, independent of the device.
//!
//! ```text
//! open -> score(pack)                                    log-probabilities only
//!      -> forward(pack), then backward(slopes)           the same log-probabilities, then the adapter's gradient
//!      -> probe(pack), then perhaps backward(slopes)     for a batch that may not be trained on
//!      -> generation                                     token by token
//! ```

use std::{path::Path, sync::Arc};

use rayon::ThreadPool;
use upright_base::{Error, Result, memory};
use upright_model::{
    Device, Recompute, adapter::Adapter, config::DecoderConfig, pack::Pack, weights::Weights,
};

pub use crate::gpu::cuda::{Card, Libraries};
pub use crate::{
    adapter::DeviceAdapter,
    backend::{ActivationBytes, WeightBytes},
    scores::{Scores, Slopes},
};
use crate::{
    adapter::Held,
    backend::{Backend, Purpose},
    cpu,
    generation::{Generation, Running},
    gpu,
    microbench::{self, MatrixRate},
    scores::check_tokens,
    sum::Sum,
    times::{self, GroupTime},
    usage::Usage,
    vector::Vector,
};

/// How a decoder runs. Only the device and the tier affect results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Device that the decoder runs on.
    pub device: Device,
    /// Threads on the host; 0 means one per core.
    pub threads: usize,
    /// Instruction tier of a CPU; `None` means `UPRIGHT_CPU`, else the best tier of the machine.
    pub tier: Option<cpu::tier::Tier>,
    /// Gradient checkpointing.
    pub recompute: Recompute,
    /// Processes on this host that use its memory alike; 0 counts as 1.
    pub processes: usize,
}

/// The saved activations of a forward pass, for its backward pass.
pub struct Activations(DeviceActivations);

enum DeviceActivations {
    Cpu(cpu::passes::Activations),
    Gpu(Box<gpu::passes::Activations>),
}

impl std::fmt::Debug for Activations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activations").finish_non_exhaustive()
    }
}

/// A frozen decoder, ready to run.
pub struct Decoder {
    config: Arc<DecoderConfig>,
    pool: Arc<ThreadPool>,
    backend: DeviceDecoder,
}

enum DeviceDecoder {
    Cpu(cpu::decoder::Decoder),
    Gpu(Box<gpu::decoder::Decoder>),
}

/// Calls a method of [`Backend`] on the device.
macro_rules! on_device {
    ($decoder:expr, $method:ident($($arg:expr),*)) => {
        match &$decoder.backend {
            DeviceDecoder::Cpu(decoder) => decoder.$method($($arg),*),
            DeviceDecoder::Gpu(decoder) => decoder.$method($($arg),*),
        }
    };
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("arithmetic", &self.arithmetic())
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Opens a Hugging Face folder (`config.json` and safetensors).
    ///
    /// # Errors
    /// A file is missing or damaged, or the machine or this build lacks the device or the tier.
    pub fn open(dir: &Path, options: &Options) -> Result<Self> {
        Self::with_weights(DecoderConfig::read(dir)?, options, |config| {
            Weights::open(dir, config)
        })
    }

    /// Builds a decoder of the shape in a folder's `config.json` with [`Weights::random`], for
    /// speed measurements.
    ///
    /// # Errors
    /// As for [`Decoder::open`].
    pub fn random(dir: &Path, seed: u64, options: &Options) -> Result<Self> {
        Self::with_weights(DecoderConfig::read(dir)?, options, |config| {
            Ok(Weights::random(config, seed))
        })
    }

    fn with_weights(
        config: DecoderConfig,
        options: &Options,
        weights: impl FnOnce(&DecoderConfig) -> Result<Weights> + Send,
    ) -> Result<Self> {
        check_device(options.device)?;
        let tier = cpu::tier::Tier::chosen(options.tier)?;
        let counters = Arc::default();
        let pool = cpu::decoder::thread_pool(options.threads, &counters)?;
        let pool = Arc::new(pool);
        let config = Arc::new(config);
        let weights = pool.install(|| weights(&config))?;
        let card: Option<Arc<dyn gpu::Device>> = match options.device {
            Device::Cuda(index) => Some(Arc::new(gpu::cuda::Cuda::open(index)?)),
            #[cfg(feature = "host-device")]
            Device::Host => Some(Arc::new(gpu::host::Host::new(Arc::clone(&pool), tier)?)),
            _ => None,
        };
        let backend = match card {
            Some(card) => {
                let config = Arc::clone(&config);
                let mut decoder =
                    gpu::decoder::Decoder::open(config, Some(weights), card, options.recompute)?;
                if matches!(options.device, Device::Cuda(_)) {
                    decoder.rows_vary = !decoder.rows_keep_their_bits()?;
                }
                DeviceDecoder::Gpu(Box::new(decoder))
            }
            None => DeviceDecoder::Cpu(cpu::decoder::Decoder {
                config: Arc::clone(&config),
                weights,
                tier,
                recompute: options.recompute,
                processes: options.processes.max(1),
                pool: Arc::clone(&pool),
                counters,
            }),
        };
        Ok(Self {
            config,
            pool,
            backend,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Threads on the host.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs work of the host on the decoder's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Identifies everything that determines the bits of a result: the kind of device, its
    /// instructions, and the revision of the arithmetic.
    pub fn arithmetic(&self) -> String {
        on_device!(self, arithmetic())
    }

    /// Short name, for tables, of what the matrix products run on: the tier of a CPU, or the kind of another device.
    pub fn tier_name(&self) -> &'static str {
        self.tier().map_or("gpu", cpu::tier::Tier::name)
    }

    /// What a user should know about the device before it computes; `None` for a CPU.
    pub fn device_note(&self) -> Option<String> {
        match &self.backend {
            DeviceDecoder::Cpu(_) => None,
            DeviceDecoder::Gpu(decoder) if decoder.rows_vary => Some(format!(
                "{}; cuBLASLt gives rows other bits in other packs here, so a resumed run may differ from a straight one",
                decoder.device.note()
            )),
            DeviceDecoder::Gpu(decoder) => Some(decoder.device.note()),
        }
    }

    /// The instruction tier, where the decoder runs on a CPU.
    pub fn tier(&self) -> Option<cpu::tier::Tier> {
        match &self.backend {
            DeviceDecoder::Cpu(decoder) => Some(decoder.tier),
            DeviceDecoder::Gpu(_) => None,
        }
    }

    /// Measures the matrix rate of the device, in operations/s.
    ///
    /// # Errors
    /// The device failed, or the threads cannot be started.
    pub fn matrix_rate(&self) -> Result<MatrixRate> {
        match &self.backend {
            DeviceDecoder::Cpu(decoder) => microbench::matrix(decoder.tier, self.threads()),
            DeviceDecoder::Gpu(decoder) => decoder.matrix_rate(),
        }
    }

    /// Memory, busy time and operation counts of the device so far.
    pub fn usage(&self) -> Usage {
        on_device!(self, usage())
    }

    /// Measures the time of every kernel from now on, until [`Decoder::take_times`]. The CPU measures nothing.
    pub fn start_times(&self) {
        if let DeviceDecoder::Gpu(decoder) = &self.backend {
            decoder.device.start_times();
        }
    }

    /// Time of every group of kernels since [`Decoder::start_times`], the longest first. Empty on a CPU, and on a GPU whose driver
    /// cannot measure it.
    ///
    /// # Errors
    /// The device failed.
    pub fn take_times(&self) -> Result<Vec<GroupTime>> {
        match &self.backend {
            DeviceDecoder::Cpu(_) => Ok(Vec::new()),
            DeviceDecoder::Gpu(decoder) => Ok(times::grouped(&decoder.device.take_times()?)),
        }
    }

    /// Bytes of the device's memory that are available now; `None` if nothing limits it or the system does not say.
    pub fn available_bytes(&self) -> Option<usize> {
        match &self.backend {
            DeviceDecoder::Cpu(_) => memory::available_bytes(),
            DeviceDecoder::Gpu(decoder) => decoder.device.available(),
        }
    }

    /// Bytes of the base weights.
    pub fn weight_bytes(&self) -> WeightBytes {
        on_device!(self, weight_bytes())
    }

    /// Bytes of saved activations per token, for an adapter whose lowest layer is given.
    pub fn bytes_per_token(&self, lowest_layer: usize) -> ActivationBytes {
        on_device!(self, bytes_per_token(lowest_layer))
    }

    /// Moves an adapter to the device.
    ///
    /// # Errors
    /// The device failed, or has too little memory.
    pub fn load(&self, adapter: Adapter) -> Result<DeviceAdapter> {
        Ok(DeviceAdapter {
            layout: adapter.layout,
            parameters: self.vector(adapter.parameters)?,
        })
    }

    /// Moves values to the device.
    ///
    /// # Errors
    /// As for [`Decoder::load`].
    pub fn vector(&self, values: Vec<f32>) -> Result<Vector> {
        on_device!(self, vector(values))
    }

    /// A zero sum of `len` values on the device, in units of 2^`exponent`.
    ///
    /// # Errors
    /// As for [`Decoder::load`].
    pub fn sum(&self, len: usize, exponent: i32) -> Result<Sum> {
        on_device!(self, sum(len, exponent))
    }

    /// Log-probabilities of a pack's targets, under the base model with an adapter or alone.
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the device failed or has too little memory.
    pub fn score(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Result<Scores> {
        check_tokens(pack, self.config.vocab)?;
        on_device!(self, score(pack, adapter))
    }

    /// The same log-probabilities, bit for bit, and the saved activations for
    /// [`Decoder::backward`].
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the device failed or has too little memory.
    pub fn forward(&self, pack: &Pack, adapter: &DeviceAdapter) -> Result<(Scores, Activations)> {
        self.keeping(pack, adapter, Purpose::Train)
    }

    /// Like [`Decoder::forward`], for a batch that is probed and may not be trained on.
    /// Bit-identical. If memory allows, the head's gradient, which is half of its products, is
    /// deferred to [`Decoder::backward`].
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the device failed or has too little memory.
    pub fn probe(&self, pack: &Pack, adapter: &DeviceAdapter) -> Result<(Scores, Activations)> {
        self.keeping(pack, adapter, Purpose::Probe)
    }

    fn keeping(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        purpose: Purpose,
    ) -> Result<(Scores, Activations)> {
        check_tokens(pack, self.config.vocab)?;
        let (scores, activations) = match &self.backend {
            DeviceDecoder::Cpu(decoder) => {
                let (scores, activations) = decoder.forward(pack, adapter, purpose)?;
                (scores, DeviceActivations::Cpu(activations))
            }
            DeviceDecoder::Gpu(decoder) => {
                let (scores, activations) = decoder.forward(pack, adapter, purpose)?;
                (scores, DeviceActivations::Gpu(Box::new(activations)))
            }
        };
        Ok((scores, Activations(activations)))
    }

    /// Runs the backward pass: writes the adapter's gradient to `gradient`, given the derivative of
    /// the loss with respect to the log-probability of each target. Pack and adapter are those of
    /// the forward pass, unchanged.
    ///
    /// # Errors
    /// A slope is not finite, or the device failed or has too little memory.
    ///
    /// # Panics
    /// If there is not one slope per target, the gradient's length differs from the adapter's, or the activations come from
    /// another device.
    pub fn backward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        activations: Activations,
        slopes: &Slopes,
        gradient: &mut Vector,
    ) -> Result<()> {
        assert_eq!(
            slopes.logp.len(),
            pack.targets.len(),
            "one slope per target"
        );
        assert_eq!(
            gradient.len(),
            adapter.parameters.len(),
            "the gradient has the adapter's layout"
        );
        for (index, slope) in slopes.logp.iter().enumerate() {
            if !(*slope as f32).is_finite() {
                return Err(Error::not_finite(format!(
                    "the slope of target {index}: {slope}"
                )));
            }
        }
        match (&self.backend, activations.0) {
            (DeviceDecoder::Cpu(decoder), DeviceActivations::Cpu(activations)) => {
                decoder.backward(pack, adapter, activations, slopes, gradient)
            }
            (DeviceDecoder::Gpu(decoder), DeviceActivations::Gpu(activations)) => {
                decoder.backward(pack, adapter, *activations, slopes, gradient)
            }
            _ => panic!("activations of another device"),
        }
    }

    /// Starts token-by-token generation, without a sequence yet. The key-value caches of all
    /// sequences take at most `limit` bytes; `None` allows half of the device's memory that is
    /// available now.
    pub fn generation<'a>(
        &'a self,
        adapter: Option<&'a DeviceAdapter>,
        limit: Option<usize>,
    ) -> Generation<'a> {
        self.start_generation(adapter.map(Held::Borrowed), limit)
    }

    /// Like [`Decoder::generation`], with an adapter that is freed together with the generation.
    pub fn generation_owning(
        &self,
        adapter: DeviceAdapter,
        limit: Option<usize>,
    ) -> Generation<'_> {
        self.start_generation(Some(Held::Owned(adapter)), limit)
    }

    fn start_generation<'a>(
        &'a self,
        adapter: Option<Held<'a>>,
        limit: Option<usize>,
    ) -> Generation<'a> {
        let half = || self.available_bytes().map_or(usize::MAX, |bytes| bytes / 2);
        let limit = limit.unwrap_or_else(half);
        let running = match &self.backend {
            DeviceDecoder::Cpu(decoder) => Running::Cpu(decoder.sequences(adapter)),
            DeviceDecoder::Gpu(decoder) => Running::Device(decoder.sequences(adapter)),
        };
        Generation::new(self.config.vocab, running, limit)
    }

    /// Names the first tensor with a value that is not finite: of the base, of the adapter, or a
    /// block's output on this pack.
    ///
    /// # Errors
    /// The device failed or has too little memory.
    pub fn find_non_finite(
        &self,
        pack: &Pack,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<Option<String>> {
        on_device!(self, find_non_finite(pack, adapter))
    }
}

/// The devices that this build can use on this machine, best first.
pub fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for card in cards() {
        devices.push(Device::Cuda(card.index));
    }
    devices.push(Device::Cpu);
    devices
}

/// The NVIDIA cards that can be used on this machine.
pub fn cards() -> Vec<Card> {
    let libraries = Libraries::find();
    let mut cards = Vec::new();
    for card in &libraries.cards {
        if libraries.card(card.index).is_ok() {
            cards.push(card.clone());
        }
    }
    cards
}

/// Rejects a device that this build or this machine lacks.
pub(crate) fn check_device(device: Device) -> Result<()> {
    match device {
        Device::Auto | Device::Cpu => Ok(()),
        Device::Cuda(index) => Libraries::find().card(index).map(drop),
        Device::Host if cfg!(feature = "host-device") => Ok(()),
        Device::Host => Err(Error::input("--device host: this build has no host device")
            .hint("build with --features host-device, for tests of the GPU decoder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_this_machine_lacks_is_refused_by_name() {
        check_device(Device::Auto).unwrap();
        let error = check_device(Device::Cuda(99)).unwrap_err();
        assert!(error.message.starts_with("--device cuda"), "{error}");
        assert!(error.hint.contains("--device cpu") || error.hint.contains("cuda:0"));
        assert_eq!(error.kind, upright_base::ErrorKind::Input);
    }
}
