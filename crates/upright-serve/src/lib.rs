//! An OpenAI-compatible server: scores and completes prompts with a base model and its adapters.
//!
//! Likelihood requests (`echo` with `logprobs`) get the log-probability of every token of the prompt,
//! which evaluation harnesses need. No bit of an answer depends on other requests.
//!
//! | module | purpose |
//! |---|---|
//! | [`settings`] | the address, the limits and the key |
//! | `server` | connections: accepts them, limits them, ends them |
//! | `routes` | paths, and the answer of each |
//! | `guard` | which requests are answered: host, key, form and size of the body |
//! | `answers`, `stream` | the answers of jobs, whole or piece by piece |
//! | `text` | the text of tokens as they arrive, and stop texts |
//! | `models` | names of the base and the adapters |
//! | `loading` | loads and unloads adapters by request |
//! | `allowed` | the folder below which requests may name adapters |
//! | `cors` | which pages of other origins a browser lets use the server |
//! | `protocol` | OpenAI's JSON |
//! | `engine` | the engine's thread |
//! | `metrics` | counters for Prometheus |

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

mod allowed;
mod answers;
mod cors;
mod engine;
mod guard;
mod loading;
mod metrics;
mod models;
mod protocol;
mod routes;
mod server;
pub mod settings;
mod stream;
mod text;

pub use models::{OpenAdapter, Served, ServedAdapter, Speech};
pub use server::{Server, bind};
pub use settings::Settings;
