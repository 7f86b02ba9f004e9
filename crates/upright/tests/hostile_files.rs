//! Files, folders and records that would hang, fill or mislead whoever opens them.

mod fixture;

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use fixture::{Done, Place};
use serde_json::{Value, json};

const INSPECT: &str = "inspect sft.jsonl --model model";

/// The command ends with bad input, nothing on stdout, and these parts in its error.
fn refused(command: Command, parts: &[&str]) {
    let shown = format!("{command:?}");
    let done = Done::of(command);
    assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{shown}: {done:?}");
    assert!(done.error().contains("hint: "), "{shown}: {done:?}");
    assert!(parts.iter().all(|part| done.error().contains(part)), "{shown}: {parts:?} {done:?}");
}

#[test]
fn a_library_that_panics_is_quiet() {
    let pieces = |value: Value| {
        move |file: &mut serde_json::Map<String, Value>| {
            for (key, value) in value.as_object().unwrap() {
                file[key] = value.clone();
            }
        }
    };
    let replace = |pattern: Value| json!({"normalizer": {"type": "Replace", "pattern": pattern, "content": "bbbb"}});
    let charsmap = |map: &str| json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": map}});
    for value in [
        replace(json!({"String": ""})),
        replace(json!({"Regex": ""})),
        charsmap("AAAA"),
        charsmap(""),
        charsmap("BAAAAP////8AAAAA"),
        json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}),
        json!({"post_processor": {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {}}}),
        json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}),
    ] {
        let place = Place::new();
        place.edit("model/tokenizer.json", pieces(value.clone()));
        let done = Done::of(place.command(INSPECT));
        // `Done::of` looks for a panic's text. What a library makes of such a file is its own affair.
        if done.code != Some(0) {
            assert_eq!(done.code, Some(2), "{value}: {done:?}");
            assert!(
                done.stderr.starts_with("error: ") && done.error().contains("model/tokenizer.json"),
                "{value}: {done:?}"
            );
        }
    }
}

#[test]
fn the_cache_of_a_user_without_a_home_is_their_own() {
    let place = Place::new();
    fs::create_dir(place.path("tmp")).unwrap();
    let user = fs::metadata(place.path("tmp")).unwrap().uid();
    let own = format!("tmp/upright-cache-{user}");
    let train = || {
        let mut command = place.train("--steps 1");
        for name in ["HOME", "UPRIGHT_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("TMPDIR", place.path("tmp"));
        command
    };
    let set_mode = |mode: u32| fs::set_permissions(place.path(&own), fs::Permissions::from_mode(mode)).unwrap();
    // Somebody else was first.
    fs::create_dir(place.path(&own)).unwrap();
    set_mode(0o777);
    refused(train(), &[&own, "others can write into it", "UPRIGHT_CACHE"]);
    fs::remove_dir(place.path(&own)).unwrap();
    fs::create_dir(place.path("elsewhere")).unwrap();
    symlink("../elsewhere", place.path(&own)).unwrap();
    refused(train(), &[&own]);
    fs::remove_file(place.path(&own)).unwrap();
    Done::good(train());
    assert_eq!(fs::metadata(place.path(&own)).unwrap().mode() & 0o777, 0o700);
}
