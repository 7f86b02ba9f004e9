//! Token-by-token generation: sequences join, are continued from their key-value caches, and leave.

use std::collections::BTreeMap;

use upright_base::{Error, Result};
use upright_model::pack::Pack;

pub use crate::next::{Candidate, Next, Want};
use crate::{backend::Sequences, cpu::generation::CpuSequences, scores::check_tokens};

/// A sequence of a [`Generation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(usize);

/// The sequences on a device.
pub(crate) enum Running<'a> {
    Cpu(CpuSequences<'a>),
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

    fn sequences(&mut self) -> &mut CpuSequences<'a> {
        let Running::Cpu(sequences) = &mut self.running;
        sequences
    }

    fn bytes_of(&self, tokens: usize) -> usize {
        let Running::Cpu(sequences) = &self.running;
        sequences.bytes(tokens)
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
    /// A token is outside the vocabulary, or the key-value caches exceed the limit. No sequence has
    /// joined then.
    ///
    /// # Panics
    /// If a prompt is empty.
    pub fn join(&mut self, prompts: &[&[u32]], want: Want) -> Result<Vec<(SequenceId, Next)>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        self.check_tokens(prompts)?;
        self.check_memory(
            prompts
                .iter()
                .map(|prompt| self.bytes_of(prompt.len()))
                .sum(),
        )?;
        let mut named = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            named.push((self.joined, *prompt));
            self.joined += 1;
        }
        let next = self.sequences().join(&named, want);
        let mut joined = Vec::with_capacity(prompts.len());
        for ((id, prompt), next) in named.into_iter().zip(next) {
            self.lengths.insert(SequenceId(id), prompt.len());
            joined.push((SequenceId(id), next));
        }
        Ok(joined)
    }

    /// Starts a sequence as a copy of another, which stays: for a prefix that several sequences
    /// share.
    ///
    /// # Errors
    /// The key-value caches exceed the limit.
    ///
    /// # Panics
    /// If the sequence has left.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        let length = self.lengths[&sequence];
        self.check_memory(self.bytes_of(length))?;
        let id = self.joined;
        self.joined += 1;
        self.sequences().fork(sequence.0, id);
        self.lengths.insert(SequenceId(id), length);
        Ok(SequenceId(id))
    }

    /// Appends tokens, at least one each, to some of the sequences, each named at most once.
    /// Returns the next-token prediction of each.
    ///
    /// # Errors
    /// A token is outside the vocabulary, or the key-value caches exceed the limit. No sequence has
    /// grown then.
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
        let next = self.sequences().advance(&named, want);
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
