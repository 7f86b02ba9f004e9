//! A server of scripted verdicts, also for tests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use serde_json::{Value, json};

/// What a script answers: a status, more lines of the header, and a body.
pub(crate) type Answer = (u16, String, String);

/// Answers every request with `script`, which gets the body as JSON. Ends with the listener.
pub(crate) fn serve(listener: &TcpListener, script: &(dyn Fn(&Value) -> Option<Answer> + Sync)) {
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            scope.spawn(move || {
                // A client that leaves ends its connection only.
                let _ = answer(stream, script);
            });
        }
    });
}

/// Answers the requests of a connection. A script that answers nothing cuts the connection.
fn answer(
    mut stream: TcpStream,
    script: &(dyn Fn(&Value) -> Option<Answer> + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        let mut lines = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            lines += 1;
            let header = line.to_ascii_lowercase();
            if let Some(number) = header.strip_prefix("content-length:") {
                length = number.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if lines == 0 {
            return Ok(());
        }
        let request = serde_json::from_slice(&body).unwrap_or_default();
        let Some((status, more, body)) = script(&request) else {
            return Ok(());
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{body}"
        )?;
        stream.flush()?;
    }
}

/// Phrases of polite answers.
const POLITE: [&str; 12] = [
    "please", "thank", "welcome", "glad", "kind", "lovely", "good day", "sorry", "afraid", "happy",
    "nice", "pleasure",
];

/// Prefers the answer with more polite phrases and, a little, the one that is shown first.
pub(crate) fn polite(request: &Value) -> Option<Answer> {
    let prompt = request["messages"][1]["content"]
        .as_str()
        .unwrap_or_default();
    let mut scores = Vec::new();
    for part in prompt.split("\"output\": \"\"\"").skip(1) {
        let answer = part
            .split("\"\"\"\n")
            .next()
            .unwrap_or_default()
            .to_lowercase();
        let found = POLITE.iter().filter(|phrase| answer.contains(**phrase));
        scores.push(found.count() as f64);
    }
    let [first, second] = scores[..] else {
        let error = json!({"error": {"message": "the request shows no two answers"}});
        return Some((400, String::new(), error.to_string()));
    };
    let p = 1.0 / (1.0 + (-(first - second) - 0.2_f64).exp());
    Some((200, String::new(), reply(request, p).to_string()))
}

/// A reply in the form that the request asks for, where the first answer wins with probability `p`.
pub(crate) fn reply(request: &Value, p: f64) -> Value {
    let (best, other) = if p >= 0.5 { ("m", "M") } else { ("M", "m") };
    let mut choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}});
    if request.get("tools").is_some() {
        let ranking =
            json!({"ordered_models": [{"model": best, "rank": 1}, {"model": other, "rank": 2}]});
        choice["message"]["content"] = Value::Null;
        choice["message"]["tool_calls"] = json!([{
            "id": "call_1", "type": "function",
            "function": {"name": "make_partial_leaderboard", "arguments": ranking.to_string()},
        }]);
    } else {
        choice["message"]["content"] = best.into();
    }
    if request["logprobs"] == true {
        let first = json!({"token": "m", "logprob": p.ln(), "bytes": [109]});
        let second = json!({"token": "M", "logprob": (1.0 - p).ln(), "bytes": [77]});
        let mut chosen = if best == "m" {
            first.clone()
        } else {
            second.clone()
        };
        chosen["top_logprobs"] = json!([first, second]);
        choice["logprobs"] = json!({"content": [chosen]});
    }
    let prompt = request["messages"].to_string().len() / 4;
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1},
    })
}
