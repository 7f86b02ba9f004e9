//! Chat templates: the input is the Jinja of one, rendered in this process. In the program a child with limits of its own
//! renders, and these limits alone answer for what the engine cannot bound: see `fuzz/README.md`.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use upright_data::conversation::Row;
use upright_data::rows::{self, RowKind};
use upright_data::template::{Template, TemplateName, Turns};
use upright_data::{Tokenizer, source};
use upright_fuzz::{repository, scratch};

struct Setup {
    file: PathBuf,
    tokenizer: Tokenizer,
    rows: Vec<Row>,
}

const ROWS: &str = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}]}
{"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]}
"#;

/// What stands in templates that only the limits of a child stop: a namespace can hold itself and values as deep as a loop is
/// long, the method `format` takes any width, and a list can be repeated any number of times.
const LIMITED: [&str; 3] = ["namespace", "format", "*"];

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let path = Path::new("rows.jsonl");
    let raw = source::parse(path, ROWS.as_bytes()).expect("rows");
    Setup {
        file: scratch().join("chat_template.jinja"),
        tokenizer: Tokenizer::open(&repository("crates/upright/demo/model"), None, None)
            .expect("a tokenizer"),
        rows: rows::read(path, &raw, RowKind::Instruction)
            .expect("conversations")
            .rows,
    }
});

fuzz_target!(|template: &str| -> Corpus {
    if LIMITED.iter().any(|word| template.contains(word)) {
        return Corpus::Reject;
    }
    let Setup {
        file,
        tokenizer,
        rows,
    } = &*SETUP;
    fs::write(file, template).expect("a template's file");
    let name = TemplateName::File(file.clone());
    let Ok(template) = Template::choose(Some(&name), rows, tokenizer) else {
        return Corpus::Keep;
    };
    for row in rows {
        for turns in [Turns::Last, Turns::All] {
            let _ = template.render(row, turns);
        }
    }
    Corpus::Keep
});
