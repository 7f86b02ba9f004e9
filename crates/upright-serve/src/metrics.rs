//! Counters and gauges for Prometheus.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

/// What the server has done, and what it is doing.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    first_token: Histogram,
    /// Tokens of the prompts that were answered.
    pub(crate) prompt_tokens: Counter,
    /// Tokens of prompts that were computed: the others were known from earlier prompts. Prefixes
    /// that prompts of one pass share count once per prompt.
    pub(crate) computed_tokens: Counter,
    /// Tokens that were generated.
    pub(crate) generated_tokens: Counter,
    /// Prompts that wait.
    pub(crate) queue: Gauge,
    /// Answers in generation.
    pub(crate) live: Gauge,
    /// Bytes of key-value caches that are reserved or kept.
    pub(crate) cache_bytes: Gauge,
    /// Adapters in memory.
    pub(crate) adapters: Gauge,
}

impl Metrics {
    /// Metrics at zero.
    pub(crate) fn new() -> Self {
        // From 1 ms to 262 s.
        let first_token = Histogram::new(exponential_buckets(0.001, 4.0, 10));
        let metrics = Self {
            registry: Registry::with_prefix("upright"),
            requests: Family::default(),
            first_token,
            prompt_tokens: Counter::default(),
            computed_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            queue: Gauge::default(),
            live: Gauge::default(),
            cache_bytes: Gauge::default(),
            adapters: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("requests", "Answered requests", self.requests.clone());
        registry.register_with_unit(
            "time_to_first_token",
            "Time from a request to the first token of its answer",
            Unit::Seconds,
            self.first_token.clone(),
        );
        registry.register(
            "prompt_tokens",
            "Tokens of prompts",
            self.prompt_tokens.clone(),
        );
        registry.register(
            "computed_prompt_tokens",
            "Tokens of prompts that were not known from earlier prompts",
            self.computed_tokens.clone(),
        );
        registry.register(
            "generated_tokens",
            "Generated tokens",
            self.generated_tokens.clone(),
        );
        registry.register("queued_prompts", "Prompts that wait", self.queue.clone());
        registry.register("live_answers", "Answers in generation", self.live.clone());
        registry.register_with_unit(
            "key_value_cache",
            "Key-value caches that are reserved or kept",
            Unit::Bytes,
            self.cache_bytes.clone(),
        );
        registry.register(
            "adapters",
            "Adapters in memory, with those that were unloaded and still answer",
            self.adapters.clone(),
        );
        self
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: String, status: u16) {
        let labels = Request { route, status };
        self.requests.get_or_create(&labels).inc();
    }

    /// Records the time to a first token.
    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// All metrics in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}
