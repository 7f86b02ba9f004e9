//! Texts to ids and back: tokenizers with one token per byte, and the files next to them.

use proptest::prelude::*;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;

pub(crate) const EOS: u32 = 256;
const BOS: u32 = 257;

/// A folder whose tokenizer has one token per byte (ids in the order of the byte alphabet), EOS 256
/// and BOS 257; `edit` changes the JSON before it is written.
pub(crate) fn folder(edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let vocabulary: Map<String, Value> = alphabet
        .iter()
        .enumerate()
        .map(|(id, letter)| (letter.to_string(), json!(id)))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(EOS, "<eos>"), special(BOS, "<bos>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []},
    });
    edit(&mut file);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    configure(&dir, &json!({"eos_token": "<eos>"}));
    dir
}

pub(crate) fn configure(dir: &tempfile::TempDir, settings: &Value) {
    std::fs::write(
        dir.path().join("tokenizer_config.json"),
        settings.to_string(),
    )
    .unwrap();
}

pub(crate) fn bytewise() -> Tokenizer {
    Tokenizer::open(folder(|_| ()).path(), None, None).unwrap()
}

fn with_bos(file: &mut Value) {
    file["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]},
            "<eos>": {"id": "<eos>", "ids": [EOS], "tokens": ["<eos>"]}}});
}

fn complaint(result: Result<Tokenizer>) -> String {
    let error = result.err().unwrap();
    assert!(!error.hint.is_empty());
    error.message
}

#[test]
fn texts_become_ids_and_back() {
    let tokenizer = bytewise();
    let ids = tokenizer.prompt("Zoë: 1\n").unwrap();
    assert_eq!(ids.len(), 8);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Zoë: 1\n");
    assert_eq!(
        (tokenizer.eos(), tokenizer.bos(), tokenizer.sha256().len()),
        (EOS, [].as_slice(), 64)
    );
}

#[test]
fn bos_is_put_where_the_tokenizer_puts_it_and_once() {
    let tokenizer = Tokenizer::open(folder(with_bos).path(), None, None).unwrap();
    let plain = bytewise();
    assert_eq!(tokenizer.bos(), [BOS]);
    let ids = tokenizer.prompt("ab").unwrap();
    assert_eq!(
        ids,
        [[BOS].as_slice(), &plain.prompt("ab").unwrap()].concat(),
        "and no EOS after it"
    );
    assert_eq!(tokenizer.prompt("<bos>ab").unwrap(), ids);
    assert_eq!(tokenizer.prompt("").unwrap(), [BOS]);
    assert_eq!(
        tokenizer.response("ab").unwrap(),
        plain.response("ab").unwrap()
    );
}

#[test]
fn the_configuration_may_add_or_take_away_bos() {
    let dir = folder(with_bos);
    configure(&dir, &json!({"eos_token": "<eos>", "add_bos_token": false}));
    let open = |dir: &tempfile::TempDir| Tokenizer::open(dir.path(), None, None).unwrap();
    assert!(open(&dir).bos().is_empty() && open(&dir).contested_bos());
    configure(&dir, &json!({"eos_token": "<eos>", "add_bos_token": true}));
    assert!(open(&dir).bos() == [BOS] && !open(&dir).contested_bos());
    let dir = folder(|_| ());
    configure(
        &dir,
        &json!({"eos_token": "<eos>", "add_bos_token": true, "bos_token": {"content": "<bos>"}}),
    );
    assert!(open(&dir).bos() == [BOS] && open(&dir).contested_bos());
    configure(&dir, &json!({"eos_token": "<eos>", "add_bos_token": true}));
    assert_eq!(
        Tokenizer::open(dir.path(), None, Some(7)).unwrap().bos(),
        [7]
    );
    assert_eq!(
        Tokenizer::open(dir.path(), None, None).unwrap().bos(),
        [] as [u32; 0]
    );
}

