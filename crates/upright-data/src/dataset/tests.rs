use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tokenize::tests::{bytewise, configure, folder};
use super::*;

/// A folder with one file of rows, and the simplest way to load it.
fn file(rows: &[Value]) -> (tempfile::TempDir, DataSpec) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    write(&path, rows);
    let spec = DataSpec {
        files: vec![path.into()],
        kind: RowKind::Instruction,
        map: ColumnMap::default(),
        template: Some(TemplateName::Raw),
        template_setting: "--sft-template".into(),
        turns: Turns::Last,
        rows: None,
        max_length: 64,
        min_prompt: 4,
        too_long: TooLong::CutPrompt,
        eval: HeldOut::Fraction(0.0),
        threads: 2,
    };
    (dir, spec)
}

fn write(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn task(prompt: impl Into<String>, completion: &str) -> Value {
    json!({"prompt": prompt.into(), "completion": completion})
}

fn tasks(count: usize) -> Vec<Value> {
    (0..count)
        .map(|index| task(format!("prompt {index}"), "yes"))
        .collect()
}

fn load(spec: &DataSpec) -> Dataset {
    Dataset::load(spec, &bytewise(), &mut |_, _| true).unwrap()
}

fn complaint(spec: &DataSpec) -> Error {
    let error = Dataset::load(spec, &bytewise(), &mut |_, _| true).unwrap_err();
    assert!(!error.hint.is_empty());
    error
}

fn numbers(examples: &[Example]) -> Vec<usize> {
    examples.iter().map(|example| example.row).collect()
}

#[test]
fn a_dataset_says_what_it_did() {
    let rows = [
        task("p1", "a"),
        task("p2", " "),
        task("p3", "<eos>"),
        task("p4", "b"),
        task("x".repeat(80), "c"),
    ];
    let (_dir, mut spec) = file(&rows);
    let mut steps = Vec::new();
    let dataset = Dataset::load(&spec, &bytewise(), &mut |done, total| {
        steps.push((done, total));
        true
    })
    .unwrap();
    steps.dedup();
    assert_eq!(
        steps.last(),
        Some(&(4, 4)),
        "the row without text is not encoded"
    );
    assert_eq!(numbers(&dataset.train), [0, 3, 4]);
    assert_eq!(
        (&dataset.dialect[..], &dataset.template),
        ("prompt-completion", &Template::Raw)
    );
    assert_eq!(
        dataset.dropped,
        [Dropped {
            reason: "empty response".into(),
            rows: vec![1, 2]
        }]
    );
    assert_eq!(
        (dataset.truncated_prompts, dataset.truncated_responses),
        (1, 0)
    );
    assert_eq!(
        (dataset.sha256.len(), dataset.eval_sha256.clone()),
        (64, None)
    );
    assert_eq!(dataset.train[2].tokens(), 64);
    spec.template = None;
    assert_eq!(load(&spec).template, Template::UserAssistant);
}

#[test]
fn pairs_share_a_cut_prompt_and_chosen_rows_are_the_same_ones() {
    let pair = |prompt: String, chosen: &str, rejected: &str| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
    let rows = [
        pair("x".repeat(70), "short", "rather longer"),
        pair("p".into(), "a", "a"),
        pair("q".into(), "a", "b"),
    ];
    let (_dir, mut spec) = file(&rows);
    spec.kind = RowKind::Preference;
    let dataset = load(&spec);
    let [chosen, rejected] = dataset.train[0].responses.as_slice() else {
        panic!("a pair")
    };
    assert_eq!(
        (
            dataset.train[0].prompt.len(),
            chosen.tokens.len(),
            rejected.tokens.len()
        ),
        (64 - 14, 6, 14)
    );
    assert_eq!(dataset.truncated_prompts, 1);
    spec.kind = RowKind::Chosen;
    let chosen = load(&spec);
    assert_eq!(numbers(&chosen.train), numbers(&dataset.train));
    assert!(
        chosen
            .train
            .iter()
            .all(|example| example.responses.len() == 1)
    );
}

#[test]
fn chosen_rows_are_cut_dropped_and_divided_as_the_pairs_are() {
    let pair = |prompt: &str, chosen: &str, rejected: &str| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
    let long = "r".repeat(30);
    let mut rows = vec![
        pair("p", "a", &long),
        pair("p", &long, "a"),
        pair(
            "q",
            "abcdefghijklmnopqrstu one",
            "abcdefghijklmnopqrstu two",
        ),
        pair("a prompt of its own", "a", "abcdef"),
        pair("eos", "a", "a<eos>"),
    ];
    rows.extend((0..40).map(|index| {
        pair(
            &format!("prompt {index}"),
            "yes",
            ["no", "never ever"][index % 2],
        )
    }));
    let (_dir, mut spec) = file(&rows);
    (spec.max_length, spec.eval) = (20, HeldOut::Fraction(0.3));
    let without_responses = |examples: &[Example]| -> Vec<(usize, Vec<u32>)> {
        examples
            .iter()
            .map(|example| (example.row, example.prompt.clone()))
            .collect()
    };
    for (rule, out, cut) in [
        (TooLong::Drop, 5, 0),
        (TooLong::CutPrompt, 2, 1),
        (TooLong::CutResponse, 2, 1),
    ] {
        (spec.too_long, spec.kind) = (rule, RowKind::Preference);
        let pairs = load(&spec);
        spec.kind = RowKind::Chosen;
        let chosen = load(&spec);
        assert_eq!(
            pairs
                .dropped
                .iter()
                .map(|entry| entry.rows.len())
                .sum::<usize>(),
            out,
            "{rule:?}"
        );
        assert_eq!(
            (&chosen.dropped, chosen.truncated_prompts),
            (&pairs.dropped, pairs.truncated_prompts)
        );
        assert_eq!(
            chosen.truncated_responses, cut,
            "{rule:?}: those that are kept"
        );
        for (ours, theirs) in [(&chosen.train, &pairs.train), (&chosen.eval, &pairs.eval)] {
            assert!(!ours.is_empty());
            assert_eq!(
                without_responses(ours),
                without_responses(theirs),
                "{rule:?}"
            );
            assert!(
                ours.iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| ours.responses == theirs.responses[..1])
            );
        }
    }
}

