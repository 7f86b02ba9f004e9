//! Which template rows and prompts have if none is named.

use serde_json::json;

use crate::fixture::{Done, Place, fed};

/// A chat template that names every role.
const CHAT: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// A place whose model has a chat template.
fn with_chat() -> Place {
    let place = Place::new();
    place.write("model/chat_template.jinja", CHAT);
    place
}

/// Pairs as HH-RLHF writes them.
fn hh_rows(place: &Place, name: &str) {
    let said = |i: usize, last: &str| format!("\n\nHuman: Where is {i}?\n\nAssistant: {last}");
    let pair = |i: usize| json!({"chosen": said(i, "Here."), "rejected": said(i, "No.")});
    place.rows(name, &(0..24).map(pair).collect::<Vec<_>>());
}

#[test]
fn a_model_with_a_chat_template_is_trained_evaluated_and_inspected_with_it() {
    let place = with_chat();
    hh_rows(&place, "hh.jsonl");
    let done = Done::good(place.train("--dpo hh.jsonl"));
    for part in [
        "(dialect alpaca, template chat)",
        "(dialect chosen-rejected, template chat)",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    assert!(!done.stderr.contains("prompt formats"), "{done:?}");
    let plan = String::from_utf8(place.read("run/plan.toml")).unwrap();
    assert_eq!(plan.matches("template = \"chat\"").count(), 2, "{plan}");
    for words in [
        "eval loss --model model --sft sft.jsonl",
        "eval loss --model model --dpo hh.jsonl",
        "inspect sft.jsonl --model model",
        "inspect hh.jsonl --model model",
    ] {
        let done = Done::good(place.command(words));
        let says =
            |text: &str| text.contains("template chat)") || text.contains("template     chat\n");
        assert!(
            says(&done.stderr) || says(&done.stdout),
            "{words}: {done:?}"
        );
    }
    let shown = Done::good(place.command("inspect hh.jsonl --model model --row 3")).stdout;
    assert!(
        shown.contains("<user>Where is 3?\n<assistant>\nchosen, ")
            && shown.contains("[Here.\n<EOS>]\nrejected, "),
        "{shown}"
    );
    // A run with another template is evaluated with that template.
    Done::good(place.train("--sft-template alpaca --out other"));
    let words = "eval loss --model model --adapter other --sft sft.jsonl";
    let done = Done::good(place.command(words));
    assert!(done.stderr.contains("template alpaca)"), "{done:?}");
}

#[test]
fn generate_and_chat_give_a_plain_prompt_the_same_template() {
    let place = with_chat();
    Done::good(place.train("--steps 1"));
    Done::good(place.train("--steps 1 --sft-template raw --dpo-template raw --out raw"));
    for (adapter, template, prompt) in [
        ("", "chat", "<user>Where?\n<assistant>"),
        (" --adapter run", "chat", "<user>Where?\n<assistant>"),
        (" --adapter raw", "raw", "Where?"),
        (
            " --template user-assistant",
            "user-assistant",
            "User: Where?\nAssistant:",
        ),
    ] {
        let words = format!("--model model --max-tokens 5{adapter}");
        let generated = fed(place.command(&format!("generate {words}")), "Where?\n");
        assert_eq!(generated.code, Some(0), "{generated:?}");
        let line = &generated.json()[0];
        assert_eq!(line["prompt"], prompt, "{adapter}");
        let chat = fed(place.command(&format!("chat {words}")), "Where?\n");
        assert_eq!(chat.code, Some(0), "{chat:?}");
        let response = line["response"].as_str().unwrap();
        assert_eq!(chat.stdout, format!("{response}\n"), "{adapter}");
        assert!(
            chat.stderr.contains(&format!("template {template}, ")),
            "{chat:?}"
        );
        assert!(
            chat.stderr
                .contains("an empty line, /exit or Ctrl-D ends the chat"),
            "{chat:?}"
        );
    }
    // An HH-RLHF text is a conversation here, too.
    let asked = json!(["\n\nHuman: Where?\n\nAssistant: Here.\n\nHuman: So?\n\nAssistant:"]);
    place.write("asked.json", asked.to_string());
    let done =
        Done::good(place.command("generate --model model --max-tokens 5 --prompts asked.json"));
    assert_eq!(
        done.json()[0]["prompt"],
        "<user>Where?\n<assistant>Here.\n<user>So?\n<assistant>"
    );
}

#[test]
fn a_default_template_that_rejects_the_rows_is_an_error_with_a_way_out() {
    let place = Place::new();
    let strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}{{ m.content }}\n{% endfor %}";
    place.write("model/chat_template.jinja", strict);
    let row = json!({"instruction": "Count.", "system": "Be brief.", "output": "One."});
    place.rows("sft.jsonl", &[row.clone(), row]);
    for (command, setting) in [
        (place.train(""), "--sft-template"),
        (
            place.command("inspect sft.jsonl --model model"),
            "--template",
        ),
        (
            place.command("eval loss --sft sft.jsonl --model model"),
            "--template",
        ),
        (
            place.command("generate --prompts sft.jsonl --model model"),
            "--template",
        ),
    ] {
        let done = Done::of(command);
        assert_eq!((done.code, &done.stdout[..]), (Some(2), ""), "{done:?}");
        for part in [
            "sft.jsonl: row 0 (line 1): the template chat rejects the conversation: ",
            "No system role",
            "; chat is the default because the model has a chat template\n",
            &format!("; {setting} NAME selects another template"),
        ] {
            assert!(done.error().contains(part), "{part}: {done:?}");
        }
    }
    assert!(!place.path("run").exists());
    Done::good(place.train("--sft-template user-assistant --dpo-template user-assistant"));
}

