//! The text of an answer while its tokens arrive: stop texts, and how much of the text is certain.

use upright_base::Result;
use upright_data::Tokenizer;

/// Replacement character: the tokens so far end within a character.
const UNFINISHED: char = '\u{FFFD}';

/// Most tokens of one character: four bytes, one token each. Text that really has the replacement
/// character is not held back longer.
const LONGEST: usize = 4;

/// Decodes tokens one by one. A token that ends within a character has no text until the character
/// is complete.
///
/// A token is decoded together with the tokens of the text before it, because some tokenizers drop the
/// space at the start of a text.
pub(crate) struct Decoding<'a> {
    tokenizer: &'a Tokenizer,
    /// The tokens of the last text, then those that have no text yet.
    tokens: Vec<u32>,
    /// Tokens of the last text.
    told: usize,
    /// The last text, decoded on its own.
    last: String,
}

impl<'a> Decoding<'a> {
    /// No tokens yet.
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            tokens: Vec::new(),
            told: 0,
            last: String::new(),
        }
    }

    /// Adds a token. Returns the new text; it is empty within a character.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub(crate) fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens)?;
        let open = self.tokens.len() - self.told;
        if text.ends_with(UNFINISHED) && open < LONGEST {
            return Ok(String::new());
        }
        let new = text.get(self.last.len()..).unwrap_or_default().to_owned();
        self.tokens.drain(..self.told);
        self.told = self.tokens.len();
        self.last = self.tokenizer.decode(&self.tokens)?;
        Ok(new)
    }

    /// The text of tokens that end within a character.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub(crate) fn rest(&self) -> Result<String> {
        if self.tokens.len() == self.told {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.tokens)?;
        Ok(text.get(self.last.len()..).unwrap_or_default().to_owned())
    }
}

/// Where the text of every token begins, in characters. The tokens of one character begin where the
/// character does.
pub(crate) struct Offsets<'a> {
    decoding: Decoding<'a>,
    characters: usize,
}

impl<'a> Offsets<'a> {
    /// Offsets from 0.
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            decoding: Decoding::new(tokenizer),
            characters: 0,
        }
    }

    /// The offset of the next token.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub(crate) fn push(&mut self, token: u32) -> Result<usize> {
        let offset = self.characters;
        self.characters += self.decoding.push(token)?.chars().count();
        Ok(offset)
    }
}

/// The text of an answer so far.
pub(crate) struct AnswerText<'a> {
    decoding: Decoding<'a>,
    stop: &'a [String],
    tokens: Vec<u32>,
    /// The text of all complete characters.
    text: String,
    /// Bytes of `text` that were taken.
    taken: usize,
    is_stopped: bool,
}

impl<'a> AnswerText<'a> {
    /// An answer without tokens.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stop: &'a [String]) -> Self {
        Self {
            decoding: Decoding::new(tokenizer),
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
        // A stop text may have begun in the text before.
        let from = self.text.len() - self.possible_stop();
        self.text += &self.decoding.push(token)?;
        let found = self
            .stop
            .iter()
            .filter_map(|stop| self.text[from..].find(stop));
        if let Some(end) = found.min() {
            self.text.truncate(from + end);
            self.is_stopped = true;
        }
        Ok(self.is_stopped)
    }

    /// Ends the answer: an unfinished character at its end becomes text.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if !self.is_stopped {
            self.text += &self.decoding.rest()?;
        }
        Ok(())
    }

    /// The tokens so far.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The whole text.
    pub(crate) fn whole(&self) -> &str {
        &self.text
    }

    /// Takes the text that later tokens cannot change: up to where a stop text may have begun.
    pub(crate) fn take_certain(&mut self) -> String {
        self.take_to(self.text.len() - self.possible_stop())
    }

    /// Takes the rest of the text.
    pub(crate) fn take_rest(&mut self) -> String {
        self.take_to(self.text.len())
    }

    fn take_to(&mut self, end: usize) -> String {
        let start = self.taken.min(end);
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