#[test]
fn the_first_usable_rows_are_taken_before_any_are_held_out() {
    let mut rows = tasks(12);
    rows[1] = task("p", "");
    rows[2] = task("p", "<eos>");
    rows[9] = task("p", "");
    let (_dir, mut spec) = file(&rows);
    spec.rows = Some(5);
    let dataset = load(&spec);
    assert_eq!(numbers(&dataset.train), [0, 3, 4, 5, 6]);
    assert_eq!(
        dataset.dropped,
        [Dropped {
            reason: "empty response".into(),
            rows: vec![1, 2]
        }],
        "row 9 was not looked at"
    );
    spec.eval = HeldOut::Fraction(0.4);
    let divided = load(&spec);
    assert_eq!(divided.train.len() + divided.eval.len(), 5);
    spec.rows = Some(100);
    assert_eq!(load(&spec).train.len() + load(&spec).eval.len(), 9);
}

#[test]
fn rows_that_are_added_move_nothing_and_no_prompt_is_on_both_sides() {
    let mut rows = tasks(400);
    rows.extend((0..400).map(|index| task(format!("prompt {index}"), "another answer")));
    let (_dir, mut spec) = file(&rows[..300]);
    spec.eval = HeldOut::default();
    let before = load(&spec);
    assert!(
        (5..30).contains(&before.eval.len()),
        "{} of 300",
        before.eval.len()
    );
    write(&spec.files[0].shards[0], &rows);
    let after = load(&spec);
    assert_eq!(
        numbers(&after.eval)
            .into_iter()
            .filter(|&row| row < 300)
            .collect::<Vec<_>>(),
        numbers(&before.eval)
    );
    let held: HashSet<&[u32]> = after
        .eval
        .iter()
        .map(|example| example.prompt.as_slice())
        .collect();
    assert!(
        after
            .train
            .iter()
            .all(|example| !held.contains(example.prompt.as_slice()))
    );
    assert_eq!(after.eval.len(), 2 * held.len());
}

#[test]
fn both_sides_have_a_prompt_if_there_are_two() {
    let sides = |rows: &[Value], fraction| {
        let (_dir, mut spec) = file(rows);
        spec.eval = HeldOut::Fraction(fraction);
        let dataset = load(&spec);
        (dataset.train.len(), dataset.eval.len())
    };
    assert_eq!(sides(&tasks(3), 1e-9), (2, 1));
    assert_eq!(sides(&tasks(3), 0.999_999), (1, 2));
    assert_eq!(
        sides(&[task("p", "a"), task("p", "b")], 0.5),
        (2, 0),
        "one prompt cannot be divided"
    );
    assert_eq!(sides(&tasks(100), 0.0), (100, 0));
}

