//! The trait that a device implements for the decoder. It is private: devices are part of this
//! crate, and callers see one [`Decoder`](crate::Decoder).

use upright_base::Result;
use upright_model::{families::Family, pack::Pack, weights::Weights};

use crate::{
    adapter::{DeviceAdapter, Held},
    next::{Following, Next, Want},
    prefill::NewPrompt,
    scores::{Scores, Slopes},
    sum::Sum,
    usage::Usage,
    vector::Vector,
};

/// Why a forward pass saves its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A backward pass follows.
    Train,
    /// A backward pass may follow. Work that only the backward pass needs is deferred if memory
    /// allows.
    Probe,
}

/// A decoder on one device. Callers have checked every pack against the vocabulary. An error means that the device failed, or has too
/// little memory.
pub(crate) trait Backend {
    /// Saved activations of a forward pass.
    type Activations;

    /// Sequences in generation.
    type Sequences<'a>: Sequences
    where
        Self: 'a;

    /// Log-probabilities of a pack's targets, under the base model with an adapter or alone.
    fn score(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Result<Scores>;

    /// The same log-probabilities, bit for bit, and the saved activations for
    /// [`Backend::backward`].
    fn forward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        purpose: Purpose,
    ) -> Result<(Scores, Self::Activations)>;

    /// Writes the adapter's gradient for this pack alone. Slopes are finite, one per target.
    fn backward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        activations: Self::Activations,
        slopes: &Slopes,
        gradient: &mut Vector,
    ) -> Result<()>;

    /// Starts generation without a sequence. An adapter of its own is freed together with it.
    fn sequences<'a>(&'a self, adapter: Option<Held<'a>>) -> Self::Sequences<'a>;

    /// Moves values to this device.
    fn vector(&self, values: Vec<f32>) -> Result<Vector>;

    /// A zero sum of `len` values on this device, in units of 2^`exponent`.
    fn sum(&self, len: usize, exponent: i32) -> Result<Sum>;

    /// Names the first tensor with a value that is not finite: of the base, of the adapter, or a
    /// block's output on this pack.
    fn find_non_finite(
        &self,
        pack: &Pack,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<Option<String>>;

    /// Identifies everything that determines the bits of a result.
    fn arithmetic(&self) -> String;

    /// Memory, busy time and operation counts so far.
    fn usage(&self) -> Usage;

    /// Bytes of the base weights: memory-mapped, and converted.
    fn weight_bytes(&self) -> WeightBytes;

    /// Bytes of saved activations per token, without and with gradient checkpointing, for an
    /// adapter whose lowest layer is given.
    fn bytes_per_token(&self, lowest_layer: usize) -> ActivationBytes;
}

/// Sequences in generation on one device, each with its key-value cache. The caller numbers the
/// sequences and names each at most once per call.
pub(crate) trait Sequences {
    /// Runs the first pass over prompts, and starts the sequences that are kept. Returns the
    /// next-token prediction of each prompt, and, if `best` is given, what follows each of its tokens
    /// from the last known token on, with that many candidates.
    fn read(
        &mut self,
        prompts: &[NewPrompt<'_>],
        best: Option<usize>,
        want: Want,
    ) -> Result<Vec<(Next, Vec<Following>)>>;

    /// Appends tokens to sequences. Returns the next-token prediction of each.
    fn advance(&mut self, tokens: &[(usize, &[u32])], want: Want) -> Result<Vec<Next>>;

    /// Starts a sequence as a copy of another.
    fn fork(&mut self, from: usize, to: usize) -> Result<()>;

    /// Removes a sequence and frees its memory.
    fn leave(&mut self, sequence: usize);

    /// Bytes of the key-value cache of a sequence of `tokens` tokens.
    fn bytes(&self, tokens: usize) -> usize;
}

/// Names the first tensor with a value that is not finite: of the base, or of the adapter.
pub(crate) fn find_non_finite_tensor(
    weights: Option<&Weights>,
    family: &Family,
    adapter: Option<&DeviceAdapter>,
) -> Result<Option<String>> {
    if let Some(tensor) = weights.and_then(|weights| weights.find_non_finite(family)) {
        return Ok(Some(format!("the model's tensor {tensor}")));
    }
    let Some(DeviceAdapter { layout, parameters }) = adapter else {
        return Ok(None);
    };
    let found = layout.find_non_finite(&parameters.read()?);
    Ok(found.map(|tensor| format!("the adapter's tensor {tensor}")))
}

/// Bytes of the base weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// Memory-mapped and used in place.
    pub mapped: usize,
    /// Converted and held in memory.
    pub owned: usize,
}

/// Bytes of saved activations per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationBytes {
    /// All activations, without the four bytes per rank of every adapted linear.
    pub kept: usize,
    /// With gradient checkpointing.
    pub recomputed: usize,
}