fn listed(content: &str) -> Value {
    json!({"content": content, "special": true, "lstrip": false, "rstrip": false, "normalized": false,
        "single_word": false})
}

/// ChatML tokens that tokenizer.json does not have, as repositories with an old tokenizer.json list them.
#[test]
fn tokens_of_the_other_files_are_added_in_order_of_id() {
    let dir = folder(|_| ());
    let (start, end) = (258, 259);
    let text = "<|im_start|>a<|im_end|>";
    let plain = bytewise().prompt(text).unwrap();
    assert_eq!(plain.len(), text.len(), "a token per byte");
    let with_flags = json!({"eos_token": "<|im_end|>", "added_tokens_decoder": {
        "259": listed("<|im_end|>"), "258": listed("<|im_start|>"), "256": listed("<eos>")}});
    configure(&dir, &with_flags);
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    let [a] = bytewise().prompt("a").unwrap()[..] else {
        panic!("one token")
    };
    assert_eq!(tokenizer.prompt(text).unwrap(), [start, a, end]);
    assert_eq!(tokenizer.eos(), end);
    assert_eq!(tokenizer.decode(&[start, a, end]).unwrap(), text);
    assert_ne!(tokenizer.sha256(), bytewise().sha256());

    // The older list of ids.
    let by_text = json!({"<|im_end|>": end, "<|im_start|>": start});
    std::fs::write(dir.path().join("added_tokens.json"), by_text.to_string()).unwrap();
    configure(&dir, &json!({"eos_token": "<|im_end|>"}));
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!(tokenizer.prompt(text).unwrap(), [start, a, end]);
    assert_eq!((tokenizer.eos(), tokenizer.is_added(start)), (end, true));
    // An id that tokenizer.json gives to another token stays with it.
    let stale = json!({"<stale>": EOS, "<|im_end|>": end, "<|im_start|>": start});
    std::fs::write(dir.path().join("added_tokens.json"), stale.to_string()).unwrap();
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!(tokenizer.prompt("<stale>").unwrap().len(), "<stale>".len());
    assert_eq!(tokenizer.prompt("<eos>").unwrap(), [EOS]);
}

#[test]
fn special_tokens_without_an_id_have_the_next_one() {
    let dir = folder(|_| ());
    let settings = json!({"eos_token": "<eos>", "pad_token": "[PAD]", "image_token": "<image>",
        "additional_special_tokens": ["cats", "<eos>"]});
    configure(&dir, &settings);
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!(
        tokenizer.prompt("cats[PAD]<image>").unwrap(),
        [260, 258, 259]
    );
    // The model has no embedding for them: a row that has one is an error that names it.
    let tokenizer = tokenizer.for_vocabulary(258).unwrap();
    assert!(tokenizer.prompt("dogs").is_ok());
    assert!(
        tokenizer
            .prompt("cats")
            .unwrap_err()
            .message
            .contains("id 260 (\"cats\")")
    );
}