#[test]
fn a_file_of_held_out_rows_is_never_trained_on() {
    let (dir, mut spec) = file(&tasks(6));
    let held = dir.path().join("held.jsonl");
    write(
        &held,
        &[
            task("prompt 2", "other answer"),
            task("new", "x"),
            task("empty", ""),
        ],
    );
    spec.eval = HeldOut::File(held.clone().into());
    let dataset = load(&spec);
    assert_eq!(numbers(&dataset.train), [0, 1, 3, 4, 5]);
    assert_eq!(numbers(&dataset.eval), [0, 1]);
    assert_eq!(
        dataset.dropped,
        [Dropped {
            reason: format!("prompt is held out in {}", held.display()),
            rows: vec![2]
        }]
    );
    assert_eq!(
        dataset.eval_dropped,
        [Dropped {
            reason: "empty response".into(),
            rows: vec![2]
        }]
    );
    assert_eq!(dataset.eval_sha256.map(|hash| hash.len()), Some(64));
    spec.eval = HeldOut::File(spec.files[0].clone());
    let error = complaint(&spec);
    assert!(
        error
            .message
            .contains("none of 6 rows is usable: 6 prompt is held out in "),
        "{}",
        error.message
    );
    spec.eval = HeldOut::File(dir.path().join("nowhere.jsonl").into());
    assert!(
        complaint(&spec)
            .message
            .ends_with("nowhere.jsonl: no such file")
    );
}

#[test]
fn samples_are_fixed_and_in_row_order() {
    let (_dir, mut spec) = file(&tasks(200));
    spec.eval = HeldOut::Fraction(0.3);
    let dataset = load(&spec);
    let rows = |examples: Vec<&Example>| {
        examples
            .iter()
            .map(|example| example.row)
            .collect::<Vec<_>>()
    };
    let sample = rows(dataset.fit(10));
    assert_eq!(sample.len(), 10);
    assert!(sample.is_sorted() && sample != numbers(&dataset.train)[..10]);
    let larger = rows(dataset.fit(20));
    assert!(sample.iter().all(|row| larger.contains(row)));
    assert_eq!(rows(dataset.fit(1000)), numbers(&dataset.train));
    assert_eq!(rows(dataset.eval(1000)), numbers(&dataset.eval));
    assert_eq!((dataset.eval(3).len(), dataset.eval(0).len()), (3, 0));
}

#[test]
fn nothing_usable_lists_the_reasons() {
    let (_dir, mut spec) = file(&[
        task("", "x"),
        task("p", ""),
        task("q", " "),
        task("r", "x".repeat(99).as_str()),
    ]);
    spec.too_long = TooLong::Drop;
    let error = complaint(&spec);
    let expected = "rows.jsonl: none of 4 rows is usable: 1 empty prompt; 2 empty response; 1 longer than the maximum length";
    assert!(error.message.ends_with(expected), "{}", error.message);
}

#[test]
fn impossible_settings_are_refused() {
    let (_dir, spec) = file(&tasks(3));
    for fraction in [1.0, -0.1, f64::NAN] {
        let error = complaint(&DataSpec {
            eval: HeldOut::Fraction(fraction),
            ..spec.clone()
        });
        assert!(
            error
                .message
                .contains(&format!("a fraction of {fraction} cannot be held out"))
        );
    }
    assert!(
        complaint(&DataSpec {
            rows: Some(0),
            ..spec.clone()
        })
        .message
        .contains("0 rows are requested")
    );
    assert!(
        complaint(&DataSpec {
            max_length: 1,
            ..spec
        })
        .message
        .contains("too short")
    );
    let talk = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]});
    let (_dir, spec) = file(&[talk]);
    let error = complaint(&spec);
    assert!(
        error
            .message
            .ends_with("rows.jsonl: row 0 (line 1): the prompt is a conversation, but the template raw supports none")
    );
}

