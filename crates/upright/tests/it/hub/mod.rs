//! Models, adapters and datasets by id, against a hub on this machine that breaks off, redirects, lies and refuses.

mod server;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use crate::fixture::{Done, Place, instruction, preference};
use serde_json::{Value, json};
use server::{COMMIT, Server, Stored, TOKEN, git_hash, sha256};

/// A place whose commands see a hub and nothing of the user's.
struct Client {
    place: Place,
    server: Server,
}

impl Client {
    fn new() -> Self {
        let (place, server) = (Place::new(), Server::new());
        server.put_folder("models/org/tiny", &place, "model");
        Self { place, server }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = self.place.command(words);
        command
            .env("HF_ENDPOINT", format!("http://{}", self.server.address))
            .env("HF_HUB_OFFLINE", "0");
        for name in [
            "HF_HUB_CACHE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn good(&self, words: &str) -> Done {
        Done::good(self.command(words))
    }

    fn refused(&self, words: &str, parts: &[&str]) {
        let done = Done::of(self.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(
            parts.iter().all(|part| done.error().contains(part)),
            "{words}: {parts:?} {done:?}"
        );
    }

    fn snapshot(&self, repo: &str, file: &str) -> Vec<u8> {
        self.place
            .read(&format!("hf/hub/{repo}/snapshots/{COMMIT}/{file}"))
    }
}

const EVAL: &str = "eval loss --sft sft.jsonl --limit 2 --json --model";

#[test]
fn a_model_is_fetched_once_and_kept_where_others_look() {
    let client = Client::new();
    let local = client.good(&format!("{EVAL} model")).stdout;
    assert_eq!(client.server.asked(""), 0, "a path that exists wins");
    let done = client.good(&format!("{EVAL} org/tiny"));
    assert_eq!(done.stdout, local);
    assert!(
        done.stderr.contains(&format!(
            "org/tiny@{}: downloaded 4 files to",
            &COMMIT[..12]
        )),
        "{done:?}"
    );
    let kept = "hf/hub/models--org--tiny";
    assert_eq!(
        client.place.read(&format!("{kept}/refs/main")),
        COMMIT.as_bytes()
    );
    let weights = client.place.read("model/model.safetensors");
    assert_eq!(
        client
            .place
            .read(&format!("{kept}/blobs/{}", sha256(&weights))),
        weights
    );
    let link = fs::read_link(
        client
            .place
            .path(&format!("{kept}/snapshots/{COMMIT}/model.safetensors")),
    )
    .unwrap();
    assert_eq!(
        link.to_str().unwrap(),
        format!("../../blobs/{}", sha256(&weights))
    );
    assert!(
        fs::read_dir(client.place.path(&format!("{kept}/blobs")))
            .unwrap()
            .count()
            == 4,
        "nothing is left over"
    );

    // Again: a listing and nothing else. Offline: not even that; nor with a hub that is gone.
    client.server.forget();
    assert_eq!(client.good(&format!("{EVAL} org/tiny@main")).stdout, local);
    assert_eq!(
        (
            client.server.asked("/api/models/org/tiny/revision/main"),
            client.server.asked("")
        ),
        (1, 1)
    );
    for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        let mut command = client.command(&format!("{EVAL} org/tiny"));
        command.env(name, "1");
        assert_eq!(Done::good(command).stdout, local);
    }
    assert_eq!(client.server.asked(""), 1);
    let mut command = client.command(&format!("{EVAL} org/tiny"));
    command.env("HF_ENDPOINT", "http://127.0.0.1:1");
    let done = Done::good(command);
    assert!(
        done.stderr
            .contains("warning: http://127.0.0.1:1 cannot be reached"),
        "{done:?}"
    );
    // A commit needs no reference; another place, another download.
    client.good(&format!("{EVAL} org/tiny@{COMMIT}"));
    let mut command = client.command(&format!("{EVAL} org/tiny@v1/beta"));
    command.env("HF_HUB_CACHE", client.place.path("elsewhere"));
    Done::good(command);
    assert_eq!(
        client
            .place
            .read("elsewhere/models--org--tiny/refs/v1/beta"),
        COMMIT.as_bytes()
    );
}

#[test]
fn what_breaks_off_is_resumed_and_what_is_damaged_is_not_kept() {
    let client = Client::new();
    let bytes = client.place.read("model/model.safetensors");
    let name = "models/org/tiny/model.safetensors";
    let large = Stored {
        bytes: bytes.clone(),
        large: true,
        ..Stored::default()
    };
    let fetch = |stored: Stored| {
        client.server.put(name, stored);
        client.server.forget();
        let _ = fs::remove_dir_all(client.place.path("hf"));
        Done::of(client.command(&format!("{EVAL} org/tiny")))
    };
    // Three breaks: each time the rest is asked for, and half of it comes.
    assert_eq!(
        fetch(Stored {
            breaks: 3,
            ..large.clone()
        })
        .code,
        Some(0)
    );
    assert_eq!(
        client.snapshot("models--org--tiny", "model.safetensors"),
        bytes
    );
    let half = bytes.len() / 2;
    let second = half + (bytes.len() - half) / 2;
    assert_eq!(
        client
            .server
            .asked(&format!("GET /bytes/{} {half} ", sha256(&bytes))),
        1
    );
    assert_eq!(
        client
            .server
            .asked(&format!("GET /bytes/{} {second} ", sha256(&bytes))),
        1
    );
    assert_eq!(client.server.asked("GET /bytes/"), 4);
    // A server that knows no parts.
    assert_eq!(
        fetch(Stored {
            breaks: 1,
            whole_only: true,
            ..large.clone()
        })
        .code,
        Some(0)
    );
    // Damaged once: fetched again. Damaged always: refused, and nothing has the name.
    assert_eq!(
        fetch(Stored {
            lies: 1,
            ..large.clone()
        })
        .code,
        Some(0)
    );
    assert_eq!(
        client.snapshot("models--org--tiny", "model.safetensors"),
        bytes
    );
    let done = fetch(Stored {
        lies: 9,
        ..large.clone()
    });
    assert_eq!(done.code, Some(1));
    assert!(
        done.error()
            .contains("model.safetensors: the download was damaged twice: its hash is not"),
        "{done:?}"
    );
    assert!(
        !client
            .place
            .path(&format!(
                "hf/hub/models--org--tiny/blobs/{}",
                sha256(&bytes)
            ))
            .exists()
    );
    // As is what is longer than was said, however often.
    assert_eq!(
        fetch(Stored {
            longer: 1,
            ..large.clone()
        })
        .code,
        Some(0)
    );
    assert_eq!(
        client.snapshot("models--org--tiny", "model.safetensors"),
        bytes
    );
    let done = fetch(Stored {
        longer: 2,
        ..large.clone()
    });
    assert_eq!(done.code, Some(1));
    let said = format!(
        "model.safetensors: the download was damaged twice: it is longer than {} bytes",
        bytes.len()
    );
    assert!(done.error().contains(&said), "{done:?}");
    // Small files, which git keeps, have a hash as well.
    let config = client.place.read("model/config.json");
    let small = "models/org/tiny/config.json";
    client.server.put(name, large.clone());
    for (lies, code) in [(1, 0), (2, 1)] {
        client.server.put(
            small,
            Stored {
                bytes: config.clone(),
                lies,
                ..Stored::default()
            },
        );
        let _ = fs::remove_dir_all(client.place.path("hf"));
        let done = Done::of(client.command(&format!("{EVAL} org/tiny")));
        assert_eq!(done.code, Some(code), "{done:?}");
        let blob = client.place.path(&format!(
            "hf/hub/models--org--tiny/blobs/{}",
            git_hash(&config)
        ));
        assert_eq!(blob.exists(), code == 0, "{lies}");
        assert_eq!(
            done.error()
                .contains("config.json: the download was damaged twice"),
            code == 1,
            "{done:?}"
        );
    }
    // A process that was killed in the middle: the next one goes on. Here the start is another program's.
    client.server.put(name, large);
    client.server.forget();
    let partial = format!(
        "hf/hub/models--org--tiny/blobs/{}.incomplete",
        sha256(&bytes)
    );
    client.place.write(&partial, &bytes[..1000]);
    client.good(&format!("{EVAL} org/tiny"));
    assert_eq!(
        client
            .server
            .asked(&format!("GET /bytes/{} 1000 ", sha256(&bytes))),
        1
    );
    assert_eq!(
        client.snapshot("models--org--tiny", "model.safetensors"),
        bytes
    );
    assert!(!client.place.path(&partial).exists());
    // A start that is not this file's is thrown away, as is one that is too long.
    for (start, bytes_there) in [("wrong", vec![7; 500]), ("long", vec![7; bytes.len() + 1])] {
        let _ = fs::remove_dir_all(client.place.path("hf"));
        client.place.write(&partial, bytes_there);
        client.good(&format!("{EVAL} org/tiny"));
        assert_eq!(
            client.snapshot("models--org--tiny", "model.safetensors"),
            bytes,
            "{start}"
        );
    }
}

#[test]
fn a_path_is_missing_before_the_hub_is_asked() {
    let client = Client::new();
    client.place.rows("data/pairs.jsonl", &[preference(0)]);
    let train = "train --out x --model";
    for (words, parts) in [
        (
            format!("{train} org/tiny --dpo data/pair.jsonl"),
            [
                "dpo: there is no file `data/pair.jsonl`",
                "did you mean `data/pairs.jsonl`?",
            ],
        ),
        (
            format!("{train} org/tiny --sft org/rows.csv"),
            [
                "sft: there is no file `org/rows.csv`",
                "the path is relative to /",
            ],
        ),
        (
            format!("{train} ./org/tiny --sft sft.jsonl"),
            [
                "model: there is no folder `./org/tiny`",
                "a Hub id, ORG/NAME",
            ],
        ),
        (
            format!("{train} org/tiny --dpo dpo.jsonl --reference runs/a/adapter"),
            [
                "reference: there is no folder `runs/a/adapter`",
                "train:chosen",
            ],
        ),
        (
            format!("{train} org/tiny --sft sft.jsonl --sft-eval ../held.json"),
            ["sft-eval: there is no file `../held.json`", "hint"],
        ),
        (
            format!("{train} org/tiny --sft sft.jsonl --init-adapter data/adapter"),
            ["init-adapter: there is no folder `data/adapter`", "PEFT"],
        ),
        (
            "inspect dto.jsonl --model model".to_owned(),
            [
                "DATA: there is no file `dto.jsonl`",
                "did you mean `dpo.jsonl`?",
            ],
        ),
        (
            "generate --prompts ~/prompts.txt --model model".to_owned(),
            ["prompts: there is no file `~/prompts.txt`", "hint"],
        ),
        (
            "eval loss --sft sft.jsonl --model model --adapter /nowhere".to_owned(),
            ["adapter: there is no folder `/nowhere`", "run folder"],
        ),
        (
            "doctor --model mdel".to_owned(),
            ["model: there is no folder `mdel`", "did you mean `model`?"],
        ),
    ] {
        client.refused(&words, &parts);
    }
    assert_eq!(client.server.asked(""), 0);

    // What may be an id is said to be neither here nor there.
    for (words, part) in [
        (
            format!("{train} models/tiny --sft sft.jsonl"),
            "model: there is no folder `models/tiny` here, and http://127.0.0.1:1 cannot be reached",
        ),
        (
            format!("{train} model --dpo org/pairs:train"),
            "dpo: there is no file `org/pairs:train` here, and http://",
        ),
        (
            "inspect org/rows --model model".to_owned(),
            "DATA: there is no file `org/rows` here, and http://",
        ),
        (
            "eval loss --sft sft.jsonl --model model --adapter org/lora".to_owned(),
            "adapter: there is no folder `org/lora` here, and http://",
        ),
    ] {
        let mut command = client.command(&words);
        command.env("HF_ENDPOINT", "http://127.0.0.1:1");
        let done = Done::of(command);
        assert_eq!(done.code, Some(1), "{words}: {done:?}");
        for part in [part, "check its path", "HTTPS_PROXY"] {
            assert!(done.error().contains(part), "{words}: {part}: {done:?}");
        }
    }
    let done = Done::of(client.command(&format!("{train} org/nothing --sft sft.jsonl")));
    assert!(
        done.error()
            .contains("error: model: org/nothing: no such local folder"),
        "{done:?}"
    );
}

#[test]
fn a_cache_that_is_whole_need_not_be_written() {
    let client = Client::new();
    let local = client.good(&format!("{EVAL} org/tiny")).stdout;
    let branch = client.place.path("hf/hub/models--org--tiny/refs/main");
    let file = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = file(&branch);
    assert_eq!(client.good(&format!("{EVAL} org/tiny")).stdout, local);
    assert_eq!(
        file(&branch),
        before,
        "what holds the commit already is left alone"
    );
    // Nor does it matter then that it cannot be.
    fs::remove_file(&branch).unwrap();
    fs::create_dir(&branch).unwrap();
    assert_eq!(client.good(&format!("{EVAL} org/tiny")).stdout, local);
    fs::remove_file(client.place.path(&format!(
        "hf/hub/models--org--tiny/snapshots/{COMMIT}/config.json"
    )))
    .unwrap();
    fs::remove_file(
        client
            .place
            .path("hf/hub/models--org--tiny/blobs")
            .join(git_hash(&client.place.read("model/config.json"))),
    )
    .unwrap();
    let done = Done::of(client.command(&format!("{EVAL} org/tiny")));
    assert!(
        done.code == Some(1) && done.error().contains("refs/main: cannot write"),
        "{done:?}"
    );
}

#[test]
fn what_was_fetched_before_does_where_the_hub_does_not_answer_for_now() {
    let client = Client::new();
    let local = client.good(&format!("{EVAL} org/tiny")).stdout;
    let asked = |refusal, model: &str| {
        client.server.shelf.lock().unwrap().refusal = Some(refusal);
        Done::of(client.command(&format!("{EVAL} {model}")))
    };
    for (status, code) in [
        ("401 Unauthorized", "RepoNotFound"),
        ("403 Forbidden", "GatedRepo"),
        ("429 Too Many Requests", ""),
        ("500 Internal Server Error", ""),
        ("503 Service Unavailable", ""),
    ] {
        let done = asked((status, code), "org/tiny");
        assert_eq!(
            (done.code, &done.stdout),
            (Some(0), &local),
            "{status}: {done:?}"
        );
        let said = format!(
            "answered {}; using org/tiny@{} from the cache",
            &status[..3],
            &COMMIT[..12]
        );
        assert!(
            done.stderr.contains("warning: http://") && done.stderr.contains(&said),
            "{status}: {done:?}"
        );
        // What is not there is refused as ever.
        let done = asked((status, code), "org/other");
        assert!(
            done.code != Some(0) && !done.stderr.contains("from the cache"),
            "{status}: {done:?}"
        );
    }
    // Nor need a newer commit be had whose files it lists and does not send.
    client.server.shelf.lock().unwrap().refusal = None;
    client.server.shelf.lock().unwrap().newer = Some("403 Forbidden");
    let done = Done::of(client.command(&format!("{EVAL} org/tiny")));
    assert_eq!((done.code, &done.stdout), (Some(0), &local), "{done:?}");
    assert!(
        done.stderr
            .contains(&format!("using org/tiny@{} from the cache", &COMMIT[..12])),
        "{done:?}"
    );
    client.server.shelf.lock().unwrap().newer = None;
    for (code, said) in [
        ("RevisionNotFound", "org/tiny: no revision main"),
        ("RepoNotFound", "org/tiny: no such local folder"),
    ] {
        let done = asked(("404 Not Found", code), "org/tiny");
        assert!(
            done.code == Some(2) && done.error().contains(said),
            "{done:?}"
        );
    }
}

#[test]
fn shards_adapters_and_mirrors_are_followed_and_recorded() {
    let client = Client::new();
    client.place.model("sharded", "llama_linear_rope");
    client
        .server
        .put_folder("models/org/sharded", &client.place, "sharded");
    client.server.put(
        "models/org/sharded/README.md",
        Stored {
            bytes: b"not needed".to_vec(),
            ..Stored::default()
        },
    );
    let mut command = client.command(&format!("{EVAL} org/sharded"));
    command.env(
        "HF_ENDPOINT",
        format!("http://{}/old/", client.server.address),
    );
    // The mirror redirects listings as well.
    let through = Done::good(command).stdout;
    assert_eq!(through, client.good(&format!("{EVAL} sharded")).stdout);
    assert_eq!(client.server.asked("README"), 0);
    let _ = fs::remove_dir_all(client.place.path("hf"));
    client.server.forget();
    let mut command = client.command(&format!("{EVAL} org/sharded"));
    command
        .env(
            "HF_ENDPOINT",
            format!("http://{}/far", client.server.address),
        )
        .env("HF_TOKEN", TOKEN);
    assert_eq!(Done::good(command).stdout, through);
    let asked = client.server.shelf.lock().unwrap().asked.clone();
    let token = |line: &&String| line.ends_with(" token");
    assert!(
        asked
            .iter()
            .filter(|line| line.contains(" /far/"))
            .all(|line| token(&line)),
        "{asked:?}"
    );
    assert!(
        !asked
            .iter()
            .filter(|line| !line.contains(" /far/"))
            .any(|line| token(&line)),
        "the token went elsewhere: {asked:?}"
    );

    client.place.adapter("adapter", "llama");
    client
        .server
        .put_folder("models/org/adapter", &client.place, "adapter");
    client
        .server
        .put("models/org/adapter/optimizer.pt", Stored::default());
    client.server.put(
        "models/org/adapter/tokenizer.json",
        Stored {
            bytes: b"{}".to_vec(),
            ..Stored::default()
        },
    );
    let template = Stored {
        bytes: b"{{ messages }}".to_vec(),
        ..Stored::default()
    };
    client
        .server
        .put("models/org/adapter/chat_template.jinja", template);
    let [local, remote] = ["adapter", "org/adapter"]
        .map(|name| client.good(&format!("{EVAL} org/tiny --adapter {name}")));
    assert_eq!(local.stdout, remote.stdout);
    assert_eq!(client.server.asked("optimizer.pt"), 0);
    // That it has a tokenizer and a template of its own is said where it is merged.
    let done = client.good("export org/adapter --model org/tiny --merge --out own");
    for name in ["tokenizer.json", "chat_template.jinja"] {
        assert!(
            done.stderr
                .contains(&format!("{COMMIT}/{name} differs from that of the base")),
            "{done:?}"
        );
    }

    // A run says which commit it sits on, and its export finds it there.
    let words = "--model org/tiny --reference org/adapter";
    Done::good({
        let mut command = client.place.train(words);
        command
            .env("HF_ENDPOINT", format!("http://{}", client.server.address))
            .env("HF_HUB_OFFLINE", "0");
        command
    });
    let config: Value =
        serde_json::from_slice(&client.place.read("run/adapter/adapter_config.json")).unwrap();
    assert_eq!(
        (&config["base_model_name_or_path"], &config["revision"]),
        (&json!("org/tiny"), &json!(COMMIT))
    );
    let written = String::from_utf8(client.place.read("run/config.toml")).unwrap();
    assert!(
        written.contains("model = \"org/tiny\""),
        "what was asked for: {written}"
    );
    client.good("export run --merge --out merged");
    let record: Value =
        serde_json::from_slice(&client.place.read("merged/upright_merge.json")).unwrap();
    assert_eq!(
        (&record["base"]["name"], &record["base"]["revision"]),
        (&json!("org/tiny"), &json!(COMMIT))
    );
    assert!(
        fs::symlink_metadata(client.place.path("merged/tokenizer.json"))
            .unwrap()
            .is_file(),
        "no link"
    );
    client.good("inspect sft.jsonl --model org/tiny --json");
    client.good("doctor --model org/tiny --json");
}

#[test]
fn the_token_stays_at_the_hubs_own_port() {
    let client = Client::new();
    // The same machine, another port: not the hub.
    let elsewhere = Server::new();
    elsewhere.put_folder("models/org/tiny", &client.place, "model");
    client.server.shelf.lock().unwrap().bytes_at = Some(elsewhere.address.clone());
    let mut command = client.command(&format!("{EVAL} org/tiny"));
    command.env("HF_TOKEN", TOKEN);
    Done::good(command);
    assert_eq!(
        client.server.asked("nobody"),
        0,
        "every request to the hub carries the token"
    );
    assert_eq!(
        (elsewhere.asked("GET /bytes/"), elsewhere.asked(" token")),
        (1, 0)
    );
}

#[test]
fn datasets_by_split_and_file() {
    let client = Client::new();
    let rows = |row: fn(usize) -> Value, n: usize| {
        (0..n)
            .map(|i| format!("{}\n", row(i)))
            .collect::<String>()
            .into_bytes()
    };
    for (name, bytes) in [
        ("org/sft/README.md", b"words".to_vec()),
        ("org/sft/train.jsonl", rows(instruction, 5)),
        ("org/sft/test.jsonl", rows(instruction, 3)),
        ("org/pairs/helpful/train.jsonl", rows(preference, 4)),
        ("org/pairs/harmless/a train.jsonl", rows(preference, 2)),
        (
            "org/many/data/train-00000-of-00002.jsonl",
            rows(instruction, 2),
        ),
        (
            "org/many/data/train-00001-of-00002.jsonl",
            rows(instruction, 2),
        ),
        ("org/torn/train-00001-of-00003.jsonl", rows(instruction, 2)),
        ("org/none/script.py", b"import this".to_vec()),
    ] {
        client.server.put(
            &format!("datasets/{name}"),
            Stored {
                bytes,
                ..Stored::default()
            },
        );
    }
    let count = |words: &str| {
        client
            .good(&format!("eval loss --model model --json {words}"))
            .json()[0]["rows"]
            .clone()
    };
    assert_eq!(count("--sft org/sft"), json!(5));
    assert_eq!(count("--sft org/sft:test"), json!(3));
    assert_eq!(count("--sft org/sft@main:train.jsonl"), json!(5));
    assert_eq!(count("--dpo org/pairs:helpful"), json!(4));
    assert_eq!(
        count("--sft org/many:data/train-00001-of-00002.jsonl"),
        json!(2)
    );
    assert_eq!(
        client.snapshot("datasets--org--sft", "test.jsonl"),
        rows(instruction, 3)
    );
    for (words, parts) in [
        (
            "--dpo org/pairs",
            &[
                "org/pairs: more than one split or file matches",
                "org/pairs:harmless/train, org/pairs:helpful/train",
            ][..],
        ),
        (
            "--sft org/sft:dev",
            &["org/sft: no split or file `dev`", "available: test, train"],
        ),
        (
            "--sft org/torn",
            &[
                "org/torn: incomplete split: 1 of 3 files are present",
                "org/torn:train-00001-of-00003.jsonl",
            ],
        ),
        (
            "--sft org/none",
            &["org/none: has no .json, .jsonl or .parquet file"],
        ),
        (
            "--sft org/nothing",
            &["org/nothing: no such local folder, and no readable dataset of that name"],
        ),
        (
            "--sft org/rows.jsonl",
            &["sft: there is no file `org/rows.jsonl`"],
        ),
    ] {
        client.refused(&format!("eval loss --model model {words}"), parts);
    }
    assert_eq!(
        client.place.read("sft.jsonl").len(),
        rows(instruction, 40).len()
    );
}

#[test]
fn a_split_in_several_files_is_one_set_of_rows() {
    let client = Client::new();
    let rows = |rows: std::ops::Range<usize>| {
        rows.map(|i| format!("{}\n", instruction(i)))
            .collect::<String>()
    };
    let shards = [0..6, 6..7, 7..20];
    for (index, shard) in shards.iter().enumerate() {
        for (repo, split) in [("many", "train"), ("many", "test")] {
            let name = format!("datasets/org/{repo}/data/{split}-0000{index}-of-00003.jsonl");
            let range = if split == "test" {
                shard.start + 100..shard.end + 100
            } else {
                shard.clone()
            };
            client.server.put(
                &name,
                Stored {
                    bytes: rows(range).into_bytes(),
                    ..Stored::default()
                },
            );
        }
    }
    client.place.write("whole.jsonl", rows(0..20));
    client.place.write("held.jsonl", rows(100..120));
    client.place.write("two.jsonl", rows(50..52));
    // The same rows as in one file, also where only the first are wanted.
    for words in ["", " --limit 8", " --limit 3"] {
        let eval = |data: &str| {
            client
                .good(&format!(
                    "eval loss --model model --per-row --sft {data}{words}"
                ))
                .stdout
        };
        assert_eq!(eval("org/many"), eval("whole.jsonl"), "{words}");
    }
    let shown = client
        .good("inspect org/many:train --model model --row 19 --held-out 0")
        .stdout;
    assert!(
        shown.contains("rows         20 instruction rows") && shown.contains("Count 19 of the"),
        "{shown}"
    );
    client.refused(
        "inspect org/many --model model --row 20",
        &["train-00000-of-00003.jsonl and 2 more: there is no row 20"],
    );

    let train = |words: &str| {
        let mut command = client.place.train(&format!("{words} !--dpo --lambda 0"));
        command
            .env("HF_ENDPOINT", format!("http://{}", client.server.address))
            .env("HF_HUB_OFFLINE", "0");
        command
    };
    let steps = |run: &str| -> Vec<Value> {
        let text = String::from_utf8(client.place.read(&format!("{run}/steps.jsonl"))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["loss/sft"].clone())
            .collect()
    };
    for (run, words) in [
        ("a", ""),
        ("b", "--sft-rows 7 --held-out 0"),
        ("c", "--sft-eval EVAL"),
    ] {
        for (data, held) in [
            ("whole.jsonl", "held.jsonl"),
            ("org/many@main", "org/many:test"),
        ] {
            let run = format!("{run}{}", data.len());
            Done::good(train(&format!(
                "--sft {data} {} --out {run}",
                words.replace("EVAL", held)
            )));
        }
        assert_eq!(
            steps(&format!("{run}11")),
            steps(&format!("{run}13")),
            "{words}"
        );
    }
    // The plan names the files; the config what was asked. The run is continued wherever they are.
    let plan = String::from_utf8(client.place.read("c13/plan.toml")).unwrap();
    assert!(
        plan.contains("train-00002-of-00003.jsonl") && plan.contains("test-00000-of-00003.jsonl"),
        "{plan}"
    );
    let config = String::from_utf8(client.place.read("c13/config.toml")).unwrap();
    assert!(
        config.contains("sft = \"org/many@main\"")
            && config.contains("sft-eval = \"org/many:test\""),
        "{config}"
    );
    let elsewhere = client.place.path("elsewhere");
    let mut command = train("--sft org/many --sft-eval org/many:test --out c13 --resume");
    command.env("HF_HUB_CACHE", &elsewhere);
    Done::good(command);
    // A share is one of all its rows: twice as many as of the other file, whose two rows repeat.
    let done = Done::good(train(
        "--sft org/many:2 --sft two.jsonl:1 --held-out 0 --out shares",
    ));
    assert!(
        done.stderr.contains("sft: 30 rows") && done.stderr.contains("8 of them are repeats"),
        "{done:?}"
    );
    for (words, part) in [
        (
            "--sft org/many:0.5",
            "sft must list several files to use shares, found `org/many:0.5`",
        ),
        (
            "--sft org/many --sft org/many:train",
            "sft must name every file once, found `org/many:train`",
        ),
        (
            "--sft org/many --sft org/many:data/train-00001-of-00003.jsonl",
            "sft must name every file once",
        ),
    ] {
        let done = Done::of(train(&format!("{words} --out other")));
        assert!(
            done.code == Some(2) && done.error().contains(part),
            "{words}: {done:?}"
        );
    }
    client.good("bench --model model --sft org/many --steps 1 --threads 2 --max-length 128 --lora-rank 2 --json");
    client
        .place
        .rows("dpo.jsonl", &(0..4).map(preference).collect::<Vec<_>>());
    let both = client
        .good("inspect --similarity --sft org/many --dpo dpo.jsonl --model model --json")
        .json();
    assert_eq!(
        (&both[0]["sft_rows"], &both[0]["dpo_rows"]),
        (&json!(20), &json!(4))
    );
    // Offline, a split of which another program fetched a part is not taken for the whole.
    let kept =
        format!("hf/hub/datasets--org--many/snapshots/{COMMIT}/data/train-00001-of-00003.jsonl");
    fs::remove_file(client.place.path(&kept)).unwrap();
    let mut command = client.command("eval loss --model model --sft org/many");
    command.env("HF_HUB_OFFLINE", "1");
    let done = Done::of(command);
    assert!(
        done.error()
            .contains("org/many: incomplete split: 2 of 3 files are present"),
        "{done:?}"
    );
    assert!(done.error().contains("HF_HUB_OFFLINE is set"), "{done:?}");
}

#[test]
fn refusals_say_the_way_out_and_tokens_open_doors() {
    let client = Client::new();
    client.server.put(
        "models/org/gated/config.json",
        Stored {
            bytes: b"{}".to_vec(),
            ..Stored::default()
        },
    );
    client
        .server
        .put_folder("models/org/gated", &client.place, "model");
    client
        .server
        .shelf
        .lock()
        .unwrap()
        .gated
        .push("models/org/gated".into());
    client
        .server
        .put("models/org/old/config.json", Stored::default());
    client
        .server
        .put("models/org/old/pytorch_model.bin", Stored::default());
    client
        .server
        .put("models/org/lora/adapter_config.json", Stored::default());
    client
        .server
        .put("models/org/lora/adapter_model.bin", Stored::default());
    client
        .server
        .put("models/org/notes/README.md", Stored::default());
    for (words, parts) in [
        (
            "org/gated",
            &[
                "org/gated: access to this model is restricted",
                "set HF_TOKEN and accept the terms",
                "/org/gated",
            ][..],
        ),
        (
            "org/nothing",
            &[
                "org/nothing: no such local folder, and no readable model of that name",
                "spelling",
                "HF_TOKEN",
            ],
        ),
        ("org/tiny@v9", &["org/tiny: no revision v9", "branch"]),
        (
            "org/old",
            &[
                "org/old: has no model.safetensors, only pytorch_model.bin",
                "safetensors",
            ],
        ),
        ("org/lora", &["org/lora: has an adapter, not a model"]),
        ("org/notes", &["org/notes: has no config.json"]),
        (
            "org/tiny:train",
            &["org/tiny:train: only the id of a dataset takes a part"],
        ),
        (
            "model --adapter org/lora",
            &["org/lora: has only adapter_model.bin", "PEFT"],
        ),
        (
            "model --adapter org/tiny",
            &["org/tiny: has no adapter_config.json"],
        ),
        ("model/nowhere", &["there is no folder `model/nowhere`"]),
    ] {
        client.refused(&format!("{EVAL} {words}"), parts);
    }
    assert_eq!(
        client.server.asked("model/nowhere"),
        0,
        "below a folder that is here nothing else is meant"
    );
    let with = |name: &str, value: &str| {
        let mut command = client.command(&format!("{EVAL} org/gated"));
        command.env(name, value);
        Done::of(command)
    };
    assert!(
        with("HF_TOKEN", "hf_other")
            .error()
            .contains("has not been granted access: accept the terms")
    );
    assert_eq!(with("HF_TOKEN", TOKEN).code, Some(0));
    assert!(!with("HF_TOKEN", TOKEN).stderr.contains(TOKEN));
    fs::remove_dir_all(client.place.path("hf")).unwrap();
    client.place.write("hf/token", format!("{TOKEN}\n"));
    client.good(&format!("{EVAL} org/gated"));
    // Only what is not there is a failure of the network.
    let mut command = client.command(&format!("{EVAL} org/unknown"));
    command.env("HF_ENDPOINT", "http://127.0.0.1:1");
    let done = Done::of(command);
    assert_eq!(done.code, Some(1));
    assert!(
        done.error().contains("cannot be reached") && done.error().contains("HF_ENDPOINT"),
        "{done:?}"
    );
    let mut command = client.command(&format!("{EVAL} org/unknown"));
    command.env("HF_HUB_OFFLINE", "1");
    let done = Done::of(command);
    assert!(
        done.error()
            .contains("model: there is no folder `org/unknown` here, and org/unknown@main: not in")
            && done.error().contains("HF_HUB_OFFLINE is set"),
        "{done:?}"
    );
    let mut rest = Vec::new();
    let mut stream = TcpStream::connect(&client.server.address).unwrap();
    stream.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").unwrap();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 404"));
}

