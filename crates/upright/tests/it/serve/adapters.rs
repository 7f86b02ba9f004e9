//! Adapters that requests load and unload.

use std::{
    io::{Read, Write},
    os::unix::fs::symlink,
};

use serde_json::{Value, json};

use super::client::{Answer, Server, events, read_answer};
use crate::fixture::{Done, Place};

const IN_MEMORY: &str = "upright_adapters";

impl Server {
    fn load(&self, name: &str, path: &str) -> Answer {
        let body = json!({"lora_name": name, "lora_path": path});
        self.post("/v1/load_lora_adapter", &body)
    }

    fn unload(&self, name: &str) -> Answer {
        self.post("/v1/unload_lora_adapter", &json!({ "lora_name": name }))
    }

    /// The names in the list of models.
    fn names(&self) -> Vec<String> {
        let listed = self.get("/v1/models").good();
        let mut names = Vec::new();
        for model in listed["data"].as_array().unwrap() {
            names.push(model["id"].as_str().unwrap().to_owned());
        }
        names
    }

    /// What the server answers a model's name with.
    fn asked(&self, model: &str) -> Answer {
        self.post("/v1/completions", &ask(model))
    }

    fn choices(&self, model: &str) -> Value {
        self.asked(model).good()["choices"].clone()
    }
}

/// A prompt that is long enough to be kept, with the log-probabilities of its tokens.
fn ask(model: &str) -> Value {
    let prompt: Vec<u32> = (0..60).map(|i| (i * 7 + 3) % 61).collect();
    json!({"model": model, "prompt": prompt, "max_tokens": 4, "temperature": 0, "logprobs": 2,
        "echo": true})
}

/// A place with two adapters of the model in `allowed`, whose weights differ in effect.
fn two_adapters() -> Place {
    let place = Place::new();
    place.adapter("allowed/one", "llama");
    place.adapter("allowed/two", "llama");
    place.edit("allowed/two/adapter_config.json", |config| {
        config["lora_alpha"] = json!(40);
    });
    place
}

fn success(answer: &Answer, expected: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: text/plain"));
    assert_eq!(answer.body, expected);
}

#[test]
fn adapters_are_loaded_and_unloaded_by_request() {
    let place = two_adapters();
    Done::good(place.train("!--steps --steps 2 --learning-rate 1e-2 --out allowed/run"));
    let fixed = Server::start(
        &place,
        "--model model --adapter one=allowed/one --adapter run=allowed/run",
    );
    let server = Server::start(
        &place,
        "--model model --adapter given=allowed/two --allow-adapters allowed",
    );
    let base = server.choices("model");
    let loaded = server.load("one", "one");
    success(&loaded, "Success: LoRA adapter 'one' added successfully.");
    let absolute = place.path("allowed/run");
    assert_eq!(server.load("run", absolute.to_str().unwrap()).status, 200);
    assert_eq!(server.names(), ["model", "given", "one", "run"]);
    for name in ["one", "run"] {
        assert_eq!(server.choices(name), fixed.choices(name), "{name}");
        assert_ne!(server.choices(name), base, "{name}");
        let entry = server.get(&format!("/v1/models/{name}")).good();
        assert_eq!(entry["parent"], "model");
        let first = server.get("/v1/models/model").good();
        assert!(entry["created"].as_u64() >= first["created"].as_u64());
    }
    server.await_metric(IN_MEMORY, 3.0);

    // An adapter of the command line is unloaded like any other.
    let unloaded = server.unload("given");
    success(
        &unloaded,
        "Success: LoRA adapter 'given' removed successfully.",
    );
    assert_eq!(server.names(), ["model", "one", "run"]);
    assert_eq!(server.get("/v1/models/given").status, 404);
    let answer = server.asked("given");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    let answer = server.unload("given");
    assert_eq!(answer.status, 404);
    assert!(
        answer.error().contains("this server has one, run"),
        "{answer:?}"
    );
    server.await_metric(IN_MEMORY, 2.0);

    let answer = server.unload("model");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("is the base"), "{answer:?}");
    for name in ["one", "model", ""] {
        let answer = server.load(name, "two");
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert_eq!(answer.json()["error"]["param"], "lora_name", "{name}");
    }
    let body = json!({"lora_name": "x", "lora_path": "one", "base_model_name": "model"});
    let answer = server.post("/v1/load_lora_adapter", &body);
    assert_eq!(answer.json()["error"]["param"], "base_model_name");
    assert_eq!(server.get("/v1/load_lora_adapter").status, 405);
    assert_eq!(server.choices("model"), base);
}

