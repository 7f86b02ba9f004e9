//! Token-by-token generation: sequences join, are continued from their key-value caches, and leave.

use std::collections::BTreeMap;

use upright_base::{Error, Result};
use upright_model::pack::Pack;

pub use crate::next::{Candidate, Following, Next, Want};
use crate::{
    backend::Sequences, cpu::generation::CpuSequences, gpu::generation::DeviceSequences,
    prefill::NewPrompt, scores::check_tokens,
};

/// A sequence of a [`Generation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(usize);

/// A prompt for [`Generation::read`].
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'t> {
    /// Its tokens, at least one.
    pub tokens: &'t [u32],
    /// A sequence that begins as the prompt does, and the number of tokens that are not computed
    /// again, fewer than the prompt has.
    pub after: Option<(SequenceId, usize)>,
    /// Whether the prompt becomes a sequence.
    pub keep: bool,
}

/// What a pass over a prompt gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The new sequence, if the prompt is kept.
    pub sequence: Option<SequenceId>,
    /// The prediction of the token after the prompt.
    pub next: Next,
    /// What follows each computed token of the prompt but the last, if it was requested. The first
    /// entry belongs to the token at [`Prompt::after`], or to the first token.
    pub following: Vec<Following>,
}

/// The sequences on a device.
pub(crate) enum Running<'a> {
    Cpu(CpuSequences<'a>),
    Device(DeviceSequences<'a>),
}

/// Several sequences in generation. The bits of a sequence do not depend on the other sequences.
pub struct Generation<'a> {
    vocab: usize,
    running: Running<'a>,
    /// Tokens of every sequence.
    lengths: BTreeMap<SequenceId, usize>,
    joined: usize,
    limit: usize,
}

impl std::fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("lengths", &self.lengths)
            .finish_non_exhaustive()
    }
}

impl<'a> Generation<'a> {
    pub(crate) fn new(vocab: usize, running: Running<'a>, limit: usize) -> Self {
        Self {
            vocab,
            running,
            lengths: BTreeMap::new(),
            joined: 0,
            limit,
        }
    }

    fn sequences(&mut self) -> &mut dyn Sequences {
        match &mut self.running {
            Running::Cpu(sequences) => sequences,
            Running::Device(sequences) => sequences,
        }
    }

