//! Prompts of MMLU compared with lm-eval's own; `tools/mmlu/prompts.py` makes the goldens.

use std::{fs, path::Path};

use super::tokenizer::tokenizer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use upright_data::{
    Template, Tokenizer,
    mmlu::{Form, Wording, choose, read},
};

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A template that shows the conversation that it gets.
const TURNS: &str = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}\
                     {% if add_generation_prompt %}[assistant]{% endif %}";

/// A template that rejects a system message, as Gemma's does.
const NO_SYSTEM: &str =
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}";

/// A chat template from its text.
fn chat(folder: &Path, name: &str, text: &str) -> Template {
    let (model, path) = (folder.join("model"), folder.join(name));
    fs::create_dir_all(&model).unwrap();
    fs::write(model.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let config = json!({"eos_token": "</s>"}).to_string();
    fs::write(model.join("tokenizer_config.json"), config).unwrap();
    fs::write(&path, text).unwrap();
    let tokenizer = Tokenizer::open(&model, None, None).unwrap();
    let name = path.to_str().unwrap().parse().unwrap();
    Template::choose(Some(&name), &[], &tokenizer).unwrap()
}

#[test]
fn prompts_are_those_of_lm_eval() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mmlu_data");
    let goldens = fs::read(folder.join("goldens.json")).unwrap();
    let goldens: Value = serde_json::from_slice(&goldens).unwrap();
    let names = choose(Some("anatomy,sociology,world_religions")).unwrap();
    let subjects = read(&folder, &names).unwrap();
    let place = tempfile::tempdir().unwrap();
    let chat = chat(place.path(), "turns.jinja", TURNS);
    let mut compared = 0;
    for form in [Form::Letters, Form::Cloze] {
        for subject in &subjects {
            let task = match form {
                Form::Letters => format!("mmlu_{}", subject.about.name),
                Form::Cloze => format!("mmlu_{}_continuation", subject.about.name),
            };
            for shots in [0, 1, 5] {
                let golden = &goldens[&task][shots.to_string()];
                for (row, question) in subject.test.iter().enumerate() {
                    let place = format!("{task}, {shots} shots, row {row}");
                    for (template, context, continuations) in [
                        (&Template::Raw, "context", "continuations"),
                        (&chat, "chat", "chat_continuations"),
                    ] {
                        let wording = Wording {
                            form,
                            shots,
                            template,
                        };
                        let prompt = wording.prompt(subject, question).unwrap();
                        let joined = prompt.continuations.join("\0");
                        assert_eq!(golden[row][context], sha256(&prompt.context), "{place}");
                        assert_eq!(golden[row][continuations], sha256(&joined), "{place}");
                        compared += 1;
                    }
                }
            }
        }
    }
    // 4 + 3 + 5 test rows, 2 forms, 3 numbers of shots, with and without a chat template.
    assert_eq!(compared, 12 * 2 * 3 * 2);
}

#[test]
fn a_description_is_left_out_where_the_template_rejects_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mmlu_data");
    let subjects = read(&folder, &choose(Some("anatomy")).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let wording = |template| Wording {
        form: Form::Letters,
        shots: 1,
        template,
    };
    let with = chat(place.path(), "turns.jinja", TURNS);
    let without = chat(place.path(), "strict.jinja", &format!("{NO_SYSTEM}{TURNS}"));
    let row = &subjects[0].test[0];
    let with = wording(&with).prompt(&subjects[0], row).unwrap();
    let without = wording(&without).prompt(&subjects[0], row).unwrap();
    assert!(!with.lacks_description && without.lacks_description);
    let (_, rest) = with.context.split_once("[user]").unwrap();
    assert_eq!(without.context, format!("[user]{rest}"));
}
