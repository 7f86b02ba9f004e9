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

    /// Takes the text up to `end`, if it reaches beyond what was taken.
    fn take_to(&mut self, end: usize) -> String {
        let start = self.taken;
        self.taken = end.max(start);
        self.text[start..self.taken].to_owned()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The demo's tokenizer, which has a token for every byte.
    fn tokenizer() -> Tokenizer {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright/demo/model");
        Tokenizer::open(&model, None, None).unwrap()
    }

    #[test]
    fn tokens_of_a_character_share_its_offset() {
        let tokenizer = tokenizer();
        let text = "Größe, naïve, 東京 🙂: Quinn";
        let ids = tokenizer.verbatim(text).unwrap();
        let mut offsets = Offsets::new(&tokenizer);
        let mut decoding = Decoding::new(&tokenizer);
        let mut told = String::new();
        let mut within = 0;
        for id in &ids {
            let offset = offsets.push(*id).unwrap();
            let rest: String = text.chars().skip(offset).collect();
            let own = tokenizer.decode(&[*id]).unwrap();
            if own.contains(UNFINISHED) {
                within += 1;
            } else {
                assert!(rest.starts_with(&own), "{own:?} at {offset}");
            }
            told += &decoding.push(*id).unwrap();
        }
        assert!(within > 0, "no character of several tokens");
        assert_eq!(told, text);
        assert_eq!(decoding.rest().unwrap(), "");
    }

    /// An answer that ends within a character shows the character's remains, once.
    #[test]
    fn an_unfinished_character_is_told_at_the_end() {
        let tokenizer = tokenizer();
        let ids = tokenizer.verbatim("a東").unwrap();
        let mut answer = AnswerText::new(&tokenizer, &[]);
        for id in &ids[..ids.len() - 1] {
            answer.push(*id).unwrap();
        }
        assert_eq!(answer.take_certain(), "a");
        answer.finish().unwrap();
        assert_eq!(
            answer.whole(),
            tokenizer.decode(&ids[..ids.len() - 1]).unwrap()
        );
        assert!(answer.take_rest().starts_with(UNFINISHED));
        assert_eq!(answer.take_rest(), "");
    }

    /// No piece shows the beginning of a stop text, and the answer ends before it.
    #[test]
    fn a_stop_text_is_found_across_tokens() {
        let tokenizer = tokenizer();
        let stop = ["never".to_owned(), " lives with a p".to_owned()];
        let ids = tokenizer.verbatim("Ada lives lives with a parrot").unwrap();
        let mut answer = AnswerText::new(&tokenizer, &stop);
        let mut told = String::new();
        let mut is_stopped = false;
        for id in ids {
            is_stopped = answer.push(id).unwrap();
            told += &answer.take_certain();
            assert!("Ada lives".starts_with(&told), "{told:?}");
            if is_stopped {
                break;
            }
        }
        assert!(is_stopped);
        answer.finish().unwrap();
        told += &answer.take_rest();
        assert_eq!(told, "Ada lives");
        assert_eq!(answer.whole(), "Ada lives");
    }
}
