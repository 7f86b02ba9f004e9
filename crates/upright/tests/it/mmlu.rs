//! `upright eval mmlu` on invented questions, with a tiny model that knows nothing.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    fixture::{Done, Place},
    snapshots::check,
};

const SUBJECTS: &str = "--subjects anatomy,sociology,world_religions";

/// A place with a model of enough positions, an adapter, and a folder `mmlu` of three subjects.
fn place() -> Place {
    let place = Place::new();
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(8192));
    });
    place.adapter("adapter", "llama");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-data/tests/it/mmlu_data");
    for split in ["dev", "test"] {
        for entry in fs::read_dir(from.join(split)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            place.write(&format!("mmlu/{split}/{name}"), fs::read(&path).unwrap());
        }
    }
    place
}

fn done(place: &Place, words: &str) -> Done {
    Done::of(place.command(&format!("eval mmlu --model model --data mmlu {words}")))
}

fn good(place: &Place, words: &str) -> (Value, String) {
    let words = format!("{SUBJECTS} --json {words}");
    let done = done(place, &words);
    assert_eq!(done.code, Some(0), "{done:?}");
    (done.json()[0].clone(), done.stderr)
}

/// The sample lines of a task in a folder of result files.
fn samples(place: &Place, folder: &str, task: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place.path(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with(&format!("samples_{task}_2")) {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
    }
    found
}

#[test]
fn one_object_has_counts_by_task_and_group() {
    let place = place();
    let (line, notes) = good(&place, "--shots 2");
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "model",
            "shots",
            "form",
            "template",
            "bos",
            "limit",
            "tasks",
            "groups",
            "near_ties",
            "truncated_prompts",
            "forward_tokens",
            "lm_eval_forward_tokens",
            "seconds"
        ]
    );
    assert_eq!(
        (&line["model"], &line["shots"]),
        (&json!("model"), &json!(2))
    );
    assert_eq!(
        (&line["form"], &line["template"]),
        (&json!("letters"), &json!("raw"))
    );
    let totals = |name: &str| line["tasks"][name]["total"].as_u64().unwrap();
    let tasks = ["mmlu_anatomy", "mmlu_sociology", "mmlu_world_religions"];
    assert_eq!(tasks.map(totals), [4, 3, 5]);
    let groups: Vec<&String> = line["groups"].as_object().unwrap().keys().collect();
    assert_eq!(
        groups,
        [
            "mmlu_stem",
            "mmlu_social_sciences",
            "mmlu_humanities",
            "mmlu"
        ]
    );
    let right: u64 = tasks
        .map(|name| line["tasks"][name]["correct"].as_u64().unwrap())
        .iter()
        .sum();
    let all = &line["groups"]["mmlu"];
    assert_eq!(
        (all["correct"].as_u64(), all["total"].as_u64()),
        (Some(right), Some(12))
    );
    let accuracy = right as f64 / 12.0;
    assert!((all["acc"].as_f64().unwrap() - accuracy).abs() < 1e-15);
    // Every subject's header and shots are laid once.
    let tokens = |key: &str| line[key].as_f64().unwrap();
    assert!(
        tokens("forward_tokens") < 0.5 * tokens("lm_eval_forward_tokens"),
        "{line}"
    );
    assert!(
        notes.contains("12 questions, 2 shots, template raw, without BOS; "),
        "{notes}"
    );
    // A pack per question gives the same counts.
    let (alone, _) = good(&place, "--shots 2 --token-budget 1");
    assert_eq!(alone["tasks"], line["tasks"]);
    assert!(alone["forward_tokens"].as_f64() > line["forward_tokens"].as_f64());
    assert_eq!(
        alone["lm_eval_forward_tokens"],
        line["lm_eval_forward_tokens"]
    );
}

