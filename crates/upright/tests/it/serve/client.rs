//! A server in a process of its own, and a client without a library.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::fixture::Place;

/// A running server; it ends with the test.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer: its status, and its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The body of a successful answer.
    pub(super) fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The message of an error, which has OpenAI's form.
    pub(super) fn error(&self) -> String {
        let error = &self.json()["error"];
        assert!(error["type"].is_string(), "{self:?}");
        error["message"].as_str().unwrap().to_owned()
    }
}

impl Server {
    /// Starts a server on a free port.
    pub(super) fn start(place: &Place, words: &str) -> Self {
        Self::of(place.command(&format!("serve --port 0 {words}")))
    }

    /// Starts the server of a command, and waits until it listens.
    pub(super) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("no server: {said}"));
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("at http://") {
                break rest.split('/').next().unwrap().to_owned();
            }
            said += &format!("{line}\n");
        };
        // The rest is read, so that the server never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Sends raw bytes, and reads until the server closes the connection.
    pub(super) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses a body may close before all of it is sent.
        let _ = stream.write_all(bytes);
        read_answer(stream)
    }

    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.raw(self.request(method, path, headers, body).as_bytes())
    }

    pub(super) fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub(super) fn post_text(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "Content-Type: application/json\r\n", body)
    }

    /// The value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = words.find(|(word, _)| *word == name).unwrap();
        value.parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(super) fn await_metric(&self, name: &str, value: f64) {
        let began = Instant::now();
        while self.metric(name) != value {
            assert!(began.elapsed() < Duration::from_secs(60), "{name}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn completion(&self, body: Value) -> Value {
        self.post("/v1/completions", &body).good()
    }
}

/// The answer in what a server sent.
pub(super) fn read_answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, rest) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = rest.to_owned();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(rest);
    }
    Answer {
        status,
        head: head.to_lowercase(),
        body,
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        body += &after[..length];
        rest = &after[length + 2..];
    }
    body
}

/// The objects of a stream of events, which ends with `[DONE]`.
pub(super) fn events(body: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    for line in lines.by_ref() {
        if line == "[DONE]" {
            break;
        }
        objects.push(serde_json::from_str(line).unwrap());
    }
    assert_eq!(lines.next(), None, "nothing after [DONE]");
    objects
}
