//! lm-eval's result files, as its `EvaluationTracker` writes them:
//! `DIR/MODEL/results_TIME.json` and `DIR/MODEL/samples_TASK_TIME.jsonl`. `make_table` and
//! dashboards read them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use upright_base::{Error, Result, files};
use upright_data::{
    Template,
    mmlu::{Form, Group, Question, Subject},
};

use super::{
    Mean, Score, Sheet, TaskScores,
    results::{FormScores, Metric},
    tasks,
};

/// Version of lm-eval whose files these are.
const LM_EVAL: &str = "0.4.13";

/// What the files say about a model.
pub struct Evaluated<'e> {
    /// Name of the model, or of the adapter.
    pub name: &'e str,
    /// `--model_args` of lm-eval for the same model.
    pub model_args: String,
    /// The device.
    pub device: String,
    /// The questions of every form.
    pub sheets: &'e [Sheet<'e>],
    /// The scores of every form.
    pub forms: &'e [FormScores],
    /// Value of `--limit`.
    pub limit: Option<usize>,
    /// Time when the evaluation started.
    pub started: SystemTime,
    /// Time that the scoring took.
    pub seconds: f64,
}

/// lm-eval's `sanitize_model_name`: the name of a model as the name of a folder. Each run of
/// characters that file systems reject becomes two underscores.
pub fn folder_name(model: &str) -> String {
    let mut name = String::new();
    let mut is_replaced = false;
    for c in model.chars() {
        let is_rejected = "\"<>:/|\\?*[]".contains(c);
        if !is_rejected {
            name.push(c);
        } else if !is_replaced {
            name += "__";
        }
        is_replaced = is_rejected;
    }
    name
}

/// Writes the result files of a model. Returns the folder.
///
/// # Errors
/// A prompt cannot be rendered, or a file cannot be written.
pub fn write(out: &Path, evaluated: &Evaluated<'_>) -> Result<PathBuf> {
    let folder = out.join(folder_name(evaluated.name));
    files::create_dir(&folder)?;
    let time = timestamp(evaluated.started);
    let mut hashes = Map::new();
    for (sheet, scores) in evaluated.sheets.iter().zip(evaluated.forms) {
        for ((subject, rows), task) in sheet.asked().zip(&scores.tasks) {
            let (lines, hash) = samples(sheet, subject, rows, task)?;
            let name = tasks::task(scores.form, subject.about.name);
            let file = folder.join(format!("samples_{name}_{time}.jsonl"));
            files::write_atomic(&file, lines.as_bytes())?;
            hashes.insert(name, hash.into());
        }
    }
    let results = results(evaluated, hashes);
    let text = serde_json::to_string_pretty(&results)
        .map_err(|error| Error::failure(error.to_string()))?;
    files::write_atomic(
        &folder.join(format!("results_{time}.json")),
        text.as_bytes(),
    )?;
    Ok(folder)
}

/// The lines of a task's samples, and the task's hash.
fn samples(
    sheet: &Sheet<'_>,
    subject: &Subject,
    rows: &[Question],
    task: &TaskScores,
) -> Result<(String, String)> {
    let mut lines = String::new();
    let mut hashed = String::new();
    for (index, (row, score)) in rows.iter().zip(&task.scores).enumerate() {
        let line = sample(sheet, subject, index, row, score)?;
        for key in ["doc_hash", "prompt_hash", "target_hash"] {
            hashed += line[key].as_str().unwrap_or_default();
        }
        lines += &format!("{line}\n");
    }
    Ok((lines, sha256(&hashed)))
}

fn sample(
    sheet: &Sheet<'_>,
    subject: &Subject,
    index: usize,
    row: &Question,
    score: &Score,
) -> Result<Value> {
    let prompt = sheet.wording.prompt(subject, row)?;
    let doc = json!({
        "question": row.question, "subject": subject.about.name, "choices": row.choices, "answer": row.answer,
    });
    let indented =
        serde_json::to_string_pretty(&doc).map_err(|error| Error::failure(error.to_string()))?;
    let mut arguments = Map::new();
    let mut answers = Vec::new();
    for (number, continuation) in prompt.continuations.iter().enumerate() {
        arguments.insert(
            format!("gen_args_{number}"),
            json!({"arg_0": prompt.context, "arg_1": continuation}),
        );
        // lm-eval also records whether the answer is the greedy continuation, which is not computed
        // here.
        answers.push(json!([score.logp[number].to_string(), "None"]));
    }
    let metrics = Metric::of(sheet.wording.form);
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
    let target = row.answer.to_string();
    let lists: Vec<Value> = answers.iter().map(|answer| json!([answer])).collect();
    let mut line = json!({
        "doc_id": index, "doc": doc, "target": target, "arguments": arguments, "resps": lists,
        "filtered_resps": answers, "filter": "none", "metrics": names, "doc_hash": sha256(&indented),
        "prompt_hash": sha256(&prompt.context), "target_hash": sha256(&target),
    });
    for metric in metrics {
        line[metric.name()] = json!(metric.value(score));
    }
    Ok(line)
}

