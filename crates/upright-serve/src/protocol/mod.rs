//! Requests and answers in OpenAI's JSON. Nothing here knows HTTP connections or the engine's
//! thread.
//!
//! | module | purpose |
//! |---|---|
//! | `fields` | takes the fields of a request by name |
//! | `sampling` | the fields that completions and chats share |
//! | `completions` | `/v1/completions` |
//! | `chat` | `/v1/chat/completions` |
//! | `tokens` | the tokenizer's routes |
//! | `adapters` | the routes that load and unload adapters |
//! | `logprobs` | log-probabilities in both forms |
//! | `error` | error objects |

pub(crate) mod adapters;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod logprobs;
pub(crate) mod sampling;
pub(crate) mod tokens;