#[test]
fn two_templates_in_one_run_are_warned_of() {
    let place = with_chat();
    hh_rows(&place, "hh.jsonl");
    let warning = |done: &Done| {
        let line = done
            .stderr
            .lines()
            .find(|line| line.contains("prompt formats"));
        line.unwrap_or_default().to_owned()
    };
    let formats = "the adapter learns two prompt formats; set";
    let done = Done::good(place.train("--dpo-template raw --out a"));
    assert_eq!(
        warning(&done),
        format!("warning: sft uses chat and dpo uses raw: {formats} --sft-template")
    );
    let done = Done::good(place.train("--dpo-template raw --sft-template alpaca --out b"));
    assert_eq!(warning(&done), "", "both are named");
    std::fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    let done = Done::good(place.train("--dpo hh.jsonl --out c"));
    assert_eq!(
        warning(&done),
        format!("warning: sft uses user-assistant and dpo uses raw: {formats} --dpo-template")
    );
    place.write(
        "three.toml",
        "model = \"model\"\nsteps = 1\nlora-rank = 2\nout = \"d\"\nno-report = true\n\
         [[objective]]\nname = \"code\"\nloss = \"sft\"\ndata = \"sft.jsonl\"\n\
         [[objective]]\nname = \"helpful\"\nloss = \"dpo\"\ndata = \"hh.jsonl\"\n",
    );
    let done = Done::good(place.command("train --config three.toml"));
    assert_eq!(
        warning(&done),
        format!(
            "warning: code uses user-assistant and helpful uses raw: {formats} template of the objective helpful"
        )
    );
}

#[test]
fn a_run_whose_default_template_was_another_resumes_with_it() {
    let place = Place::new();
    hh_rows(&place, "hh.jsonl");
    let words = "--dpo hh.jsonl --steps 4 --checkpoint-every 2 --reference train:chosen";
    Done::good(place.train(words));
    let plan = place.read("run/plan.toml");
    let adapter = place.read("run/adapter/adapter_model.safetensors");
    for part in ["adapter", "checkpoints/step-4"] {
        std::fs::remove_dir_all(place.path(&format!("run/{part}"))).unwrap();
    }
    // The default of a new run is now the chat template, for both objectives and the reference.
    place.write("model/chat_template.jinja", CHAT);
    let done = Done::good(place.train(&format!("{words} --resume")));
    for part in [
        "(dialect alpaca, template user-assistant)",
        "(dialect chosen-rejected, template raw)",
        "reference: trained before, ",
        "continuing at step 2 of 4",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    assert!(!done.stderr.contains("prompt formats"), "{done:?}");
    assert_eq!(place.read("run/adapter/adapter_model.safetensors"), adapter);
    assert_eq!(place.read("run/plan.toml"), plan);
    // A template that is named now is another setting.
    let done = Done::of(place.train(&format!("{words} --sft-template chat --resume")));
    assert!(
        done.code == Some(2) && done.error().contains("sft.template: not set -> \"chat\""),
        "{done:?}"
    );
    let done = Done::good(place.train(&format!("{words} --out new")));
    assert!(
        done.stderr
            .contains("(dialect chosen-rejected, template chat)"),
        "{done:?}"
    );
}

#[test]
fn mostly_truncated_rows_and_few_held_out_rows_are_warned_of() {
    let place = Place::new();
    let done = Done::good(place.train("--max-length 30"));
    for part in [
        "warning: sft: 100% of the rows are truncated (",
        "of the responses); raise --max-length\n",
        "warning: dpo has 1 held-out pair: the held-out numbers say little; raise --held-out or set --dpo-eval\n",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    hh_rows(&place, "hh.jsonl");
    let done = Done::good(place.train("--dpo-eval dpo.jsonl --dpo hh.jsonl --out b"));
    assert!(
        done.stderr.contains(
            "warning: dpo has 24 held-out pairs: the held-out numbers say little; use a larger file for --dpo-eval\n"
        ) && !done.stderr.contains("truncated"),
        "{done:?}"
    );
    let words = "inspect dpo.jsonl --model model --json";
    let report = &Done::good(place.command(&format!("{words} --max-length 30"))).json()[0];
    assert_eq!(report["truncated_rows"], 24);
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .starts_with("100% of the rows are truncated ("),
        "{report}"
    );
    assert_eq!(
        warnings[1],
        "1 held-out pair: the held-out numbers say little; raise --held-out"
    );
    let report = &Done::good(place.command(&format!("{words} --held-out 0"))).json()[0];
    assert_eq!(report["warnings"], json!([]));
    let text = Done::good(place.command("inspect dpo.jsonl --model model --show 0")).stdout;
    assert!(text.contains("\nwarning      1 held-out pair: "), "{text}");
}
