//! Rows of text become token ids. Each module uses those above it in this table.
//!
//! | module | purpose |
//! |---|---|
//! | [`source`] | files: JSON, JSON Lines, Parquet, gzip |
//! | [`conversation`] | messages, prompts and rows |
//! | [`dialects`] | what the columns of a row mean |
//! | [`rows`] | the rows of a file, in their dialect |
//! | [`tokenize`] | the model's tokenizer and its special tokens |
//! | `human_assistant` | HH-RLHF's texts as conversations |
//! | [`template`] | a conversation as text: chat templates in Jinja, and built-in ones |
//! | `example` | a row as token ids, with its loss mask |
//! | [`truncate`] | truncates a row to the maximum length |
//! | [`encode`] | many rows to token ids, on all threads |
//! | [`data_file`], `split` | which files belong together, and which rows are held out |
//! | [`dataset`] | all of the above: an objective's rows, ready for training |
//! | [`order`] | which rows a step takes |
//! | [`prompts`] | prompts to generate responses for |
//! | [`mmlu`] | the questions of MMLU and their prompts |
//!
//! ```
//! use upright_data::{RowKind, rows, source};
//!
//! let text = br#"{"instruction": "Name a river.", "output": "The Nile."}"#;
//! let raw = source::parse("rows.jsonl".as_ref(), text)?;
//! let read = rows::read("rows.jsonl".as_ref(), &raw, RowKind::Instruction)?;
//! assert_eq!(read.dialect, "alpaca");
//! # Ok::<(), upright_base::Error>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod conversation;
pub mod data_file;
pub mod dataset;
pub mod dialects;
pub mod encode;
mod example;
mod human_assistant;
pub mod mmlu;
pub mod one_or_many;
pub mod order;
pub mod prompts;
pub mod rows;
pub mod source;
mod split;
pub mod template;
pub mod tokenize;
pub mod truncate;

pub use data_file::DataFile;
pub use dataset::{DataSpec, Dataset, HeldOut, bos_note, prefix_space_note};
pub use example::{Example, Response};
pub use rows::{ColumnMap, Dropped, RowKind};
pub use template::{Template, TemplateName, Turns};
pub use tokenize::Tokenizer;
pub use truncate::{TooLong, Truncation};

use sha2::{Digest, Sha256};

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