#[test]
fn an_adapter_is_compared_question_by_question() {
    let place = place();
    let (line, _) = good(&place, "--shots 1 --adapter adapter --out results");
    let adapter = &line["adapters"][0];
    assert_eq!(adapter["adapter"], "adapter");
    let mut differences = Vec::new();
    let task = "mmlu_world_religions";
    let (base, own) = (
        samples(&place, "results/model", task),
        samples(&place, "results/adapter", task),
    );
    assert_eq!((base.len(), own.len()), (5, 5));
    for (base, own) in base.iter().zip(&own) {
        assert_eq!(base["arguments"], own["arguments"]);
        differences.push(100.0 * (own["acc"].as_f64().unwrap() - base["acc"].as_f64().unwrap()));
    }
    let mean = differences.iter().sum::<f64>() / 5.0;
    let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
    let error = (squares / 4.0).sqrt() / 5.0f64.sqrt();
    let found = &adapter["difference"][task];
    assert!(
        (found["points"].as_f64().unwrap() - mean).abs() < 1e-12,
        "{found}"
    );
    assert!(
        (found["points_stderr"].as_f64().unwrap() - error).abs() < 1e-12,
        "{found}"
    );
    assert!(adapter["difference"]["mmlu"]["points"].is_number());
    let same = done(
        &place,
        &format!("{SUBJECTS} --adapter adapter --adapter adapter"),
    );
    assert!(
        same.error().contains("`adapter` is given twice"),
        "{same:?}"
    );
}

#[test]
fn the_table_ends_with_what_was_forgotten() {
    let place = place();
    let words = format!("{SUBJECTS} --shots 0 --adapter adapter --form both");
    let done = done(&place, &words);
    assert_eq!(done.code, Some(0), "{done:?}");
    check(
        "mmlu",
        &format!("{}---- stderr\n{}", done.stdout, done.stderr),
    );
}

#[test]
fn result_files_have_the_keys_of_lm_eval() {
    let place = place();
    let (line, notes) = good(&place, "--shots 5 --limit 2 --form both --out results");
    assert!(
        notes.contains("result files of lm-eval in results/model"),
        "{notes}"
    );
    assert_eq!(line["tasks"]["mmlu_anatomy"]["total"], 2);
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(place.path("results/model")).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    // 2 forms of 3 subjects, and the results.
    assert_eq!(names.len(), 7, "{names:?}");
    let results: Value =
        serde_json::from_slice(&place.read(&format!("results/model/{}", names[0]))).unwrap();
    let keys: Vec<&String> = results.as_object().unwrap().keys().collect();
    // The keys of a file that lm-eval 0.4.13 wrote, in its order.
    assert_eq!(
        keys,
        [
            "results",
            "groups",
            "group_subtasks",
            "configs",
            "versions",
            "n-shot",
            "higher_is_better",
            "n-samples",
            "config",
            "git_hash",
            "date",
            "pretty_env_info",
            "transformers_version",
            "lm_eval_version",
            "upper_git_hash",
            "task_hashes",
            "model_source",
            "model_name",
            "model_name_sanitized",
            "system_instruction",
            "system_instruction_sha",
            "fewshot_as_multiturn",
            "chat_template",
            "chat_template_sha",
            "total_evaluation_time_seconds"
        ]
    );
    let task = &results["results"]["mmlu_anatomy"];
    assert_eq!(task["alias"], "anatomy");
    assert_eq!(task["acc,none"], line["tasks"]["mmlu_anatomy"]["acc"]);
    assert_eq!(results["n-shot"]["mmlu_stem"], 5);
    assert_eq!(
        results["n-samples"]["mmlu_anatomy"],
        json!({"original": 4, "effective": 2})
    );
    assert_eq!(
        results["group_subtasks"]["mmlu"],
        json!(["mmlu_stem", "mmlu_social_sciences", "mmlu_humanities"])
    );
    let cloze = &results["results"]["mmlu_anatomy_continuation"];
    assert!(cloze["acc_norm,none"].is_number() && cloze["acc_norm_stderr,none"].is_number());
    let sample = &samples(&place, "results/model", "mmlu_anatomy")[1];
    assert_eq!(sample["doc_id"], 1);
    assert_eq!(sample["doc"]["subject"], "anatomy");
    assert_eq!(sample["arguments"]["gen_args_2"]["arg_1"], " C");
    let context = sample["arguments"]["gen_args_0"]["arg_0"].as_str().unwrap();
    assert!(context.ends_with("D. Smell\nAnswer:"), "{context}");
    let logp: f64 = sample["resps"][0][0][0].as_str().unwrap().parse().unwrap();
    assert!(logp < 0.0);
}