/// The folder is only one for the command that names it, and the key holds for these routes too.
#[test]
fn requests_load_nothing_unless_a_folder_is_allowed() {
    let place = two_adapters();
    let server = Server::start(&place, "--model model --adapter given=allowed/two");
    for answer in [server.load("one", "allowed/one"), server.unload("given")] {
        assert_eq!(answer.status, 403);
        assert!(answer.error().contains("--allow-adapters"), "{answer:?}");
    }
    assert_eq!(server.names(), ["model", "given"]);
    let done = Done::of(place.command("serve --model model --port 0 --allow-adapters sft.jsonl"));
    assert!(
        done.error()
            .contains("allow-adapters: sft.jsonl is not a folder"),
        "{done:?}"
    );
    let done = Done::of(place.command("serve --model model --port 0 --max-adapters 3"));
    assert!(done.error().contains("--allow-adapters"), "{done:?}");

    let words = "--model model --allow-adapters allowed --api-key-env PATH";
    let server = Server::start(&place, words);
    assert_eq!(server.load("one", "one").status, 401);
    assert_eq!(server.unload("one").status, 401);
}

/// Paths that lead elsewhere have one answer, whatever is there.
#[test]
fn paths_stay_below_the_allowed_folder() {
    let place = two_adapters();
    place.adapter("outside", "llama");
    symlink(place.path("outside"), place.path("allowed/link")).unwrap();
    symlink(place.path("allowed/one"), place.path("allowed/inner")).unwrap();
    place.write("allowed/linked/adapter_config.json", "{}");
    let weights = "adapter_model.safetensors";
    let outside = place.path("outside").join(weights);
    symlink(&outside, place.path("allowed/linked").join(weights)).unwrap();
    let server = Server::start(&place, "--model model --allow-adapters allowed");
    let absolute = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let mut messages = Vec::new();
    for path in [
        "missing",
        "link",
        "linked",
        "../outside",
        "one/../../outside",
        "../allowed-not",
        &absolute("outside"),
        &absolute("missing"),
        "/etc/passwd",
        // A Hub id is a path like any other.
        "peft-internal-testing/opt-350m-lora",
    ] {
        let answer = server.load("x", path);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        messages.push(answer.body);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    for (name, path) in [
        ("a", "inner"),
        ("b", "two/../one"),
        ("c", &absolute("allowed/one")),
    ] {
        assert_eq!(server.load(name, path).status, 200, "{path}");
    }
}

#[test]
fn an_adapter_that_cannot_be_used_is_refused_with_the_reason() {
    let place = two_adapters();
    Done::good(place.train("!--steps --steps 1 --out allowed/run"));
    let weights = place.read("allowed/one/adapter_model.safetensors");
    place.write(
        "allowed/two/adapter_model.safetensors",
        &weights[..weights.len() / 2],
    );
    place.write("allowed/file", "x");
    std::fs::create_dir(place.path("allowed/empty")).unwrap();
    place.model("other", "llama");
    let mut other = place.read("other/model.safetensors");
    let end = other.len() - 2;
    other[end] ^= 1;
    place.write("other/model.safetensors", other);
    let server = Server::start(&place, "--model other --allow-adapters allowed");
    for (path, reason) in [
        ("run", "was trained on another base"),
        ("two", "adapter_model.safetensors"),
        ("file", "adapter_config.json"),
        ("empty", "adapter_config.json"),
    ] {
        let answer = server.load("x", path);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert_eq!(answer.json()["error"]["param"], "lora_path");
        assert!(answer.error().contains(reason), "{path}: {answer:?}");
    }
    // The name and the room are free again.
    assert_eq!(server.names(), ["other"]);
    assert_eq!(server.metric(IN_MEMORY), 0.0);
}

/// The prompts that were kept of the old weights are not used for the new ones.
#[test]
fn a_name_that_is_loaded_again_has_the_new_weights() {
    let place = two_adapters();
    let fixed = Server::start(
        &place,
        "--model model --adapter one=allowed/one --adapter two=allowed/two",
    );
    let one = fixed.choices("one");
    let two = fixed.choices("two");
    assert_ne!(one, two);
    let server = Server::start(&place, "--model model --allow-adapters allowed");
    let computed = || server.metric("upright_computed_prompt_tokens_total");
    assert_eq!(server.load("x", "one").status, 200);
    assert_eq!(server.choices("x"), one);
    assert_eq!(computed(), 60.0);
    // The prompt is kept: the token before the last is computed again.
    assert_eq!(server.choices("x"), one);
    assert!(computed() < 70.0);
    let before = computed();
    assert_eq!(server.unload("x").status, 200);
    assert_eq!(server.load("x", "two").status, 200);
    assert_eq!(server.choices("x"), two);
    assert_eq!(computed(), before + 60.0);

    let mut body = json!({"lora_name": "x", "lora_path": "one"});
    assert_eq!(server.post("/v1/load_lora_adapter", &body).status, 400);
    body["load_inplace"] = json!(true);
    assert_eq!(server.post("/v1/load_lora_adapter", &body).status, 200);
    assert_eq!(server.choices("x"), one);
    assert_eq!(computed(), before + 120.0);
    server.await_metric(IN_MEMORY, 1.0);
    assert_eq!(server.unload("x").status, 200);
    server.await_metric(IN_MEMORY, 0.0);
    server.await_metric("upright_key_value_cache_bytes", 0.0);
}

/// The text and the log-probabilities of every choice of a stream.
fn streamed(body: &str, count: usize) -> Vec<(String, Vec<Value>)> {
    let mut choices = vec![(String::new(), Vec::new()); count];
    for event in events(body) {
        let choice = &event["choices"][0];
        let (text, logps) = &mut choices[choice["index"].as_u64().unwrap() as usize];
        *text += choice["text"].as_str().unwrap();
        let listed = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logps.extend_from_slice(listed);
    }
    choices
}

#[test]
fn answers_in_progress_keep_an_adapter_that_is_unloaded() {
    let place = two_adapters();
    let words = "--model model --adapter x=allowed/one --allow-adapters allowed --max-adapters 1 \
                 --kv-memory 0.00004";
    let server = Server::start(&place, words);
    // One or two answers fit at a time, so the others wait.
    let count = 32;
    let body = json!({"model": "x", "prompt": "one two three", "n": count, "max_tokens": 60,
        "temperature": 1.0, "seed": 5, "ignore_eos": true, "logprobs": 1, "stream": true});
    let whole = server.post("/v1/completions", &body);
    let expected = streamed(&whole.body, count);
    assert!(expected.iter().all(|(_, logps)| logps.len() == 60));

    let mut stream = server.connect();
    let json = "Content-Type: application/json\r\n";
    let request = server.request("POST", "/v1/completions", json, &body.to_string());
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 20];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(server.unload("x").status, 200);
    assert_eq!(server.asked("x").status, 404);
    assert_eq!(server.names(), ["model"]);
    assert_eq!(server.metric(IN_MEMORY), 1.0, "it still answers");
    // Another adapter waits for its room.
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| server.load("x", "two"));
        let mut rest = first.to_vec();
        stream.read_to_end(&mut rest).unwrap();
        let interrupted = read_answer(&rest[..]);
        assert_eq!(streamed(&interrupted.body, count), expected);
        assert_eq!(loading.join().unwrap().status, 200);
    });
    server.await_metric(IN_MEMORY, 1.0);
    assert_eq!(server.unload("x").status, 200);
    server.await_metric(IN_MEMORY, 0.0);
    server.await_metric("upright_key_value_cache_bytes", 0.0);
}