proptest! {
    #[test]
    fn carving_depends_on_the_prompt_alone(hashes in prop::collection::vec(any::<u64>(), 1..40), fraction in 0.0..1.0f64) {
        let example = |row| Example { row, prompt: vec![1], responses: vec![vec![2].into()] };
        let rows: Vec<Hashed> = hashes.iter().enumerate().map(|(row, &hash)| (hash, example(row))).collect();
        let mut files = [rows.clone()];
        let eval = split::carve(&mut files, fraction);
        let [train] = files;
        prop_assert_eq!(train.len() + eval.len(), rows.len());
        prop_assert!(!train.is_empty());
        let held: HashSet<u64> = eval.iter().map(|(hash, _)| *hash).collect();
        prop_assert!(train.iter().all(|(hash, _)| !held.contains(hash)));
        let distinct: HashSet<u64> = hashes.into_iter().collect();
        prop_assert!(!held.is_empty() || distinct.len() == 1 || fraction == 0.0);
    }
}

#[test]
fn several_files_are_one_set() {
    let (dir, mut spec) = file(&tasks(6));
    let other = dir.path().join("other.jsonl");
    let rows: Vec<Value> = (0..2)
        .map(|index| json!({"instruction": format!("task {index}"), "output": "no", "source": "s"}))
        .collect();
    write(&other, &rows);
    let alone = load(&spec);
    spec.files.push(other.clone().into());
    let both = load(&spec);
    assert_eq!(numbers(&both.train), [0, 1, 2, 3, 4, 5, 0, 1]);
    assert_eq!(
        (both.dialect.as_str(), both.unread.as_slice()),
        (
            "prompt-completion and alpaca",
            ["source".to_owned()].as_slice()
        )
    );
    assert_ne!(both.sha256, alone.sha256);
    assert!(
        both.describe("sft")
            .contains("8 rows (dialect prompt-completion and alpaca")
            && both.describe("sft").contains("ignored columns: source")
    );

    // Half and half: the two rows of the second file occur three times each.
    let share = |files: &mut [DataFile], shares: [f64; 2]| {
        files
            .iter_mut()
            .zip(shares)
            .for_each(|(file, share)| file.share = Some(share));
    };
    share(&mut spec.files, [0.5, 0.5]);
    let halves = load(&spec);
    assert_eq!(numbers(&halves.train), [0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 0, 1]);
    assert!(
        halves.describe("sft").contains("4 of them are repeats"),
        "{}",
        halves.describe("sft")
    );
    assert_eq!(halves.fit(99).len(), 8, "a sample has no row twice");
    assert_ne!(halves.sha256, both.sha256);
    share(&mut spec.files, [6.0, 2.0]);
    assert_eq!(load(&spec).train, both.train, "the shares they have");
    share(&mut spec.files, [1.0, 9.0]);
    let much = load(&spec);
    assert_eq!(much.train.len(), 6 + 54);
    spec.eval = HeldOut::Fraction(0.3);
    let carved = load(&spec);
    let of_second = carved
        .train
        .iter()
        .filter(|row| row.responses == much.train[6].responses)
        .count();
    assert_eq!(
        of_second,
        9 * (carved.train.len() - of_second),
        "shares hold of what is left to train on"
    );
    spec.files[0].share = None;
    assert!(
        complaint(&spec)
            .message
            .contains("some files have a share and some have none")
    );
    share(&mut spec.files, [1.0, 1e6]);
    assert!(complaint(&spec).message.contains("would occur"));

    let marked = dir.path().join("marked.jsonl");
    write(&marked, &[task("\n\nHuman: a\n\nAssistant:", " b")]);
    spec.files = vec![other.into(), marked.into()];
    spec.template = None;
    assert!(
        complaint(&spec)
            .message
            .contains("the default template is user-assistant")
    );
}

