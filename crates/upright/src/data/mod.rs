//! Rows of text become token ids, token ids become packs.

/// A row as the learner sees it: token ids of a prompt and of its one (SFT) or two (chosen, rejected) responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Zero-based index of the row in its file, before anything was dropped.
    pub row: usize,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// The responses, each at least one token, EOS included where the response is whole.
    pub responses: Vec<Vec<u32>>,
}