#[test]
fn the_subjects_of_mmlu_are_fetched_by_folder() {
    let client = Client::new();
    let row = |name: &str| {
        let row = json!({"question": name, "choices": ["a", "b", "c", "d"], "answer": 1});
        row.to_string().into_bytes()
    };
    let put = |name: &str, bytes: Vec<u8>| {
        let stored = Stored {
            bytes,
            ..Stored::default()
        };
        client
            .server
            .put(&format!("datasets/org/mmlu/{name}"), stored);
    };
    for subject in ["anatomy", "virology"] {
        for split in ["dev", "test", "validation"] {
            let name = format!("{subject}/{split}.jsonl");
            put(&name, row(&name));
        }
    }
    put("README.md", b"MMLU".to_vec());
    let words = "eval mmlu --model model --shots 1 --json --data org/mmlu --subjects";
    let done = client.good(&format!("{words} anatomy"));
    assert!(
        done.stderr.contains("downloaded 2 files to"),
        "dev and test of one subject: {done:?}"
    );
    assert_eq!(done.json()[0]["tasks"]["mmlu_anatomy"]["total"], 1);
    assert_eq!(
        client.snapshot("datasets--org--mmlu", "anatomy/dev.jsonl"),
        row("anatomy/dev.jsonl")
    );
    client.refused(
        &format!("{words} sociology"),
        &["org/mmlu: has no file sociology/dev-*.parquet"],
    );
    client.refused(
        &words
            .replace("org/mmlu", "org/mmlu:anatomy")
            .replace(" --subjects", ""),
        &["org/mmlu:anatomy: the dataset is used as a whole"],
    );
}