#[test]
fn listed_ids_that_do_not_come_out_are_refused() {
    let dir = folder(|_| ());
    for (file, settings) in [
        (
            "tokenizer_config.json",
            json!({"eos_token": "<eos>", "added_tokens_decoder": {"300": listed("<new>")}}),
        ),
        (
            "tokenizer_config.json",
            json!({"eos_token": "<eos>", "added_tokens_decoder": {"258": listed("<eos>")}}),
        ),
        ("added_tokens.json", json!({"<new>": 300})),
    ] {
        std::fs::write(dir.path().join(file), settings.to_string()).unwrap();
        let complaint = complaint(Tokenizer::open(dir.path(), None, None));
        assert!(
            complaint.contains(&format!("{file}: lists the token `<")),
            "{complaint}"
        );
        assert!(complaint.contains("its id is 25"), "{complaint}");
        configure(&dir, &json!({"eos_token": "<eos>"}));
    }
    for (settings, what) in [
        (
            json!({"added_tokens_decoder": {"x": listed("<new>")}}),
            "`x` is not an id",
        ),
        (
            json!({"added_tokens_decoder": {"258": {"special": true}}}),
            "the token 258 has no text",
        ),
        (json!({"added_tokens_decoder": []}), "is not an object"),
    ] {
        configure(&dir, &settings);
        let complaint = complaint(Tokenizer::open(dir.path(), None, None));
        assert!(complaint.contains(what), "{complaint}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error() {
    let dir = folder(|_| ());
    let path = dir.path().join("tokenizer_config.json");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(
        complaint(Tokenizer::open(dir.path(), Some(3), None))
            .contains("tokenizer_config.json: cannot read: it is a folder")
    );
}

#[test]
fn the_space_before_texts_is_that_of_the_class() {
    let open = |space: bool, settings: &Value| {
        let dir = folder(|file| file["pre_tokenizer"]["add_prefix_space"] = json!(space));
        configure(&dir, settings);
        Tokenizer::open(dir.path(), None, None).unwrap()
    };
    let with = |class: &str, space: Value| json!({"eos_token": "<eos>", "tokenizer_class": class, "add_prefix_space": space});
    let spaced = bytewise().prompt(" ab").unwrap();
    let plain = bytewise().prompt("ab").unwrap();
    for class in ["GPT2Tokenizer", "GPTNeoXTokenizerFast", "Qwen2Tokenizer"] {
        let tokenizer = open(false, &with(class, json!(true)));
        assert_eq!(tokenizer.prompt("ab").unwrap(), spaced, "{class}");
        assert_eq!(tokenizer.response("ab").unwrap(), plain, "{class}");
        assert_eq!(tokenizer.contested_prefix_space(), Some(true));
        let tokenizer = open(true, &with(class, Value::Null));
        assert_eq!(tokenizer.prompt("ab").unwrap(), plain, "{class}");
        assert_eq!(tokenizer.contested_prefix_space(), Some(false));
        assert_eq!(
            open(true, &with(class, json!(true))).contested_prefix_space(),
            None
        );
    }
    let tokenizer = open(true, &with("PreTrainedTokenizerFast", json!(false)));
    assert_eq!(tokenizer.prompt("ab").unwrap(), spaced);
    assert_eq!(tokenizer.contested_prefix_space(), None);
    // The two files disagree about what decides ids.
    let hashes = [Value::Null, json!(true)].map(|space| {
        open(false, &with("GPT2Tokenizer", space))
            .sha256()
            .to_owned()
    });
    assert_ne!(hashes[0], hashes[1]);
}

/// A byte-level tokenizer that puts a space before texts: a line break alone gets that space, and a
/// line break before a response merges with it.
#[test]
fn responses_follow_without_a_space_whatever_they_begin_with() {
    let dir = folder(|file| file["pre_tokenizer"]["add_prefix_space"] = json!(true));
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    for response in [
        "x",
        " x",
        "\ndef f(): pass",
        "\n\ndef",
        "7",
        "!!",
        "<bos>x",
        "",
    ] {
        let whole = tokenizer.prompt(&format!("Write code:{response}")).unwrap();
        let parts = [
            tokenizer.prompt("Write code:").unwrap(),
            tokenizer.response(response).unwrap(),
        ]
        .concat();
        assert_eq!(parts, whole, "{response:?}");
    }
}

/// A tokenizer that merges every joint with what follows it.
#[test]
fn a_response_that_no_text_stays_apart_from_is_refused() {
    let dir = folder(|file| {
        file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
        file["decoder"] = json!({"type": "Fuse"});
        let words = [
            "▁", "a", "\n", ":", "x", "▁\n", "▁:", "▁x", "b", "\nb", ":b", "xb",
        ];
        let vocabulary = words
            .iter()
            .enumerate()
            .map(|(id, word)| ((*word).to_owned(), json!(id)));
        file["model"]["vocab"] = vocabulary.collect();
        file["model"]["merges"] = json!([
            ["\n", "b"],
            [":", "b"],
            ["x", "b"],
            ["▁", "\n"],
            ["▁", ":"],
            ["▁", "x"]
        ]);
    });
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!(tokenizer.response("ab").unwrap(), [1, 8]);
    let error = tokenizer.response("ba").unwrap_err();
    assert!(error.message.contains("merges \"ba\""), "{}", error.message);
    assert!(!error.hint.is_empty());
}

#[test]
fn eos_comes_from_the_tokenizer_then_from_the_model() {
    let dir = folder(|_| ());
    assert_eq!(
        Tokenizer::open(dir.path(), Some(3), None).unwrap().eos(),
        EOS
    );
    configure(
        &dir,
        &json!({"eos_token": {"content": "<bos>", "lstrip": false}}),
    );
    assert_eq!(
        Tokenizer::open(dir.path(), Some(3), None).unwrap().eos(),
        BOS
    );
    for name in ["eos_token", "bos_token"] {
        let mut settings = json!({"eos_token": "<eos>"});
        settings[name] = json!("<unknown>");
        configure(&dir, &settings);
        let complaint = complaint(Tokenizer::open(dir.path(), Some(3), None));
        assert!(
            complaint.contains(&format!("the {name} `<unknown>` is not a token")),
            "{complaint}"
        );
    }
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(Tokenizer::open(dir.path(), Some(3), None).unwrap().eos(), 3);
    assert!(
        complaint(Tokenizer::open(dir.path(), None, None)).ends_with(": no end-of-sequence token")
    );
}

#[test]
fn the_older_map_goes_before_a_configuration_without_added_tokens() {
    let dir = folder(|_| ());
    let map = |map: &Value| {
        std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    };
    let settings = json!({"eos_token": "<bos>", "bos_token": "<bos>", "pad_token": "<eos>"});
    configure(&dir, &settings);
    map(&json!({"eos_token": {"content": "<eos>", "lstrip": false}, "bos_token": null}));
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.bos_id()), (EOS, None));
    assert_eq!(
        Value::from(tokenizer.special_texts().clone()),
        json!({"eos_token": "<eos>", "pad_token": "<eos>"})
    );
    // A configuration that lists its added tokens is used alone, and so is the map.
    let mut listing = settings.clone();
    listing["added_tokens_decoder"] = json!({});
    configure(&dir, &listing);
    map(&json!({"eos_token": "<eos>", "unk_token": "<eos>"}));
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.bos_id()), (BOS, Some(BOS)));
    assert_eq!(Value::from(tokenizer.special_texts().clone()), settings);
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(Tokenizer::open(dir.path(), None, None).unwrap().eos(), EOS);
}

