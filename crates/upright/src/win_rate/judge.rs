//! Settings of a judge, as flags and as keys of a study.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use upright_base::{Error, Result, files};
use upright_judge::{Judge, Key, Protocol, cost::Price};
use upright_runs::settings::{
    Number,
    checks::{Choice, choice, count, count_from, real, wrong},
};

/// The judge, and how it is asked.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct JudgeSettings {
    /// API of the judge: any OpenAI-compatible server, such as http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    pub judge_url: String,
    /// Name of the judge in requests.
    #[arg(long, value_name = "NAME")]
    pub judge_model: String,
    /// Environment variable that holds the key for the judge [default: no key is sent]
    #[arg(long, value_name = "VARIABLE")]
    pub judge_key_env: Option<String>,
    /// What the judge is asked: both-orders (probabilities of its choice, mean over both orders),
    /// weighted (AlpacaEval's default, one order), fn (a ranking by function call, as in the paper)
    /// [default: both-orders]
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// AlpacaEval's seed of the order of answers, for weighted and fn [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub order_seed: Option<Number>,
    /// Fields of requests to replace, as a JSON object; null removes a field
    #[arg(long, value_name = "JSON")]
    pub judge_options: Option<String>,
    /// Requests at a time [default: 8]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub parallel: Option<Number>,
    /// Maximum seconds until a request is answered; then it is repeated [default: 120]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub judge_timeout: Option<Number>,
    /// Prices of the judge in USD per million tokens of requests and of replies, such as 0.15,0.6
    #[arg(long, value_name = "PROMPT,REPLY")]
    pub judge_price: Option<String>,
    /// Maximum cost in USD of this command
    #[arg(long, value_name = "USD", allow_hyphen_values = true)]
    pub max_cost: Option<Number>,
    /// File in which replies are kept, so that none is paid for twice [default: a file per judge in
    /// the cache]
    #[arg(long, value_name = "FILE")]
    pub replies: Option<PathBuf>,
}

/// [`Protocol`] as the value of a flag.
#[derive(Clone, Copy, PartialEq)]
struct Named(Protocol);

impl Choice for Named {
    const ALL: &'static [Self] = &[
        Self(Protocol::BothOrders),
        Self(Protocol::Weighted),
        Self(Protocol::Fn),
    ];

    fn name(self) -> &'static str {
        self.0.name()
    }
}

impl JudgeSettings {
    /// The settings that decide verdicts, as a text.
    pub fn identity(&self) -> String {
        format!(
            "{:?}",
            (
                &self.judge_url,
                &self.judge_model,
                &self.protocol,
                &self.order_seed,
                &self.judge_options,
            )
        )
    }

    /// The same without the key, for plans.
    #[must_use]
    pub fn keyless(&self) -> Self {
        Self {
            judge_key_env: None,
            ..self.clone()
        }
    }

    /// The judge, with the settings checked.
    ///
    /// # Errors
    /// A setting is wrong, or the variable of the key is empty.
    pub fn judge(&self, as_in_paper: bool) -> Result<Judge> {
        for (name, value) in [
            ("judge-url", &self.judge_url),
            ("judge-model", &self.judge_model),
        ] {
            if value.trim().is_empty() {
                return Err(Error::input(format!("{name} is missing"))
                    .hint("such as judge-url http://127.0.0.1:8000/v1, judge-model NAME"));
            }
        }
        let usual = if as_in_paper {
            Protocol::Fn
        } else {
            Protocol::BothOrders
        };
        let Named(protocol) = choice("protocol", self.protocol.as_deref(), Named(usual))?;
        let timeout = count("judge-timeout", self.judge_timeout.as_ref(), 120)?;
        let max_cost = match &self.max_cost {
            None => None,
            given => Some(real(
                "max-cost",
                given.as_ref(),
                0.0,
                "be above 0",
                |usd| usd > 0.0,
            )?),
        };
        Ok(Judge {
            url: self.judge_url.trim_end_matches('/').to_owned(),
            model: self.judge_model.clone(),
            key: key(self.judge_key_env.as_deref())?,
            protocol,
            seed: count_from(0, "order-seed", self.order_seed.as_ref(), 0)? as u64,
            options: options(self.judge_options.as_deref())?,
            parallel: count("parallel", self.parallel.as_ref(), 8)?,
            timeout: Duration::from_secs(timeout as u64),
            pause: Judge::PAUSE,
            price: price(self.judge_price.as_deref())?,
            max_cost,
            replies: match &self.replies {
                Some(path) => path.clone(),
                None => replies(&self.judge_url, &self.judge_model)?,
            },
        })
    }
}

/// The key in a variable.
fn key(variable: Option<&str>) -> Result<Option<Key>> {
    let Some(name) = variable else {
        return Ok(None);
    };
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(Some(Key::new(key.trim()))),
        _ => Err(Error::input(format!(
            "judge-key-env: the variable {name} is empty or not set"
        ))
        .hint(format!("set it, e.g. export {name}=..."))),
    }
}

fn options(text: Option<&str>) -> Result<Map<String, Value>> {
    let Some(text) = text else {
        return Ok(Map::new());
    };
    serde_json::from_str(text).map_err(|error| {
        wrong("judge-options", "be a JSON object", text).hint(format!(
            "{error}; such as '{{\"max_completion_tokens\": 500}}'"
        ))
    })
}

fn price(text: Option<&str>) -> Result<Option<Price>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let mut prices = Vec::new();
    for part in text.split(',') {
        match part.trim().parse::<f64>() {
            Ok(price) if price >= 0.0 && price.is_finite() => prices.push(price),
            _ => prices.push(f64::NAN),
        }
    }
    match prices[..] {
        [prompt, reply] if !prompt.is_nan() && !reply.is_nan() => Ok(Some(Price { prompt, reply })),
        _ => Err(wrong(
            "judge-price",
            "be two numbers, USD per million tokens of requests and of replies",
            text,
        )
        .hint("such as --judge-price 0.15,0.6")),
    }
}

/// The file of a judge's replies in the cache.
fn replies(url: &str, model: &str) -> Result<PathBuf> {
    let digest = Sha256::digest(format!("{} {model}", url.trim_end_matches('/')));
    let name = files::hex(&digest[..16]);
    Ok(files::cache("judge-replies")?.join(format!("{name}.jsonl")))
}