/// The contents of `results_TIME.json`.
fn results(evaluated: &Evaluated<'_>, hashes: Map<String, Value>) -> Value {
    let mut results = Map::new();
    let mut groups = Map::new();
    let mut subtasks = Map::new();
    let mut configs = Map::new();
    let mut versions = Map::new();
    let mut shots = Map::new();
    let mut higher = Map::new();
    let mut counts = Map::new();
    for (sheet, scores) in evaluated.sheets.iter().zip(evaluated.forms) {
        let form = scores.form;
        let is_better: Map<String, Value> = Metric::of(form)
            .iter()
            .map(|metric| (metric.name().to_owned(), json!(true)))
            .collect();
        for ((subject, rows), task) in sheet.asked().zip(&scores.tasks) {
            let name = tasks::task(form, subject.about.name);
            let alias = tasks::task_alias(form, subject.about.name);
            let mut entry = entry(&name, &alias, rows.len());
            for &metric in Metric::of(form) {
                add_mean(&mut entry, metric.name(), &task.mean(metric));
            }
            results.insert(name.clone(), Value::Object(entry));
            configs.insert(name.clone(), config(sheet, subject));
            versions.insert(name.clone(), json!(1.0));
            shots.insert(name.clone(), json!(sheet.wording.shots));
            higher.insert(name.clone(), json!(is_better));
            counts.insert(
                name,
                json!({"original": subject.test.len(), "effective": rows.len()}),
            );
        }
        for group in scores.groups() {
            let name = scores.group_name(group);
            let alias = match group {
                Some(group) => tasks::group_alias(form, group),
                None => tasks::whole_alias(form).to_owned(),
            };
            let mean = scores.accuracy(group);
            let mut entry = entry(&name, &alias, mean.count);
            add_mean(&mut entry, "acc", &mean);
            entry.insert("sample_count".into(), json!({"acc,none": mean.count}));
            results.insert(name.clone(), json!(entry));
            groups.insert(name.clone(), Value::Object(entry));
            let is_versioned = group.is_none() || form == Form::Letters;
            let version = if is_versioned { "2" } else { "N/A" };
            versions.insert(name.clone(), version.into());
            // lm-eval propagates these to the groups of tasks, not to the group of groups.
            if group.is_some() {
                shots.insert(name.clone(), json!(sheet.wording.shots));
                higher.insert(name, json!(is_better));
            }
        }
        // The group of groups comes first: tables are printed from it downward.
        let mut below: Vec<Value> = Vec::new();
        for group in scores.groups().into_iter().flatten() {
            below.push(tasks::group(form, group).into());
        }
        subtasks.insert(tasks::whole(form).to_owned(), below.into());
        for group in scores.groups().into_iter().flatten() {
            subtasks.insert(tasks::group(form, group), json!(tasks_of(scores, group)));
        }
    }
    let template = evaluated.sheets.first().map(|sheet| sheet.wording.template);
    let template = template.filter(|template| !matches!(template, Template::Raw));
    let started = evaluated.started.duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "results": results, "groups": groups, "group_subtasks": subtasks, "configs": configs, "versions": versions,
        "n-shot": shots, "higher_is_better": higher, "n-samples": counts,
        "config": {
            "model": "upright", "model_args": evaluated.model_args, "batch_size": null, "batch_sizes": [],
            "device": evaluated.device, "use_cache": null, "limit": evaluated.limit, "bootstrap_iters": 0,
            "gen_kwargs": null, "random_seed": null, "numpy_seed": null, "torch_seed": null, "fewshot_seed": null,
        },
        "git_hash": null, "date": started.unwrap_or_default().as_secs_f64(),
        "pretty_env_info": format!("upright {}", env!("CARGO_PKG_VERSION")), "transformers_version": "N/A",
        "lm_eval_version": LM_EVAL, "upper_git_hash": null, "task_hashes": hashes, "model_source": "upright",
        "model_name": evaluated.name, "model_name_sanitized": folder_name(evaluated.name),
        "system_instruction": null, "system_instruction_sha": null, "fewshot_as_multiturn": template.is_some(),
        "chat_template": template.map(ToString::to_string),
        "chat_template_sha": template.and_then(Template::sha256),
        "total_evaluation_time_seconds": evaluated.seconds.to_string(),
    })
}