    /// Bytes of the key-value cache of a sequence of `tokens` tokens.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        match &self.running {
            Running::Cpu(sequences) => sequences.bytes(tokens),
            Running::Device(sequences) => sequences.bytes(tokens),
        }
    }

    /// Bytes of all key-value caches.
    pub fn bytes(&self) -> usize {
        self.lengths
            .values()
            .map(|length| self.bytes_of(*length))
            .sum()
    }

    /// Whether new sequences with these numbers of tokens fit beside the present ones, if every
    /// sequence grows by `reserved` tokens.
    pub fn fits(&self, tokens: &[usize], reserved: usize) -> bool {
        let mut bytes = 0;
        for length in self.lengths.values().chain(tokens) {
            bytes += self.bytes_of(length + reserved);
        }
        bytes <= self.limit
    }

    /// Tokens of a sequence so far; `None` if the sequence has left.
    pub fn length(&self, sequence: SequenceId) -> Option<usize> {
        self.lengths.get(&sequence).copied()
    }

    /// Returns an error if growth by `more` bytes exceeds the limit.
    fn check_memory(&self, more: usize) -> Result<()> {
        let needed = self.bytes().saturating_add(more);
        if needed <= self.limit {
            return Ok(());
        }
        let megabytes = |bytes: usize| bytes.div_ceil(1 << 20);
        Err(Error::input(format!(
            "the key-value cache (sequences so far: {}) would need {} MB, and the limit is {} MB",
            self.lengths.len(),
            megabytes(needed),
            megabytes(self.limit)
        ))
        .hint("generate fewer or shorter sequences at once"))
    }

    /// Starts sequences from their prompts, at least one token each. Returns the next-token
    /// prediction of each.
    ///
    /// # Errors
    /// As for [`Generation::read`].
    ///
    /// # Panics
    /// If a prompt is empty.
    pub fn join(&mut self, prompts: &[&[u32]], want: Want) -> Result<Vec<(SequenceId, Next)>> {
        let mut kept = Vec::with_capacity(prompts.len());
        for tokens in prompts {
            kept.push(Prompt {
                tokens,
                after: None,
                keep: true,
            });
        }
        let mut joined = Vec::with_capacity(prompts.len());
        for reading in self.read(&kept, None, want)? {
            let sequence = reading.sequence.expect("the prompt is kept");
            joined.push((sequence, reading.next));
        }
        Ok(joined)
    }

    /// Runs one pass over prompts. With `best`, the pass also gives the log-probability of every
    /// token, with that many candidates per position. No bit depends on the other prompts, nor on
    /// how much of a prompt is known from an earlier sequence. The tokens of such a sequence that
    /// are reused must come from `read` or `join`: tokens that [`Generation::advance`] appended have
    /// keys and values with other bits.
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the key-value caches exceed the limit; no sequence has
    /// joined then. Or the device failed.
    ///
    /// # Panics
    /// If a prompt is empty or wholly known, or the sequence that it follows has left or is shorter.
    pub fn read(
        &mut self,
        prompts: &[Prompt<'_>],
        best: Option<usize>,
        want: Want,
    ) -> Result<Vec<Reading>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Vec::with_capacity(prompts.len());
        let mut bytes = 0;
        for prompt in prompts {
            all.push(prompt.tokens);
            if prompt.keep {
                bytes += self.bytes_of(prompt.tokens.len());
            }
            if let Some((sequence, tokens)) = prompt.after {
                assert!(tokens <= self.lengths[&sequence], "the sequence is shorter");
            }
        }
        self.check_tokens(&all)?;
        self.check_memory(bytes)?;
        let mut numbered = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut keep = None;
            if prompt.keep {
                keep = Some(self.joined);
                self.joined += 1;
            }
            numbered.push(NewPrompt {
                tokens: prompt.tokens,
                after: prompt.after.map(|(sequence, tokens)| (sequence.0, tokens)),
                keep,
            });
        }
        let read = self.sequences().read(&numbered, best, want)?;
        let mut readings = Vec::with_capacity(prompts.len());
        for (prompt, (next, following)) in numbered.iter().zip(read) {
            let sequence = prompt.keep.map(SequenceId);
            if let Some(sequence) = sequence {
                self.lengths.insert(sequence, prompt.tokens.len());
            }
            readings.push(Reading {
                sequence,
                next,
                following,
            });
        }
        Ok(readings)
    }

    /// Starts a sequence as a copy of another, which stays: for a prefix that several sequences
    /// share.
    ///
    /// # Errors
    /// The key-value caches exceed the limit, or the device failed.
    ///
    /// # Panics
    /// If the sequence has left.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        let length = self.lengths[&sequence];
        self.check_memory(self.bytes_of(length))?;
        let id = self.joined;
        self.joined += 1;
        self.sequences().fork(sequence.0, id)?;
        self.lengths.insert(SequenceId(id), length);
        Ok(SequenceId(id))
    }

    /// Appends tokens, at least one each, to some of the sequences, each named at most once.
    /// Returns the next-token prediction of each.
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the key-value caches exceed the limit; no sequence has
    /// grown then. Or the device failed.
    ///
    /// # Panics
    /// If a sequence has left, is named twice, or gets no token.
    pub fn advance(&mut self, tokens: &[(SequenceId, &[u32])], want: Want) -> Result<Vec<Next>> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let added: Vec<&[u32]> = tokens.iter().map(|(_, tokens)| *tokens).collect();
        self.check_tokens(&added)?;
        let mut more = 0;
        for (sequence, tokens) in tokens {
            let length = self.lengths[sequence];
            more += self.bytes_of(length + tokens.len()) - self.bytes_of(length);
        }
        self.check_memory(more)?;
        let named: Vec<(usize, &[u32])> = tokens
            .iter()
            .map(|(sequence, tokens)| (sequence.0, *tokens))
            .collect();
        let next = self.sequences().advance(&named, want)?;
        for (sequence, tokens) in tokens {
            *self.lengths.get_mut(sequence).expect("looked up above") += tokens.len();
        }
        Ok(next)
    }

    /// Ends a sequence and frees its memory.
    pub fn leave(&mut self, sequence: SequenceId) {
        if self.lengths.remove(&sequence).is_some() {
            self.sequences().leave(sequence.0);
        }
    }

    fn check_tokens(&self, sequences: &[&[u32]]) -> Result<()> {
        let mut pack = Pack::default();
        for tokens in sequences {
            assert!(!tokens.is_empty(), "at least one token per sequence");
            pack.root(tokens);
        }
        check_tokens(&pack, self.vocab)
    }
}
