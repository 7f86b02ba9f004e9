//! `upright serve`, asked over HTTP as clients ask.

mod adapters;
mod client;
mod cors;

use std::{
    io::{Read, Write},
    net::Shutdown,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::client::{Server, events};
use crate::fixture::{Done, Place};

/// A request of lm-eval for the log-probabilities of prompts.
fn likelihood(model: &str, prompts: &[&[u32]]) -> Value {
    json!({"model": model, "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": true})
}

/// Log-probabilities of an echoed prompt as lm-eval sums them, from token `from` on.
fn sum(choice: &Value, from: usize) -> f64 {
    let logps = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    let scored = &logps[from..logps.len() - 1];
    scored.iter().map(|logp| logp.as_f64().unwrap()).sum()
}

/// Echoed log-probabilities are those of `upright eval loss`, alone, in a list, after other prompts
/// and beside other requests, for the base and for an adapter.
#[test]
fn an_echoed_answer_is_what_eval_loss_computes() {
    let place = Place::new();
    Done::good(place.train("!--steps --steps 2 --learning-rate 1e-2"));
    let server = Server::start(&place, "--model model --adapter tuned=run");
    for (name, adapter) in [("model", ""), ("tuned", "--adapter run")] {
        let words =
            format!("eval loss --model model {adapter} --sft sft.jsonl --limit 6 --per-row --ids");
        let rows = Done::good(place.command(&words)).json();
        let mut prompts: Vec<Vec<u32>> = Vec::new();
        let mut lengths = Vec::new();
        let mut expected = Vec::new();
        for row in &rows {
            let ids = |name: &str| -> Vec<u32> {
                serde_json::from_value(row["ids"][name].clone()).unwrap()
            };
            let prompt = ids("prompt");
            lengths.push(prompt.len());
            prompts.push([prompt, ids("response")].concat());
            expected.push(row["logp"]["response"].as_f64().unwrap());
        }
        let all: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let together = server.completion(likelihood(name, &all));
        let mut alone = Vec::new();
        std::thread::scope(|scope| {
            let mut asked = Vec::new();
            for prompt in &all {
                let server = &server;
                asked.push(scope.spawn(move || server.completion(likelihood(name, &[prompt]))));
            }
            for answer in asked {
                alone.push(answer.join().unwrap());
            }
        });
        for (index, expected) in expected.iter().enumerate() {
            let choice = &together["choices"][index];
            assert_eq!(choice["index"], index);
            assert_eq!(
                sum(choice, lengths[index]),
                *expected,
                "{name}, row {index}"
            );
            let mut same = alone[index]["choices"][0].clone();
            same["index"] = json!(index);
            assert_eq!(same, *choice, "{name}, row {index}");
            let logprobs = &choice["logprobs"];
            let length = all[index].len() + 1;
            for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                assert_eq!(logprobs[list].as_array().unwrap().len(), length, "{list}");
            }
            assert!(logprobs["token_logprobs"][0].is_null());
            // lm-eval calls a token greedy if its value is the largest of its position.
            for at in 1..length {
                let own = logprobs["token_logprobs"][at].as_f64().unwrap();
                let top = logprobs["top_logprobs"][at].as_object().unwrap();
                let most = top.values().map(|value| value.as_f64().unwrap());
                assert!(own <= most.fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }
}

/// The same prompt with another last token uses the kept keys and values, and has the same bits as
/// on a server that has never seen it.
#[test]
fn a_kept_prompt_changes_no_bit() {
    let place = Place::new();
    place.model("model", "llama");
    let prefix: Vec<u32> = (0..60).map(|i| (i * 7 + 3) % 61).collect();
    let with = |last: u32| [&prefix[..], &[last]].concat();
    let cold = |last: u32| {
        let server = Server::start(&place, "--model model --kv-memory 0.000001");
        server.completion(likelihood("model", &[&with(last)]))["choices"].clone()
    };
    let server = Server::start(&place, "--model model");
    for last in [4, 5, 6] {
        let warm = server.completion(likelihood("model", &[&with(last)]));
        assert_eq!(warm["choices"], cold(last), "{last}");
    }
    assert_eq!(server.metric("upright_prompt_tokens_total"), 183.0);
    // The second and third prompt compute the last token of the prefix and their own.
    assert_eq!(server.metric("upright_computed_prompt_tokens_total"), 65.0);
}

/// Six answers on a server whose memory holds one or two of them: they wait for each other, and are
/// the answers of a server with enough memory. An answer that never fits is refused.
#[test]
fn a_small_cache_makes_answers_wait() {
    let place = Place::new();
    place.model("model", "llama");
    let body = json!({"model": "model", "prompt": ["one two", "three"], "n": 3, "max_tokens": 30,
        "temperature": 1.0, "seed": 5, "ignore_eos": true});
    let roomy = Server::start(&place, "--model model").completion(body.clone());
    // 64 tokens of two layers with keys and values of 16 or 32 numbers take 16 or 32 kB.
    let server = Server::start(&place, "--model model --kv-memory 0.00004");
    assert_eq!(server.completion(body.clone())["choices"], roomy["choices"]);
    let mut long = body;
    long["max_tokens"] = json!(4000);
    let answer = server.post("/v1/completions", &long);
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
}

/// A prompt that the random model answers with some text, and what `upright generate` prints for it.
fn answered(place: &Place, flags: &str) -> (String, Value) {
    let mut seen = Vec::new();
    for number in 0..40 {
        let prompt = format!("Where does Ada {number} live?");
        place.write("prompts.txt", format!("{prompt}\n"));
        let words = format!("generate --model model --prompts prompts.txt {flags}");
        let expected = Done::good(place.command(&words)).json()[0].clone();
        let text = expected["response"].as_str().unwrap();
        if text.chars().count() >= 4 {
            return (prompt, expected);
        }
        seen.push(expected);
    }
    panic!("no prompt has an answer of some length: {seen:?}");
}

/// Answers have the tokens of `upright generate`, whole and as a stream, whatever the neighbors.
#[test]
fn answers_are_those_of_generate() {
    let place = Place::new();
    place.model("model", "llama");
    for sampling in [(0.0, 1.0), (0.8, 0.9)] {
        let (temperature, top_p) = sampling;
        let flags = format!(
            "--template raw --max-tokens 12 --temperature {temperature} --top-p {top_p} --seed 7"
        );
        let (prompt, expected) = answered(&place, &flags);
        let text = expected["response"].as_str().unwrap();
        let server = Server::start(&place, "--model model");
        let body = json!({"model": "model", "prompt": prompt, "max_tokens": 12,
            "temperature": temperature, "top_p": top_p, "seed": 7});
        let whole = server.completion(body.clone());
        assert_eq!(whole["choices"][0]["text"], text);
        assert_eq!(whole["choices"][0]["finish_reason"], finish(&expected));

        let mut many = body.clone();
        many["prompt"] = json!(["another one", prompt, "one"]);
        many["n"] = json!(2);
        let many = server.completion(many);
        assert_eq!(many["choices"].as_array().unwrap().len(), 6);
        assert_eq!(many["choices"][2]["text"], text);

        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({"include_usage": true});
        streamed["logprobs"] = json!(2);
        let answer = server.post("/v1/completions", &streamed);
        assert!(answer.head.contains("text/event-stream"), "{answer:?}");
        let pieces = events(&answer.body);
        let (usage, pieces) = pieces.split_last().unwrap();
        assert_eq!(usage["usage"], whole["usage"]);
        let mut scored = body.clone();
        scored["logprobs"] = json!(2);
        let scored = server.completion(scored)["choices"][0]["logprobs"].clone();
        let mut told = String::new();
        let mut tokens = 0;
        let mut offsets = Vec::new();
        for piece in pieces {
            let listed = &piece["choices"][0]["logprobs"]["text_offset"];
            offsets.extend(listed.as_array().unwrap().clone());
            told += piece["choices"][0]["text"].as_str().unwrap();
            let listed = &piece["choices"][0]["logprobs"]["tokens"];
            tokens += listed.as_array().unwrap().len();
        }
        assert_eq!(told, text);
        assert_eq!(json!(offsets), scored["text_offset"]);
        assert_eq!(
            tokens,
            usage["usage"]["completion_tokens"].as_u64().unwrap() as usize
        );

        let stop: String = text.chars().skip(2).take(1).collect();
        assert!(!stop.is_empty(), "{text:?} is too short for this test");
        let mut stopped = body.clone();
        stopped["stop"] = json!([stop, "never said"]);
        let stopped = server.completion(stopped);
        let end = text.find(&stop).unwrap();
        assert_eq!(stopped["choices"][0]["text"], text[..end]);
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    }
}

fn finish(expected: &Value) -> &'static str {
    if expected["finish"] == "eos" {
        "stop"
    } else {
        "length"
    }
}

#[test]
fn conversations_follow_the_template() {
    let place = Place::new();
    place.model("model", "llama");
    let server = Server::start(
        &place,
        "--model model --template user-assistant --name small",
    );
    let listed = server.get("/v1/models").good();
    assert_eq!(listed["data"][0]["id"], "small");
    assert_eq!(server.get("/v1/models/small").good(), listed["data"][0]);
    let (prompt, expected) = answered(&place, "--template user-assistant --max-tokens 9");
    let chat = json!({"model": "small", "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 9, "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let answer = server.post("/v1/chat/completions", &chat).good();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        content.len() as u64,
        answer["usage"]["completion_tokens"].as_u64().unwrap()
    );
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);

    assert_eq!(choice["message"]["content"], expected["response"]);

    let mut streamed = chat;
    streamed["stream"] = json!(true);
    let pieces = events(&server.post("/v1/chat/completions", &streamed).body);
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(pieces[0]["object"], "chat.completion.chunk");
    let mut told = String::new();
    for piece in &pieces {
        told += piece["choices"][0]["delta"]["content"].as_str().unwrap();
    }
    assert_eq!(told, expected["response"].as_str().unwrap());
}

/// Every bad request gets its answer, and the next good one is answered.
#[test]
fn bad_requests_are_answered_and_concern_nobody_else() {
    let place = Place::new();
    place.model("model", "llama");
    let server = Server::start(
        &place,
        "--model model --max-body 1 --receive-timeout 1 --queue 8",
    );
    let good = json!({"model": "model", "prompt": [5, 9, 31], "max_tokens": 3, "temperature": 0});
    let expected = server.completion(good.clone())["choices"].clone();
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        server.post("/v1/completions", &body)
    };
    let answer = with("model", json!("other"));
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    assert!(
        answer.error().contains("this server has model"),
        "{answer:?}"
    );
    let answer = with("top_k", json!(40));
    assert_eq!(
        (answer.status, answer.json()["error"]["param"].as_str()),
        (400, Some("top_k"))
    );
    let answer = with("prompt", json!([5, 4_000_000_000u32]));
    assert_eq!(answer.status, 400);
    assert!(
        answer.error().contains("is outside the model's vocabulary"),
        "{answer:?}"
    );
    assert_eq!(with("prompt", json!([5, -1])).status, 400);
    let answer = with("prompt", json!(vec![5; 4000]));
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    assert_eq!(with("max_tokens", json!(1_000_000)).status, 400);
    assert_eq!(with("prompt", json!([[5], []])).status, 400);
    let answer = with("n", json!(9));
    assert!(
        answer.error().contains("a request may have 8"),
        "{answer:?}"
    );
    let answer = with("stop", json!([""]));
    assert_eq!(answer.json()["error"]["param"], "stop");

    let answer = server.post_text("/v1/completions", "{\"model\": ");
    assert_eq!(answer.status, 400);
    assert!(
        answer.error().contains("the body is not JSON"),
        "{answer:?}"
    );
    let answer = server.post_text("/v1/completions", &"[".repeat(200_000));
    assert_eq!(answer.status, 400);
    assert_eq!(server.send("POST", "/v1/completions", "", "{}").status, 415);
    assert_eq!(server.get("/v1/completions").status, 405);
    assert_eq!(server.get("/v1/nothing").status, 404);
    assert_eq!(server.get("/v1/models/other").status, 404);

    // A gigabyte is refused by its length, and two megabytes of unknown length by their size.
    let json = "Content-Type: application/json\r\n";
    let announced = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: 1073741824\r\n\r\n{{"
    );
    assert_eq!(server.raw(announced.as_bytes()).status, 413);
    let mut chunked = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\n"
    );
    chunked += &format!("200000\r\n{}\r\n0\r\n\r\n", " ".repeat(0x20_0000));
    assert_eq!(server.raw(chunked.as_bytes()).status, 413);

    // Half a body, half a header, and bytes that are no request.
    let started = Instant::now();
    let slow = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: 100\r\n\r\n{{"
    );
    assert_eq!(server.raw(slow.as_bytes()).status, 408);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let mut half = server.connect();
    half.write_all(b"POST /v1/comp").unwrap();
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert_eq!(server.raw(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").status, 400);

    // A page in a browser that resolves its own name to this machine.
    let foreign = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(foreign.as_bytes()).status, 403);

    // A client that leaves in the middle of its stream.
    let mut long = good.clone();
    long["max_tokens"] = json!(40);
    long["stream"] = json!(true);
    long["ignore_eos"] = json!(true);
    let mut leaving = server.connect();
    let request = server.request("POST", "/v1/completions", json, &long.to_string());
    leaving.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 20];
    leaving.read_exact(&mut first).unwrap();
    leaving.shutdown(Shutdown::Both).unwrap();

    assert_eq!(server.completion(good)["choices"], expected);
    let metrics = server.get("/metrics").body;
    let label = "upright_requests_total{route=\"/v1/completions\",status=\"200\"}";
    assert!(metrics.contains(label), "{metrics}");
    assert!(
        metrics.contains("{route=\"other\",status=\"404\"} 1"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[test]
fn the_tokenizer_has_its_routes() {
    let place = Place::new();
    place.model("model", "llama");
    let server = Server::start(&place, "--model model");
    let text = "one two three";
    let ids = server.post(
        "/tokenize",
        &json!({"prompt": text, "add_special_tokens": false}),
    );
    let ids = ids.good();
    assert_eq!(ids["count"], ids["tokens"].as_array().unwrap().len());
    assert!(ids["max_model_len"].as_u64().unwrap() > 0);
    let back = server
        .post("/detokenize", &json!({"tokens": ids["tokens"]}))
        .good();
    assert_eq!(back["prompt"], text);
    let outside = server.post("/detokenize", &json!({"tokens": [4_000_000_000u32]}));
    assert_eq!(outside.status, 400);
    let info = server.get("/tokenizer_info").good();
    assert!(info["eos_token"].is_string(), "{info}");
    assert_eq!(server.get("/health").good()["status"], "ok");
    assert_eq!(
        server.get("/version").good()["version"],
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn a_server_that_others_reach_needs_a_key() {
    let place = Place::new();
    place.model("model", "llama");
    let done = Done::of(place.command("serve --model model --port 0 --host 0.0.0.0"));
    let expected = "0.0.0.0:0 can be reached from other machines, and the server has no API key";
    assert!(done.error().contains(expected), "{done:?}");
    let done = Done::of(place.command("serve --model model --port 0 --api-key-env NO_SUCH_KEY"));
    assert!(
        done.error()
            .contains("the variable NO_SUCH_KEY is empty or not set"),
        "{done:?}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let done = Done::of(place.command(&format!("serve --model model --port {port}")));
    assert!(
        done.error().contains("cannot listen on 127.0.0.1:"),
        "{done:?}"
    );
    place.adapter("other", "llama");
    let twice = "serve --model model --port 0 --adapter model=other";
    let done = Done::of(place.command(twice));
    assert!(
        done.error().contains("two models are named `model`"),
        "{done:?}"
    );

    // PATH is set wherever tests run, so it serves as a key.
    let key = std::env::var("PATH").unwrap();
    let server = Server::start(&place, "--model model --host 127.0.0.1 --api-key-env PATH");
    let without = server.get("/v1/models");
    assert_eq!(without.status, 401);
    assert_eq!(without.json()["error"]["code"], "invalid_api_key");
    let authorization = format!("Authorization: Bearer {key}\r\n");
    assert_eq!(
        server.send("GET", "/v1/models", &authorization, "").status,
        200
    );
    assert_eq!(
        server
            .send("GET", "/v1/models", "Authorization: Bearer no\r\n", "")
            .status,
        401
    );
    assert_eq!(server.get("/health").status, 200);
}

/// Connections that send nothing give way to one that asks.
#[test]
fn idle_connections_do_not_keep_others_out() {
    let place = Place::new();
    place.model("model", "llama");
    let command = place.command("serve --port 0 --model model");
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    // 100 open files leave room for 36 connections.
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg("ulimit -n 100 && exec \"$0\" \"$@\"")
        .arg(program)
        .args(arguments)
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let server = Server::of(limited);
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(server.connect());
    }
    for _ in 0..3 {
        assert_eq!(server.get("/health").status, 200);
    }
}

/// SIGTERM ends the server with exit code 0, after the answers in progress.
#[test]
fn a_signal_ends_the_server() {
    let place = Place::new();
    place.model("model", "llama");
    let mut server = Server::start(&place, "--model model");
    let id = server.child.id().to_string();
    let kill = Command::new("kill").arg(id).status().unwrap();
    assert!(kill.success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