#[test]
fn shards_are_one_file_with_one_share() {
    let (dir, mut spec) = file(&tasks(9));
    let whole = load(&spec);
    let shard = |name: &str, rows: &[Value]| {
        let path = dir.path().join(name);
        write(&path, rows);
        path
    };
    let shards = vec![
        shard("0", &tasks(9)[..2]),
        shard("1", &tasks(9)[2..3]),
        shard("2", &tasks(9)[3..]),
    ];
    spec.files = vec![shards.clone().into()];
    let split = load(&spec);
    assert_eq!(
        (&split.train, &split.dialect),
        (&whole.train, &whole.dialect)
    );
    assert_ne!(split.sha256, whole.sha256);
    spec.rows = Some(4);
    assert_eq!(
        numbers(&load(&spec).train),
        [0, 1, 2, 3],
        "the first rows of all, not of each"
    );
    spec.rows = None;
    // Half of an epoch from three files and half from one: the two rows of the one file occur as
    // often as the nine.
    spec.files
        .push(shard("other", &[task("x", "y"), task("z", "y")]).into());
    spec.files
        .iter_mut()
        .for_each(|file| file.share = Some(0.5));
    let halves = load(&spec);
    assert_eq!(
        numbers(&halves.train)[..17],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 1, 0, 1, 0, 1]
    );
    assert_eq!(halves.train.len(), 18);
    // Held-out rows may be in several files, too.
    spec.files.truncate(1);
    spec.eval = HeldOut::File(shards[1..].to_vec().into());
    let held = load(&spec);
    assert_eq!(
        (numbers(&held.train), numbers(&held.eval)),
        (vec![0, 1], vec![0, 1, 2, 3, 4, 5, 6])
    );
    assert!(
        held.dropped[0].reason.ends_with("1 and 1 more"),
        "{:?}",
        held.dropped
    );
}

#[test]
fn rows_that_come_once_more_are_of_the_whole_file() {
    let (dir, mut spec) = file(&tasks(150));
    let other = dir.path().join("other.jsonl");
    write(
        &other,
        &(0..100)
            .map(|index| task(format!("sorted {index}"), "no"))
            .collect::<Vec<_>>(),
    );
    spec.files.push(other.into());
    spec.files
        .iter_mut()
        .for_each(|file| file.share = Some(0.5));
    let halves = load(&spec);
    assert_eq!(halves.train.len(), 300);
    let again = numbers(&halves.train[250..]);
    assert!(
        again.is_sorted() && again.windows(2).all(|pair| pair[0] < pair[1]),
        "{again:?}"
    );
    let late = again.iter().filter(|row| **row >= 50).count();
    assert!(
        (15..=35).contains(&late),
        "{late} of 50 rows are of the second half"
    );
    assert_eq!(load(&spec).train, halves.train);
    // Not the rows that the fixed sample evaluates.
    let scored: Vec<&Example> = halves
        .fit(50)
        .into_iter()
        .filter(|row| halves.train[150..250].contains(row))
        .collect();
    let both = scored
        .iter()
        .filter(|row| halves.train[250..].contains(row))
        .count();
    assert!(both * 4 < scored.len(), "{both} of {}", scored.len());
}

#[test]
fn reasoning_that_a_template_has_no_words_for_is_said_to_be_left_out() {
    let row = |asked: &str, more: Value| {
        let mut said = json!({"role": "assistant", "content": "a"});
        said.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"messages": [{"role": "user", "content": asked}, said]})
    };
    let rows = [
        row("p", json!({"reasoning_content": "so"})),
        row("q", json!({"thinking": "so"})),
        row("r", json!({"reasoning": " "})),
        row("s", json!({})),
    ];
    let (_dir, mut spec) = file(&rows);
    spec.template = Some(TemplateName::UserAssistant);
    let data = load(&spec);
    assert_eq!(data.reasoning_left_out, 2);
    let said = "; reasoning is left out of 2 rows: the template user-assistant does not support it";
    assert!(
        data.describe("sft").ends_with(said),
        "{}",
        data.describe("sft")
    );
}

#[test]
fn bos_that_the_tokenizers_files_disagree_about_is_said() {
    let (_dir, mut spec) = file(&tasks(2));
    let folder = folder(|_| ());
    let mut said = |template: TemplateName, add: Value| {
        let chat = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let settings = json!({"eos_token": "<eos>", "bos_token": "<bos>", "add_bos_token": add, "chat_template": chat});
        configure(&folder, &settings);
        spec.template = Some(template);
        let tokenizer = Tokenizer::open(folder.path(), None, None).unwrap();
        Dataset::load(&spec, &tokenizer, &mut |_, _| true)
            .unwrap()
            .describe("sft")
    };
    let words = "; prompts start with BOS, as add_bos_token in tokenizer_config.json says; transformers 5 uses only tokenizer.json, which adds none";
    assert!(said(TemplateName::Raw, json!(true)).ends_with(words));
    assert!(bos_note(false).contains("without BOS") && bos_note(false).ends_with("which adds one"));
    assert!(!said(TemplateName::Raw, json!(false)).contains("BOS"));
    // A chat template writes its own.
    assert!(
        !said(
            TemplateName::Chat {
                name: None,
                date: None
            },
            json!(true)
        )
        .contains("BOS")
    );
}