#[test]
fn the_hash_covers_whatever_decides_ids() {
    let dir = folder(with_bos);
    let mut seen = Vec::new();
    let mut of = |bos| {
        let hash = Tokenizer::open(dir.path(), None, bos)
            .unwrap()
            .sha256()
            .to_owned();
        let new = !seen.contains(&hash);
        seen.push(hash);
        new
    };
    assert!(of(None) && !of(None));
    assert!(of(Some(7)), "the beginning that a template writes itself");
    for settings in [
        json!({"eos_token": "<bos>"}),
        json!({"eos_token": "<eos>", "add_bos_token": false}),
        json!({"eos_token": "<eos>", "bos_token": "<bos>"}),
        json!({"eos_token": "<eos>", "sep_token": "<bos>"}),
    ] {
        configure(&dir, &settings);
        assert!(of(None), "{settings}");
    }
    configure(
        &dir,
        &json!({"eos_token": {"content": "<eos>"}, "padding_side": "left", "chat_template": "x"}),
    );
    assert!(
        !of(None),
        "what decides no id, and another way to say the same"
    );
    let other = folder(|file| file["added_tokens"][1]["content"] = json!("<s>"));
    assert_ne!(
        Tokenizer::open(other.path(), None, None).unwrap().sha256(),
        bytewise().sha256()
    );
}

