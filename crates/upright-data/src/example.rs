//! Rows as token ids, with their loss masks.

use std::ops::Range;

/// A row as the learner sees it: token ids of a prompt and of its one (SFT) or two (chosen, rejected) responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Zero-based index of the row in its file, before anything was dropped.
    pub row: usize,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// The responses, each with at least one token in the loss.
    pub responses: Vec<Response>,
}

/// Token ids of a response, and its loss mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The tokens, with EOS at the end unless the response is truncated.
    pub tokens: Vec<u32>,
    /// Ranges of `tokens` that are masked, ascending: what others say between the model's turns of
    /// a conversation.
    pub masked: Vec<Range<usize>>,
}

impl Example {
    /// Number of tokens, with the prompt counted once.
    pub fn tokens(&self) -> usize {
        let responses = self.responses.iter();
        let tokens: usize = responses.map(|response| response.tokens.len()).sum();
        self.prompt.len() + tokens
    }

    /// Number of tokens in the loss, over all responses.
    pub fn loss_tokens(&self) -> usize {
        self.responses.iter().map(Response::loss_tokens).sum()
    }
}

impl Response {
    /// Number of tokens in the loss.
    pub fn loss_tokens(&self) -> usize {
        self.tokens.len() - self.masked.iter().map(Range::len).sum::<usize>()
    }

    /// Keeps at most the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.masked.retain(|range| range.start < length);
        if let Some(last) = self.masked.last_mut() {
            last.end = last.end.min(length);
        }
    }

    /// Removes masked tokens from the end: no token in the loss follows them.
    pub fn drop_masked_end(&mut self) {
        while let Some(last) = self.masked.pop_if(|last| last.end >= self.tokens.len()) {
            self.tokens.truncate(last.start);
        }
    }
}

/// A response without masked tokens.
impl From<Vec<u32>> for Response {
    fn from(tokens: Vec<u32>) -> Self {
        Self {
            tokens,
            masked: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_response_keeps_the_mask_of_what_is_left() {
        let whole = Response {
            tokens: (0..10).collect(),
            masked: vec![2..4, 6..9],
        };
        let expected = [
            (10, vec![2..4, 6..9], 10),
            (9, vec![2..4, 6..9], 6),
            (7, vec![2..4, 6..7], 6),
            (6, vec![2..4], 6),
            (4, vec![2..4], 2),
            (3, vec![2..3], 2),
            (2, vec![], 2),
            (0, vec![], 0),
        ];
        for (length, masked, without_end) in expected {
            let mut response = whole.clone();
            response.truncate(length);
            assert_eq!(response.tokens, whole.tokens[..length]);
            assert_eq!(response.masked, masked);
            let in_loss = response.loss_tokens();
            response.drop_masked_end();
            assert_eq!(response.tokens, whole.tokens[..without_end]);
            assert_eq!(response.loss_tokens(), in_loss);
        }
    }

    #[test]
    fn nothing_is_left_of_a_response_that_is_all_masked() {
        let mut response = Response {
            tokens: vec![1, 2, 3],
            masked: vec![0..1, 1..3],
        };
        assert_eq!(response.loss_tokens(), 0);
        response.drop_masked_end();
        assert_eq!(response, Response::default());
    }
}