#[test]
fn a_chat_template_gets_a_conversation() {
    let place = place();
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}<assistant>\n{% endif %}";
    let config = json!({"eos_token": "</s>", "chat_template": template});
    place.write("model/tokenizer_config.json", config.to_string());
    let (line, _) = good(&place, "--template chat --shots 1 --out results");
    assert_eq!(line["template"], "chat");
    let sample = &samples(&place, "results/model", "mmlu_anatomy")[0];
    let arguments = &sample["arguments"]["gen_args_1"];
    let context = arguments["arg_0"].as_str().unwrap();
    assert!(
        context.starts_with("<system>The following are multiple choice questions"),
        "{context}"
    );
    assert!(
        context.contains("Answer:\n<assistant>D\n<user>How many eyes"),
        "{context}"
    );
    assert_eq!(arguments["arg_1"], "B");
    let strict = template.replace(
        "{% for",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{% for",
    );
    let config = json!({"eos_token": "</s>", "chat_template": strict});
    place.write("model/tokenizer_config.json", config.to_string());
    let (_, notes) = good(&place, "--template chat --shots 1");
    assert!(
        notes.contains("12 of 12 prompts have no description"),
        "{notes}"
    );
}

#[test]
fn long_prompts_lose_their_beginning() {
    let place = place();
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(300));
    });
    let (line, notes) = good(&place, "--shots 5");
    assert_eq!(line["truncated_prompts"], 12);
    assert!(
        notes.contains("warning: 12 of 12 prompts exceed the 300 positions of the model and lose their beginning"),
        "{notes}"
    );
    place.edit("model/config.json", |config| {
        config.insert("max_position_embeddings".into(), json!(1));
    });
    let refused = done(&place, SUBJECTS);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .error()
            .contains("anatomy: test row 0: an answer of 2 tokens leaves no room"),
        "{refused:?}"
    );
}

#[test]
fn mistakes_are_named() {
    let place = place();
    for (words, parts) in [
        (
            "",
            &[
                "has no dev/abstract_algebra_dev.csv; files of 54 of 57 subjects",
                "--subjects anatomy,sociology,world_religions",
            ][..],
        ),
        (
            "--subjects anatomi",
            &["MMLU has no subject `anatomi`", "did you mean `anatomy`?"],
        ),
        ("--subjects anatomy --shots 6", &["shots must be at most 5"]),
        (
            "--subjects anatomy --shots some",
            &["shots must be", "found `some`"],
        ),
        (
            "--subjects anatomy --limit 0",
            &["limit must be", "found `0`"],
        ),
        (
            "--subjects anatomy --form essay",
            &["form must be one of letters, cloze, both, found `essay`"],
        ),
        ("--subjects anatomy --template chat", &["chat"]),
        (
            "--subjects anatomy --out sft.jsonl",
            &["out must be a folder"],
        ),
    ] {
        let done = done(&place, words);
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        for part in parts {
            assert!(done.error().contains(part), "{words}: {part}: {done:?}");
        }
    }
    let missing = Done::of(place.command("eval mmlu --model model --data mmlx"));
    assert!(
        missing.error().contains("did you mean `mmlu`?"),
        "{missing:?}"
    );
    place.write("mmlu/dev/anatomy_dev.csv", "q,a,b,c,d,A\n");
    let few = done(&place, "--subjects anatomy --shots 2");
    assert!(
        few.error()
            .contains("anatomy has 1 row in dev, but shots is 2"),
        "{few:?}"
    );
    place.write("mmlu/test/anatomy_test.csv", "q,a,b,c,d,A\nq,a,b,c,A\n");
    let columns = done(&place, "--subjects anatomy --shots 0");
    assert!(
        columns
            .error()
            .contains("anatomy_test.csv: row 1 has 5 columns, expected 6"),
        "{columns:?}"
    );
    place.write("mmlu/test/anatomy_test.csv", "q,a,b,c,d,E\n");
    let letter = done(&place, "--subjects anatomy --shots 0");
    assert!(
        letter
            .error()
            .contains("row 0: the answer must be A, B, C or D, found `E`"),
        "{letter:?}"
    );
}

#[test]
fn letters_with_the_same_ids_are_rejected() {
    let place = place();
    place.edit("model/tokenizer.json", |file| {
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.shift_remove("B");
        vocabulary.shift_remove("C");
    });
    let refused = done(&place, SUBJECTS);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.error().contains(
            "anatomy: test row 0: the tokenizer gives \" B\" and \" C\" the same ids, [4, 0]"
        ) && refused.error().contains("--form cloze"),
        "{refused:?}"
    );
    good(&place, "--form cloze");
}