#[test]
fn tools_anywhere_in_a_file_have_their_template() {
    let row = |index: usize| json!({"messages": [{"role": "user", "content": format!("q{index}")}, {"role": "assistant", "content": "a"}]});
    let mut rows: Vec<Value> = (0..20).map(row).collect();
    rows[18]["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (_dir, mut spec) = file(&rows);
    let model = folder(|_| ());
    let text = |word: &str| {
        format!(
            "{word}{{{{ tools[0].function.name if tools }}}}{{% for m in messages %}}<{{{{ m.content }}}}>{{% endfor %}}"
        )
    };
    let templates = json!([{"name": "default", "template": text("D")}, {"name": "tool_use", "template": text("T")}]);
    let settings = json!({"eos_token": "<eos>", "chat_template": templates});
    std::fs::write(
        model.path().join("tokenizer_config.json"),
        settings.to_string(),
    )
    .unwrap();
    let tokenizer = Tokenizer::open(model.path(), None, None).unwrap();
    spec.template = Some(TemplateName::CHAT);
    let data = Dataset::load(&spec, &tokenizer, &mut |_, _| true).unwrap();
    let prompts: Vec<String> = data
        .train
        .iter()
        .map(|row| tokenizer.decode(&row.prompt).unwrap())
        .collect();
    assert_eq!(
        (&prompts[17][..], &prompts[18][..], &prompts[19][..]),
        ("D<q17>", "Tf<q18>", "D<q19>")
    );
}

#[test]
fn columns_can_have_other_names() {
    let (_dir, mut spec) = file(&[json!({"q": "p", "a": "yes", "prompt": "other"})]);
    spec.map = "prompt=q,completion=a".parse().unwrap();
    let data = load(&spec);
    assert_eq!(bytewise().decode(&data.train[0].prompt).unwrap(), "p");
    spec.map = "prompt=q,completion=b".parse().unwrap();
    let error = complaint(&spec);
    assert!(error.message.contains(
        "row 0 (line 1) has no column \"b\", which is mapped to completion: its columns are q, a, prompt"
    ));
}

#[test]
fn log_probabilities_that_a_file_brings_are_said_to_be_left_out() {
    let row = |rejected: &str| json!({"prompt": "p", "chosen": "a", "rejected": rejected, "ref_chosen_logps": -1, "ref_rejected_logps": -2});
    let (_dir, mut spec) = file(&[row("b"), row("c")]);
    spec.kind = RowKind::Preference;
    let said = load(&spec).describe("dpo");
    assert!(
        said.contains(
            "ignored columns: ref_chosen_logps, ref_rejected_logps (their tokens and model"
        ),
        "{said}"
    );
    assert!(said.ends_with("the reference is computed)"), "{said}");
}

/// A model with a chat template that names every role; the template rejects system turns if `strict`.
fn with_chat(strict: bool) -> (tempfile::TempDir, Tokenizer) {
    let dir = folder(|_| ());
    let check = if strict {
        "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    } else {
        ""
    };
    let chat = format!(
        "{{% for m in messages %}}{check}<{{{{ m.role }}}}>{{{{ m.content }}}}<eos>{{% endfor %}}\
         {{% if add_generation_prompt %}}<assistant>{{% endif %}}"
    );
    configure(
        &dir,
        &json!({"eos_token": "<eos>", "bos_token": "<bos>", "chat_template": chat}),
    );
    let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
    (dir, tokenizer)
}

/// Loads rows without naming a template.
fn by_default(rows: &[Value], kind: RowKind, tokenizer: &Tokenizer) -> Result<Dataset> {
    let (_dir, spec) = file(rows);
    let spec = DataSpec {
        kind,
        template: None,
        max_length: 500,
        ..spec
    };
    Dataset::load(&spec, tokenizer, &mut |_, _| true)
}

#[test]
fn every_dialect_has_the_chat_template_of_the_model() {
    let (_model, tokenizer) = with_chat(false);
    let hi = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]);
    let below = "<system>S<eos><user>Hi<eos><assistant>";
    let plain = "<user>Hi<eos><assistant>";
    let (instruction, preference) = (RowKind::Instruction, RowKind::Preference);
    for (kind, row, prompt) in [
        (
            instruction,
            json!({"instruction": "Hi", "input": "2", "system": "S", "output": "Ho"}),
            "<system>S<eos><user>Hi\n2<eos><assistant>",
        ),
        (
            instruction,
            json!({"instruction": "Hi", "input": "", "output": "Ho"}),
            plain,
        ),
        (
            instruction,
            json!({"prompt": "Hi", "completion": "Ho"}),
            plain,
        ),
        (
            instruction,
            json!({"question": "Hi", "answer": "Ho", "system": "S"}),
            below,
        ),
        (instruction, json!({"messages": hi, "system": "S"}), below),
        (
            instruction,
            json!({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}),
            plain,
        ),
        (
            instruction,
            json!({"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Ho"}),
            plain,
        ),
        (
            instruction,
            json!({"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Ho", "system": "S"}),
            below,
        ),
        (
            preference,
            json!({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}),
            plain,
        ),
        (
            preference,
            json!({"instruction": "Hi", "chosen": "Ho", "rejected": "No"}),
            plain,
        ),
        (
            preference,
            json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No", "system": "S"}),
            below,
        ),
    ] {
        let data = by_default(std::slice::from_ref(&row), kind, &tokenizer).unwrap();
        assert_eq!(data.template.name(), TemplateName::CHAT, "{row}");
        let example = &data.train[0];
        assert_eq!(tokenizer.decode(&example.prompt).unwrap(), prompt, "{row}");
        assert_eq!(
            tokenizer.decode(&example.responses[0].tokens).unwrap(),
            "Ho<eos>",
            "{row}"
        );
    }
    // Nobody knows the turns of this text.
    let other = json!({"prompt": "User: Hi\nAssistant:", "completion": " Ho"});
    let data = by_default(&[other], instruction, &tokenizer).unwrap();
    assert_eq!(data.template, Template::Raw);
}

