//! Requests to a judge: an OpenAI-compatible server. A request is repeated where a repetition can
//! help.

use std::{
    fmt,
    io::Read,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use upright_base::{Error, Result};
use upright_http::Timeouts;
use upright_math::random::uniform;
use ureq::{Agent, Body, http::Response};

/// Attempts per request.
const ATTEMPTS: u32 = 8;
/// Maximum pause, also where the server asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Maximum bytes of a reply.
const LARGEST_REPLY: u64 = 4 << 20;
/// How often a pause looks whether it should end.
const TICK: Duration = Duration::from_millis(50);
/// Maximum characters of a server's words in an error.
const LONGEST_WORDS: usize = 300;

/// A key that is sent to a server, and shown nowhere.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A key.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

/// A connection to a judge.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    key: Option<Key>,
    /// Pause after the first attempt; doubles with each attempt.
    pause: Duration,
}

/// The body of a reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: String,
    pub(crate) seconds: f64,
}

/// What an attempt led to.
enum Attempt {
    Answered(String),
    /// Another attempt may succeed: why this one did not, and the pause that the server asks for.
    Again(String, Option<Duration>),
    Refused(Error),
}

impl Client {
    /// A connection to the server whose API is at `url`, such as `https://host/v1`. A request that
    /// takes longer than `timeout` is repeated, the first time after `pause`.
    ///
    /// # Errors
    /// The URL has no known scheme, or a key would travel unencrypted to another machine.
    pub(crate) fn new(
        url: &str,
        key: Option<Key>,
        [timeout, pause]: [Duration; 2],
        certificates: Option<&Path>,
    ) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let is_http = url.starts_with("http://");
        if !is_http && !url.starts_with("https://") {
            return Err(Error::input(format!(
                "judge-url must begin with http:// or https://, found `{url}`"
            ))
            .hint("such as --judge-url http://127.0.0.1:8000/v1"));
        }
        if key.is_some() && is_http && !upright_http::is_loopback(url) {
            return Err(Error::input(format!(
                "judge-url: the key would travel unencrypted to {}",
                upright_http::origin(url)
            ))
            .hint("use https://, or leave out --judge-key-env"));
        }
        let timeouts = Timeouts {
            total: Some(timeout),
            ..Timeouts::default()
        };
        Ok(Self {
            agent: upright_http::agent(url, certificates, timeouts)?,
            url: format!("{url}/chat/completions"),
            key,
            pause,
        })
    }

    /// Sends a request until it is answered. `number` is its number, which varies the pauses.
    ///
    /// # Errors
    /// The server refuses the request, no attempt succeeds, or `stop` was set.
    pub(crate) fn ask(&self, request: &Value, number: usize, stop: &AtomicBool) -> Result<Answer> {
        let body = request.to_string();
        let mut failed = String::new();
        for attempt in 0..ATTEMPTS {
            let began = Instant::now();
            let pause = match self.attempt(&body) {
                Attempt::Answered(body) => {
                    let seconds = began.elapsed().as_secs_f64();
                    return Ok(Answer { body, seconds });
                }
                Attempt::Refused(error) => return Err(error),
                Attempt::Again(why, asked) => {
                    failed = why;
                    let jitter = 0.75 + 0.5 * uniform(number as u64, u64::from(attempt));
                    let usual = self.pause.mul_f64(2_f64.powi(attempt as i32) * jitter);
                    asked.unwrap_or(usual).min(LONGEST_PAUSE)
                }
            };
            if attempt + 1 < ATTEMPTS {
                wait(pause, stop)?;
            }
        }
        Err(Error::failure(format!(
            "{}: no answer in {ATTEMPTS} attempts: {failed}",
            self.url
        ))
        .hint("run the same command to ask only for what is missing"))
    }

    fn attempt(&self, body: &str) -> Attempt {
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json");
        if let Some(Key(key)) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Attempt::Again(error.to_string(), None),
        };
        let status = response.status().as_u16();
        let asked = retry_after(&response);
        let mut text = Vec::new();
        let read = response
            .body_mut()
            .as_reader()
            .take(LARGEST_REPLY + 1)
            .read_to_end(&mut text);
        if let Err(error) = read {
            return Attempt::Again(format!("the connection broke off: {error}"), asked);
        }
        if text.len() as u64 > LARGEST_REPLY {
            let why = format!("{}: a reply exceeds {} MB", self.url, LARGEST_REPLY >> 20);
            return Attempt::Refused(
                Error::failure(why).hint("check that --judge-url leads to a chat server"),
            );
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        match status {
            200 => Attempt::Answered(text),
            408 | 409 | 425 | 429 | 500..=599 => Attempt::Again(
                format!("the server answered {status}: {}", words(&text)),
                asked,
            ),
            _ => Attempt::Refused(self.refused(status, &response, &text)),
        }
    }

    /// The error for a status that no repetition changes.
    fn refused(&self, status: u16, response: &Response<Body>, text: &str) -> Error {
        let url = &self.url;
        if (300..400).contains(&status) {
            let to = response.headers().get("location");
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            return Error::input(format!("{url}: the server redirects to {to}"))
                .hint("give the address it redirects to as --judge-url, if you trust it");
        }
        let error = Error::input(format!(
            "{url}: the server answered {status}: {}",
            words(text)
        ));
        match status {
            401 | 403 => error.hint("name the variable with the key: --judge-key-env VARIABLE"),
            404 => error.hint("check --judge-url, which usually ends in /v1, and --judge-model"),
            _ => error.hint(
                "--judge-options '{\"max_tokens\": null, \"max_completion_tokens\": 1000}' changes the \
                 fields of requests",
            ),
        }
    }
}

/// The pause that a response asks for.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let number = |name: &str| -> Option<f64> {
        let text = response.headers().get(name)?.to_str().ok()?;
        text.trim()
            .parse()
            .ok()
            .filter(|seconds: &f64| *seconds >= 0.0)
    };
    // OpenAI sends milliseconds too. A date is ignored: the usual pauses apply.
    let seconds = match number("retry-after-ms") {
        Some(milliseconds) => milliseconds / 1000.0,
        None => number("retry-after")?,
    };
    Some(Duration::from_secs_f64(
        seconds.min(LONGEST_PAUSE.as_secs_f64()),
    ))
}

/// The error message in a body, or the start of the body.
fn words(text: &str) -> String {
    let message = serde_json::from_str::<Value>(text).ok().and_then(|value| {
        let message = value["error"]["message"].as_str();
        message
            .or_else(|| value["message"].as_str())
            .map(str::to_owned)
    });
    let whole = message.unwrap_or_else(|| text.trim().to_owned());
    let mut short: String = whole.chars().take(LONGEST_WORDS).collect();
    if short.len() < whole.len() {
        short.push_str("...");
    }
    if short.is_empty() {
        short.push_str("no words");
    }
    short
}

/// Waits, but not after a stop.
fn wait(pause: Duration, stop: &AtomicBool) -> Result<()> {
    let end = Instant::now() + pause;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted("while waiting for the judge"));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
    }
}
