//! Rows of text become token ids, token ids become packs. Read downwards: [`source`] reads files, [`rows`] finds the
//! dialect, [`template`] turns a row into text, [`tokenize`] into ids, [`truncate`] fits them, [`encode`] does these three
//! to many rows, [`dataset`] joins all of that and holds rows out, [`order`] says which rows a step takes, [`pack`] lays
//! them end to end.

pub mod source;
pub mod rows;
pub mod template;
pub mod tokenize;
pub mod truncate;
pub mod encode;
pub mod dataset;
pub mod order;
pub mod pack;

pub use dataset::{DataSpec, Dataset, Held};
pub use rows::{Dropped, Kind};
pub use template::Template;
pub use tokenize::Tokenizer;
pub use truncate::{TooLong, Truncation};

use sha2::{Digest, Sha256};

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

impl Example {
    /// Its tokens, the prompt once.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(Vec::len).sum::<usize>()
    }
}

/// SHA-256 in hexadecimal, as `sha256sum` prints it.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first eight bytes of a text's SHA-256: the same number on every machine and in every version.
fn hash64(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}