#[test]
fn texts_with_turn_markers_have_the_ids_and_the_side_of_the_same_messages() {
    let (_model, tokenizer) = with_chat(false);
    let said = |i: usize, last: &str| {
        let text = format!(
            "\n\nHuman: Where is {i}?\n\nAssistant: Here.\n\nHere it is. \n\nHuman: So?\n\nAssistant: {last}"
        );
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let messages = json!([
            turn("user", &format!("Where is {i}?")),
            turn("assistant", "Here.\n\nHere it is."),
            turn("user", "So?"),
            turn("assistant", last)
        ]);
        (text, messages)
    };
    let (mut texts, mut messages, mut text_tasks, mut talks) = (vec![], vec![], vec![], vec![]);
    for i in 0..40 {
        let (chosen, chosen_turns) = said(i, "Yes.");
        let (rejected, rejected_turns) = said(i, "No.");
        let (prompt, _) = said(i, "");
        texts.push(json!({"chosen": format!("{chosen}\n"), "rejected": rejected}));
        messages.push(json!({"chosen": chosen_turns, "rejected": rejected_turns}));
        text_tasks.push(json!({"prompt": prompt.trim_end(), "completion": " Yes."}));
        talks.push(json!({"messages": chosen_turns}));
    }
    for (rows, others, kind, turns) in [
        (&texts, &messages, RowKind::Preference, Turns::Last),
        (&text_tasks, &talks, RowKind::Instruction, Turns::Last),
        (&text_tasks, &talks, RowKind::Instruction, Turns::All),
    ] {
        let loaded = |rows: &[Value], template: Option<TemplateName>, max_length: usize| {
            let (_dir, spec) = file(rows);
            let spec = DataSpec {
                kind,
                template,
                turns,
                max_length,
                eval: HeldOut::Fraction(0.3),
                ..spec
            };
            Dataset::load(&spec, &tokenizer, &mut |_, _| true).unwrap()
        };
        // Every row fits, or every row is truncated.
        for max_length in [500, 60] {
            let found = loaded(rows, None, max_length);
            let expected = loaded(others, None, max_length);
            assert_eq!(found.template.name(), TemplateName::CHAT);
            assert_eq!(found.truncated_rows, if max_length == 60 { 40 } else { 0 });
            assert_eq!(found.train, expected.train, "{kind:?} {turns:?}");
            assert_eq!(found.eval, expected.eval, "{kind:?} {turns:?}");
            let raw = loaded(rows, Some(TemplateName::Raw), max_length);
            assert_eq!(numbers(&found.eval), numbers(&raw.eval));
        }
    }
}

