//! What a device owes the decoder. The trait is private: devices are part of this crate, and callers see one
//! [`Decoder`](crate::Decoder).

use upright_model::pack::Pack;

use crate::{
    adapter::DeviceAdapter,
    next::{Next, Want},
    scores::{Scores, Slopes},
    sum::Sum,
    usage::Usage,
    vector::Vector,
};

/// Why a forward pass keeps its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A backward pass follows.
    Train,
    /// A backward pass may follow: work that only it needs is deferred where memory allows.
    Probe,
}

/// A decoder on one device. Packs have been checked against the vocabulary before they get here.
pub(crate) trait Backend {
    /// What a backward pass needs of its forward pass.
    type Activations;

    /// Sequences being continued.
    type Sequences<'a>: Sequences
    where
        Self: 'a;

    /// Log-probabilities of a pack's targets under the base with an adapter, or under the base alone.
    fn score(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Scores;

    /// The same log-probabilities, to the bit, and the activations for [`Backend::backward`].
    fn forward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        purpose: Purpose,
    ) -> (Scores, Self::Activations);

    /// Writes the adapter's gradient of this pack alone. Slopes are finite, one per target.
    fn backward(
        &self,
        pack: &Pack,
        adapter: &DeviceAdapter,
        activations: Self::Activations,
        slopes: &Slopes,
        gradient: &mut Vector,
    );

    /// No sequence yet.
    fn sequences<'a>(&'a self, adapter: Option<&'a DeviceAdapter>) -> Self::Sequences<'a>;

    /// Values on this device.
    fn vector(&self, values: Vec<f32>) -> Vector;

    /// A sum of so many values on this device, in units of two to the power of `exponent`.
    fn sum(&self, len: usize, exponent: i32) -> Sum;

    /// Names the first place where a pass over the pack leaves the finite range: a tensor of the base, or a block's output.
    fn find_non_finite(&self, pack: &Pack, adapter: Option<&DeviceAdapter>) -> Option<String>;

    /// Names everything that decides the bits of a result.
    fn arithmetic(&self) -> String;

    /// Memory, busy time and arithmetic so far.
    fn usage(&self) -> Usage;

    /// Bytes of the base's weights: mapped from files, and held besides.
    fn weight_bytes(&self) -> WeightBytes;

    /// Bytes of activations per token of a pack, kept and with recompute, for an adapter whose lowest layer is given.
    fn bytes_per_token(&self, lowest_layer: usize) -> ActivationBytes;
}

/// Sequences that one device continues, each with its keys and values. Numbers of sequences are given by the caller, and
/// each is in a call at most once.
pub(crate) trait Sequences {
    /// Starts sequences; returns what follows each.
    fn join(&mut self, prompts: &[(usize, &[u32])], want: Want) -> Vec<Next>;

    /// Appends tokens to sequences; returns what follows each.
    fn advance(&mut self, tokens: &[(usize, &[u32])], want: Want) -> Vec<Next>;

    /// Starts a sequence as a copy of another.
    fn fork(&mut self, from: usize, to: usize);

    /// Forgets a sequence and frees its memory.
    fn leave(&mut self, sequence: usize);

    /// Bytes of the keys and values of a sequence of so many tokens.
    fn bytes(&self, tokens: usize) -> usize;
}

/// Bytes of the base's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// Used where their file is mapped.
    pub mapped: usize,
    /// Converted, and held besides.
    pub owned: usize,
}

/// Bytes that a forward pass keeps for its backward pass, per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationBytes {
    /// All activations; four bytes per rank of every adapted linear come on top.
    pub kept: usize,
    /// With gradient checkpointing.
    pub recomputed: usize,
}
