//! Chat templates that would exhaust the stack, the memory or the patience of whoever opens them.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::fixture::{Done, Place};
use serde_json::json;

/// Longer than any template may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

const INSPECT: &str = "inspect talk.jsonl --model model --template chat";

/// A place with two conversations and a model of this chat template.
fn place(template: &str) -> Place {
    let place = Place::new();
    let talk = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]});
    place.rows("talk.jsonl", &[talk.clone(), talk]);
    place.write("model/chat_template.jinja", template);
    place
}

/// The template ends in an error that names its file and one of these limits.
fn stopped(template: &str, limits: &[&str]) {
    let place = place(template);
    let began = Instant::now();
    let done = Done::of(place.command(INSPECT));
    let shown: String = template.chars().take(100).collect();
    assert_eq!(
        (done.code, &done.stdout[..]),
        (Some(2), ""),
        "{shown}: {done:?}"
    );
    let error = done.error();
    assert!(
        error.starts_with("error: model/chat_template.jinja: the template exceeds a limit: "),
        "{shown}: {done:?}"
    );
    assert!(
        limits.iter().any(|limit| error.contains(limit)),
        "{shown}: {done:?}"
    );
    assert!(
        error.contains("hint: correct the template"),
        "{shown}: {done:?}"
    );
    assert!(began.elapsed() < PATIENCE, "{shown}: {:?}", began.elapsed());
}

const DEPTH: &str = "are nested too deeply for a stack of 16 MB";
const STEPS: &str = "takes more than 1 million steps";
const MEMORY: &str = "takes more than 100 MB of memory";
const TIME: &str = "takes more than 1 s of processor time";

#[test]
fn values_that_contain_themselves() {
    for print in [
        "{{ x }}",
        "{{ x|tojson }}",
        "{{ x|string }}",
        "{% set y = namespace() %}{% set y.x = y %}{{ x == y }}",
    ] {
        stopped(
            &format!("{{% set x = namespace() %}}{{% set x.x = x %}}{print}"),
            &[DEPTH, MEMORY, TIME],
        );
    }
}

#[test]
fn values_nested_thousands_deep() {
    let nested = "{% set ns = namespace(x=[1]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    for print in [
        "{{ ns.x }}",
        "{{ ns.x|tojson }}",
        "{{ ns.x|string }}",
        "{{ ns.x == [ns.x] }}",
    ] {
        stopped(&format!("{nested}{print}"), &[DEPTH, STEPS]);
    }
    // Nothing looks into these, and whoever throws them away has the stack for it.
    let said = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let place = place(&format!("{nested}{said}"));
    Done::good(place.command(INSPECT));
}

#[test]
fn expressions_of_many_thousand_terms() {
    let many = |part: &str| part.repeat(400_000);
    for template in [
        format!("{{{{ {}1 }}}}", many("1+")),
        format!("{{{{ a{} }}}}", many(".a")),
        format!("{{{{ {}1 }}}}", many("not ")),
        format!("{{{{ {}1 }}}}", many("-")),
        format!("{{{{ {}'x' }}}}", many("'x'~")),
        format!("{{% if x %}}{}{{% endif %}}", many("{% elif x %}")),
    ] {
        stopped(&template, &[DEPTH]);
    }
}

#[test]
fn texts_and_lists_without_end() {
    for template in [
        "{{ '{:>10000000000}'.format('x')|length }}",
        "{{ '{:>3000000000}'.format('x')|length }}",
        "{% set ns=namespace(a='x') %}{% for i in range(60) %}{% set ns.a=ns.a+ns.a %}{% endfor %}{{ns.a|length}}",
        "{% set ns=namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a=ns.a+ns.a %}{% endfor %}{{ns.a|length}}",
        "{% set ns=namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a=[ns.a,ns.a] %}{% endfor %}{{ns.a}}",
        "{{ messages|map('tojson')|join('x'*100000000) }}",
        "{{ ('a'*1000000).replace('a', 'b'*1000000)|length }}",
    ] {
        stopped(template, &[STEPS, MEMORY, TIME, DEPTH]);
    }
}

#[test]
fn loops_within_loops() {
    stopped(
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        &[STEPS, TIME],
    );
}

/// A row is stopped, and the next is rendered by a new process.
#[test]
fn only_rows_that_ask_for_too_much_are_refused() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                    {% if 'Boom' in messages[0].content %}{{ '{:>3000000000}'.format('x') }}{% endif %}";
    let place = place(template);
    Done::good(place.command(INSPECT));
    let talk = |text: &str| json!({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Ho"}]});
    place.rows("talk.jsonl", &[talk("Hi"), talk("Boom")]);
    let done = Done::of(place.command(INSPECT));
    assert_eq!(done.code, Some(2), "{done:?}");
    let expected = "error: talk.jsonl: row 1 (line 2): model/chat_template.jinja: the template exceeds a limit: one conversation \
                    takes more than 100 MB of memory";
    assert!(done.stderr.contains(expected), "{done:?}");
    // A row of megabytes may take as much more as it is long.
    let long = "b ".repeat(3_000_000);
    place.rows("talk.jsonl", &[talk(&long)]);
    let done = Done::of(place.command(&format!("{INSPECT} --max-length 16")));
    assert!(!done.stderr.contains("limit"), "{done:?}");
}

#[test]
fn ctrl_c_is_answered_while_rows_are_rendered() {
    // Within its limits, and minutes for all rows.
    let place = place(
        "{% for i in range(99999) %}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
    );
    let talk = |i: usize| json!({"messages": [{"role": "user", "content": format!("Hi {i}")}, {"role": "assistant", "content": "Ho"}]});
    place.rows("talk.jsonl", &(0..20_000).map(talk).collect::<Vec<_>>());
    let mut train = place.train("--sft talk.jsonl --sft-template chat !--dpo");
    let mut train = train
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let began = Instant::now();
    let interrupt = Command::new("kill")
        .args(["-INT", &train.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupt.success());
    let mut said = String::new();
    train
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(train.wait().unwrap().code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted: ") && said.contains("stopped while encoding rows"),
        "{said}"
    );
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(!place.path("run").exists());
}
