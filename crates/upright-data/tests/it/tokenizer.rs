//! A small tokenizer that fits the tiny models of the tests.

use serde_json::{Map, Value, json};

/// Every character of ASCII text is a token.
pub(crate) fn tokenizer() -> Value {
    let names = ["<unk>", "<s>", "</s>", "\n"]
        .map(str::to_owned)
        .into_iter()
        .chain((' '..='~').map(String::from));
    let vocab: Map<String, Value> = names
        .enumerate()
        .map(|(id, name)| (name, json!(id)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []
        }
    })
}
