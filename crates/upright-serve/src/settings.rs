//! Settings of a server.

use std::{path::PathBuf, time::Duration};

/// Where a server listens, and what it allows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub host: String,
    /// Port; 0 for any free port.
    pub port: u16,
    /// Key that clients must send. Required unless the address is a loopback address.
    pub api_key: Option<String>,
    /// Folder below which requests may name adapters to load; `None` if requests may load none.
    pub allow_adapters: Option<PathBuf>,
    /// Adapters that may be in memory. Those that the server starts with always may.
    pub max_adapters: usize,
    /// Origins of pages that browsers let use the server; `*` for all.
    pub cors: Vec<String>,
    /// Bytes of all key-value caches; `None` for half of the memory that is available at the start.
    pub cache_bytes: Option<usize>,
    /// Tokens of prompts that one pass computes.
    pub token_budget: usize,
    /// Prompts that may wait.
    pub queue: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time in which the body of a request must arrive, and within which a connection must send the
    /// header of its next request.
    pub receive_timeout: Duration,
    /// Time in which a request must be answered.
    pub answer_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8000,
            api_key: None,
            allow_adapters: None,
            max_adapters: 16,
            cors: Vec::new(),
            cache_bytes: None,
            token_budget: 2048,
            queue: 2048,
            body_bytes: 32 << 20,
            receive_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(3600),
        }
    }
}