fn entry(name: &str, alias: &str, count: usize) -> Map<String, Value> {
    Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("alias".to_owned(), json!(alias)),
        ("sample_len".to_owned(), json!(count)),
    ])
}

fn add_mean(entry: &mut Map<String, Value>, metric: &str, mean: &Mean) {
    let error = mean
        .error
        .map_or_else(|| json!("N/A"), |error| json!(error));
    entry.insert(format!("{metric},none"), json!(mean.mean));
    entry.insert(format!("{metric}_stderr,none"), error);
}

/// Names of a group's tasks.
fn tasks_of(scores: &FormScores, group: Group) -> Vec<String> {
    let mut names = Vec::new();
    for task in &scores.tasks {
        if task.about.group == group {
            names.push(tasks::task(scores.form, task.about.name));
        }
    }
    names
}

/// A task's settings, as lm-eval's YAML files write them.
fn config(sheet: &Sheet<'_>, subject: &Subject) -> Value {
    let form = sheet.wording.form;
    let (text, target, choices) = match form {
        Form::Letters => (
            "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
            "answer",
            json!(["A", "B", "C", "D"]),
        ),
        Form::Cloze => (
            "Question: {{question.strip()}}\nAnswer:",
            "{{answer}}",
            json!("{{choices}}"),
        ),
    };
    let mut config = json!({
        "task": tasks::task(form, subject.about.name),
        "dataset_path": "cais/mmlu", "dataset_name": subject.about.name, "test_split": "test", "fewshot_split": "dev",
        "doc_to_text": text, "doc_to_target": target, "unsafe_code": false, "doc_to_choice": choices,
        "description": form.description(&subject.about.words()), "target_delimiter": " ", "fewshot_delimiter": "\n\n",
        "fewshot_config": {
            "sampler": "first_n", "split": "dev", "process_docs": null, "fewshot_indices": null, "samples": null,
            "doc_to_text": text, "doc_to_choice": choices, "doc_to_target": target, "gen_prefix": null,
            "fewshot_delimiter": "\n\n", "target_delimiter": " ",
        },
        "num_fewshot": sheet.wording.shots, "output_type": "multiple_choice", "repeats": 1,
        "should_decontaminate": false, "metadata": {"version": 1.0},
    });
    if form == Form::Letters {
        config["task_alias"] = json!(tasks::task_alias(form, subject.about.name));
        config["metric_list"] =
            json!([{"metric": "acc", "aggregation": "mean", "higher_is_better": true}]);
    }
    config
}

fn sha256(text: &str) -> String {
    files::hex(&Sha256::digest(text.as_bytes()))
}

/// A time in UTC as lm-eval writes it in file names: `2026-01-31T12-00-00.000000`.
fn timestamp(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{micros:06}")
}

/// Year, month and day of the Gregorian calendar, `days` after 1 January 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let february = if is_leap { 29 } else { 28 };
        for (index, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
            .into_iter()
            .enumerate()
        {
            if days < length {
                return (year, index as u64 + 1, days + 1);
            }
            days -= length;
        }
        year += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_in_lm_eval() {
        assert_eq!(folder_name("org/name"), "org__name");
        assert_eq!(folder_name("/tmp/a//b[1]:c"), "__tmp__a__b__1__c");
    }

    #[test]
    fn times_are_dates_in_utc() {
        let at = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        assert_eq!(timestamp(at(0, 0)), "1970-01-01T00-00-00.000000");
        // date -u -d @1709209845: Thu Feb 29 12:30:45 UTC 2024
        assert_eq!(
            timestamp(at(1_709_209_845, 7_000)),
            "2024-02-29T12-30-45.000007"
        );
        // date -u -d @4102444799: Thu Dec 31 23:59:59 UTC 2099
        assert_eq!(
            timestamp(at(4_102_444_799, 0)),
            "2099-12-31T23-59-59.000000"
        );
    }
}