#[test]
fn one_of_several_loads_of_a_name_wins() {
    let place = two_adapters();
    let server = Server::start(&place, "--model model --allow-adapters allowed");
    let base = server.choices("model");
    for name in ["a", "b", "c"] {
        let mut statuses = Vec::new();
        std::thread::scope(|scope| {
            let mut loading = Vec::new();
            for path in ["one", "two", "one", "two", "one", "two"] {
                let server = &server;
                loading.push(scope.spawn(move || server.load(name, path).status));
            }
            assert_eq!(server.choices("model"), base);
            for one in loading {
                statuses.push(one.join().unwrap());
            }
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400, 400, 400, 400, 400]);
    }
    assert_eq!(server.names(), ["model", "a", "b", "c"]);
    server.await_metric(IN_MEMORY, 3.0);
}

#[test]
fn the_number_of_adapters_is_limited() {
    let place = two_adapters();
    let server = Server::start(
        &place,
        "--model model --adapter given=allowed/one --allow-adapters allowed --max-adapters 2",
    );
    assert_eq!(server.load("a", "two").status, 200);
    let answer = server.load("b", "two");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("--max-adapters"), "{answer:?}");
    // An adapter that is replaced needs room beside the new one.
    let body = json!({"lora_name": "a", "lora_path": "one", "load_inplace": true});
    assert_eq!(server.post("/v1/load_lora_adapter", &body).status, 400);
    for _ in 0..5 {
        assert_eq!(server.unload("given").status, 200);
        assert_eq!(server.load("given", "one").status, 200);
    }
    server.await_metric(IN_MEMORY, 2.0);

    // The adapters of the command line always have room.
    let server = Server::start(
        &place,
        "--model model --adapter allowed/one --adapter allowed/two --allow-adapters allowed \
         --max-adapters 1",
    );
    assert_eq!(server.names(), ["model", "one", "two"]);
    assert_eq!(server.load("x", "one").status, 400);
}
