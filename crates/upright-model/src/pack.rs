//! Packs: several rows of text laid end to end, never padded, where rows that share a prompt share its tokens.
//!
//! A pack is a forest of spans. A token attends to itself, to the tokens before it in its span, and
//! to every token of the span's ancestors; its position (for rotary embedding and sliding windows)
//! counts along that path. A preference pair is a tree of three spans: the prompt, and two
//! responses whose parent is the prompt.

mod shared;

/// Minimum common prefix of prompts, in tokens, that is worth sharing: a separate span has a cost, too.
pub const SHARED: usize = 16;

/// A run of consecutive tokens of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Row of the span's first token.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// Index of the span that this span continues, smaller than its own index; `None` for a root.
    pub parent: Option<usize>,
}

/// A log-probability to compute: that of `token` following the pack's row `row`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row of the pack whose hidden state predicts the token.
    pub row: usize,
    /// The predicted token.
    pub token: u32,
}

/// Tokens of several rows, with their tree of spans and their targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pack {
    /// Token ids, length T; spans lie end to end over it.
    pub tokens: Vec<u32>,
    /// Spans in order of `start`.
    pub spans: Vec<Span>,
    /// Log-probabilities to compute, in the order in which they are returned. Two targets may share
    /// a row.
    pub targets: Vec<Target>,
}

impl Pack {
    /// Adds one root span and returns its index.
    pub fn root(&mut self, tokens: &[u32]) -> usize {
        self.span(tokens, None)
    }

    /// Adds a span that continues `parent` and returns its index.
    pub fn child(&mut self, parent: usize, tokens: &[u32]) -> usize {
        self.span(tokens, Some(parent))
    }

    fn span(&mut self, tokens: &[u32], parent: Option<usize>) -> usize {
        assert!(!tokens.is_empty(), "a span has at least one token");
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span {
            start,
            len: tokens.len(),
            parent,
        });
        self.spans.len() - 1
    }

    /// Adds a prompt and its responses as one tree, with a target for every response token in order. The last token of a
    /// response is a target only: nothing is predicted from it, so it takes no row.
    ///
    /// # Panics
    /// If the prompt is empty: its last token predicts the first of every response.
    pub fn tree(&mut self, prompt: &[u32], responses: &[&[u32]]) {
        let root = self.root(prompt);
        let last_of_prompt = self.tokens.len() - 1;
        for response in responses {
            let mut row = last_of_prompt;
            let inputs = &response[..response.len().saturating_sub(1)];
            let own = self.tokens.len()..;
            if !inputs.is_empty() {
                self.child(root, inputs);
            }
            for (&token, next) in response.iter().zip(own) {
                self.targets.push(Target { row, token });
                row = next;
            }
        }
    }

    /// Stores common prefixes of roots once: a system prompt of many rows, or a prompt of several
    /// pairs. Every target keeps its index and the bits of its log-probability. Prefixes of fewer
    /// than `least` tokens are not shared; without longer ones the pack stays the same.
    #[must_use]
    pub fn with_shared_beginnings(self, least: usize) -> Self {
        shared::share(self, least)
    }

    /// Position of the first token of every span along its path from the root.
    pub fn offsets(&self) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            offsets.push(span.parent.map_or(0, |p| offsets[p] + self.spans[p].len));
        }
        offsets
    }

    /// Rows that have targets, ascending.
    pub fn scored_rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = self.targets.iter().map(|target| target.row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Position of every token along its path, length T.
    pub fn positions(&self) -> Vec<usize> {
        let offsets = self.offsets();
        self.spans
            .iter()
            .zip(offsets)
            .flat_map(|(span, offset)| offset..offset + span.len)
            .collect()
    }
}
