//! The text of an answer while its tokens arrive: stop texts, and how much of the text is certain.

use upright_base::Result;
use upright_data::Tokenizer;

/// Replacement character: the tokens so far end within a character.
const UNFINISHED: char = '\u{FFFD}';

/// The text of an answer so far.
pub(crate) struct AnswerText<'a> {
    tokenizer: &'a Tokenizer,
    stop: &'a [String],
    tokens: Vec<u32>,
    text: String,
    /// Bytes of `text` that were taken.
    taken: usize,
    is_stopped: bool,
}

impl<'a> AnswerText<'a> {
    /// An answer without tokens.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stop: &'a [String]) -> Self {
        Self {
            tokenizer,
            stop,
            tokens: Vec::new(),
            text: String::new(),
            taken: 0,
            is_stopped: false,
        }
    }

    /// Adds a token. Returns whether the text now has a stop text, before which it ends.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool> {
        self.tokens.push(token);
        self.text = self.tokenizer.decode(&self.tokens)?;
        let first = self
            .stop
            .iter()
            .filter_map(|stop| self.text.find(stop))
            .min();
        if let Some(end) = first {
            self.text.truncate(end);
            self.is_stopped = true;
        }
        Ok(self.is_stopped)
    }

    /// The tokens so far.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The whole text.
    pub(crate) fn whole(&self) -> &str {
        &self.text
    }

    /// Takes the text that later tokens cannot change: up to an unfinished character, and to where a
    /// stop text may have begun.
    pub(crate) fn take_certain(&mut self) -> String {
        let mut end = self.text.trim_end_matches(UNFINISHED).len();
        if !self.is_stopped {
            end = end.min(self.text.len() - self.possible_stop());
        }
        self.take_to(end)
    }

    /// Takes the rest of the text.
    pub(crate) fn take_rest(&mut self) -> String {
        self.take_to(self.text.len())
    }

    fn take_to(&mut self, end: usize) -> String {
        // A decoder may change earlier text; what was taken stays as it is.
        let start = self.taken.min(self.text.len());
        if end <= start || !self.text.is_char_boundary(start) {
            return String::new();
        }
        self.taken = end;
        self.text[start..end].to_owned()
    }

    /// Bytes at the end of the text that may begin a stop text.
    fn possible_stop(&self) -> usize {
        let mut longest = 0;
        for stop in self.stop {
            for (length, _) in stop.char_indices().skip(1) {
                if self.text.ends_with(&stop[..length]) {
                    longest = longest.max(length);
                }
            }
        }
        longest
    }
}