#[test]
fn a_default_template_that_rejects_the_rows_says_how_to_name_another() {
    let (_model, strict) = with_chat(true);
    let row = json!({"instruction": "Hi", "system": "S", "output": "Ho"});
    let error = by_default(std::slice::from_ref(&row), RowKind::Instruction, &strict).unwrap_err();
    for part in [
        "row 0 (line 1): ",
        "the template chat rejects the conversation: ",
        "System role not supported",
        "; chat is the default because the model has a chat template",
    ] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    let way_out = "; --sft-template NAME selects another template";
    assert!(error.hint.ends_with(way_out), "{}", error.hint);
    // A template that somebody named is no default.
    let (_dir, mut spec) = file(&[row]);
    spec.template = Some(TemplateName::CHAT);
    let error = Dataset::load(&spec, &strict, &mut |_, _| true).unwrap_err();
    assert!(!error.message.contains("default"), "{}", error.message);
    assert!(!error.hint.contains("--sft-template"), "{}", error.hint);

    let broken = [
        (
            "{% for m in messages %}{{ m.content }}{{ loop.last }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
            "hides where the response begins",
        ),
        ("{% for %}", "not a valid chat template"),
    ];
    for (chat, part) in broken {
        let dir = folder(|_| ());
        configure(&dir, &json!({"eos_token": "<eos>", "chat_template": chat}));
        let tokenizer = Tokenizer::open(dir.path(), None, None).unwrap();
        let error = by_default(&tasks(2), RowKind::Instruction, &tokenizer).unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
        assert!(
            error.message.contains("; chat is the default because"),
            "{}",
            error.message
        );
        assert!(error.hint.ends_with(way_out), "{}", error.hint);
    }
}

#[test]
fn rows_that_are_mostly_truncated_are_noted_with_shares() {
    let pair = |prompt: usize, chosen: usize| json!({"prompt": "p".repeat(prompt), "chosen": "c".repeat(chosen), "rejected": "r"});
    let rows = [pair(9, 3), pair(80, 3), pair(80, 90), pair(9, 3)];
    let (dir, mut spec) = file(&rows);
    spec.kind = RowKind::Preference;
    let half = load(&spec);
    assert_eq!((half.truncated_rows, half.truncation_note()), (2, None));
    write(
        &dir.path().join("rows.jsonl"),
        &[&rows[..], &[pair(80, 4)]].concat(),
    );
    let most = load(&spec);
    assert_eq!(
        (
            most.truncated_rows,
            most.truncated_prompts,
            most.truncated_responses
        ),
        (3, 3, 1)
    );
    assert_eq!(
        most.truncation_note().unwrap(),
        "60% of the rows are truncated (60% of the prompts, 10% of the responses); raise --max-length"
    );
}

#[test]
fn few_held_out_rows_are_noted() {
    let (dir, mut spec) = file(&tasks(40));
    assert_eq!(load(&spec).held_out_note(), None, "none is requested");
    let path = dir.path().join("held.jsonl");
    spec.eval = HeldOut::File(path.clone().into());
    let held = |count: usize| {
        let rows: Vec<Value> = (0..count)
            .map(|i| task(format!("held {i}"), "yes"))
            .collect();
        write(&path, &rows);
        load(&spec).held_out_note()
    };
    assert_eq!(held(FEW_HELD_OUT), None);
    assert_eq!(
        held(29).unwrap(),
        "29 held-out rows: the held-out numbers say little"
    );
    let pair = json!({"prompt": "p", "chosen": "c", "rejected": "r"});
    write(&path, std::slice::from_ref(&pair));
    let pairs = dir.path().join("rows.jsonl");
    write(
        &pairs,
        &[json!({"prompt": "q", "chosen": "c", "rejected": "r"})],
    );
    spec.kind = RowKind::Preference;
    assert_eq!(
        load(&spec).held_out_note().unwrap(),
        "1 held-out pair: the held-out numbers say little"
    );
}