#[test]
fn eos_as_text_at_the_end_is_not_doubled() {
    let tokenizer = bytewise();
    assert_eq!(
        tokenizer.response("ab<eos><eos>").unwrap(),
        tokenizer.response("ab").unwrap()
    );
    assert_eq!(tokenizer.response("<eos>").unwrap(), [] as [u32; 0]);
}

#[test]
fn lengths_configured_in_the_file_are_ignored() {
    let dir = folder(|file| {
        file["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    });
    assert_eq!(
        Tokenizer::open(dir.path(), None, None)
            .unwrap()
            .prompt("abcd")
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn a_space_that_the_tokenizer_puts_before_texts_is_not_put_before_responses() {
    for pre_tokenizer in [
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}),
    ] {
        let dir = folder(|file| {
            file["pre_tokenizer"] = pre_tokenizer;
            file["decoder"] = json!({"type": "Fuse"});
            let words = ["▁", "a", "b", "\n"];
            file["model"]["vocab"] = words
                .iter()
                .enumerate()
                .map(|(id, word)| ((*word).to_owned(), json!(id)))
                .collect();
        });
        let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
        assert_eq!(tokenizer.prompt("ab").unwrap(), [0, 1, 2]);
        assert_eq!(tokenizer.response("ab").unwrap(), [1, 2]);
        assert_eq!(tokenizer.response(" ab").unwrap(), [0, 1, 2]);
    }
}

#[test]
fn ids_beyond_the_model_are_refused() {
    let tokenizer = bytewise().for_vocabulary(257).unwrap();
    assert!(tokenizer.prompt("any").is_ok());
    let error = tokenizer.prompt("<bos>").unwrap_err();
    assert_eq!(
        error.message,
        "the tokenizer gives id 257 (\"<bos>\"), but the model has 257 embeddings"
    );
    assert!(tokenizer.response("x<bos>").is_err());
    assert!(complaint(bytewise().for_vocabulary(256)).contains("id 256 (\"<eos>\")"));
}

#[test]
fn missing_and_broken_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    assert!(
        complaint(Tokenizer::open(empty.path(), None, None))
            .ends_with(": no tokenizer.json in this folder")
    );
    std::fs::write(empty.path().join("tokenizer.json"), "{\"version\": ").unwrap();
    assert!(
        complaint(Tokenizer::open(empty.path(), None, None))
            .contains("tokenizer.json: not a readable tokenizer")
    );
    let dir = folder(|_| ());
    std::fs::write(dir.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(
        complaint(Tokenizer::open(dir.path(), None, None))
            .contains("tokenizer_config.json: broken JSON")
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "",
        "a",
        "<eos>",
        "ByteLevel",
        "BPE",
        "Sequence",
        "\\p{",
        "(((",
        "Metaspace",
        "Unigram",
    ]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{"type": "ByteLevel"}])),
        Just(json!({"type": "Sequence", "pretokenizers": []})),
        Just(json!({"a": 1, "b": 4_000_000_000_u32})),
    ]
}

/// Every position in a value.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            places(
                value,
                &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")),
                all,
            );
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{here}/{index}"), all));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn hostile_tokenizers_end_in_a_message(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..3), text in "[a-zé <>]{0,12}",
    ) {
        let dir = folder(|file| {
            with_bos(file);
            // The alphabet's entries are all alike.
            file["model"]["vocab"] = json!({"a": 0, "b": 1, "Ġ": 2});
            for (at, value) in changes {
                let mut all = Vec::new();
                places(file, "", &mut all);
                let place: &String = at.get(&all);
                if let Some(place) = file.pointer_mut(place) {
                    *place = value;
                }
            }
        });
        if let Ok(tokenizer) = Tokenizer::open(dir.path(), Some(1), None) {
            let _ = (tokenizer.prompt(&text), tokenizer.response(&text), tokenizer.decode(&[0, 1, 99_999]));
        }
    }
}
