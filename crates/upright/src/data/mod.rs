//! Rows of text become token ids, token ids become packs. Read downwards: [`source`] reads files, [`rows`] finds the
//! dialect, [`tokenize`] knows the model's tokens, [`template`] turns a row into text, [`truncate`] fits its ids,
//! [`encode`] does these three to many rows, [`data_file`] says which files belong together, `split` holds rows out,
//! [`dataset`] joins all of that, [`order`] says which rows a step takes, [`pack`] lays them end to end.

pub mod source;
pub mod rows;
pub mod prompts;
pub mod tokenize;
pub mod template;
pub mod truncate;
mod split;
pub mod encode;
pub mod data_file;
pub mod dataset;
pub mod order;
pub mod pack;

pub use data_file::DataFile;
pub use dataset::{DataSpec, Dataset, Held, bos_note, prefix_space_note};
pub use rows::{ColumnMap, Dropped, Kind};
pub use template::{Template, TemplateName, Turns};
pub use tokenize::Tokenizer;
pub use truncate::{TooLong, Truncation};

use std::ops::Range;

use sha2::{Digest, Sha256};

/// A row as the learner sees it: token ids of a prompt and of its one (SFT) or two (chosen, rejected) responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Zero-based index of the row in its file, before anything was dropped.
    pub row: usize,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// The responses, each at least one token, EOS included where the response is whole.
    pub responses: Vec<Vec<u32>>,
    /// For each response the stretches of it that are read and not scored, ascending: what others say between the turns
    /// of a conversation. Responses beyond the end of this list are scored throughout.
    pub read: Vec<Vec<Range<usize>>>,
}

impl Example {
    /// Its tokens, the prompt once.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(Vec::len).sum::<usize>()
    }

    /// The stretches of a response that are read and not scored.
    pub fn read_of(&self, response: usize) -> &[Range<usize>] {
        self.read.get(response).map_or(&[], Vec::as_slice)
    }

    /// How many tokens of a response are scored.
    pub fn scored(&self, response: usize) -> usize {
        self.responses[response].len()
            - self.read_of(response).iter().map(Range::len).sum::<usize>()
    }

    /// Takes away what is read at the end of a response that was cut: nothing follows it that is scored.
    fn clip(&mut self) {
        for (response, read) in self.responses.iter_mut().zip(&mut self.read) {
            while let Some(last) = read.last_mut() {
                last.end = last.end.min(response.len());
                if last.start < last.end && last.end < response.len() {
                    break;
                }
                if last.start < last.end {
                    response.truncate(last.start);
                }
                read.pop();
            }
        }
    }
}

/// SHA-256 in hexadecimal, as `sha256sum` prints it.
fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The first eight bytes of a text's SHA-256: the same number on every machine and in every version.
fn hash64(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}
