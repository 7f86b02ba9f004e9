//! What a judge costs: tokens that requests have, prices, and a budget.

use serde_json::Value;

/// Characters per token in estimates. English text has about four.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Prices of a judge in US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Per million tokens of requests.
    pub prompt: f64,
    /// Per million tokens of replies.
    pub reply: f64,
}

/// Tokens of requests and replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of requests.
    pub prompt: u64,
    /// Tokens of replies.
    pub reply: u64,
}

impl Price {
    /// The cost of some tokens in US dollars.
    pub fn of(&self, tokens: Tokens) -> f64 {
        (self.prompt * tokens.prompt as f64 + self.reply * tokens.reply as f64) / 1e6
    }
}

impl Tokens {
    /// The sum of two counts.
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt: self.prompt + other.prompt,
            reply: self.reply + other.reply,
        }
    }

    /// An estimate for a request: a quarter of its characters, and the longest reply that it allows.
    pub fn estimated(request: &Value) -> Self {
        let mut characters = 0;
        for message in request["messages"].as_array().into_iter().flatten() {
            characters += message["content"]
                .as_str()
                .unwrap_or_default()
                .chars()
                .count();
        }
        if let Some(tools) = request.get("tools") {
            characters += tools.to_string().chars().count();
        }
        let reply = request["max_tokens"]
            .as_u64()
            .or_else(|| request["max_completion_tokens"].as_u64());
        Self {
            prompt: characters.div_ceil(CHARACTERS_PER_TOKEN) as u64,
            reply: reply.unwrap_or(1),
        }
    }

    /// The tokens that a reply reports. The estimate for the request where it reports none.
    pub fn reported(reply: &Value, estimate: Self) -> Self {
        let usage = &reply["usage"];
        Self {
            prompt: usage["prompt_tokens"].as_u64().unwrap_or(estimate.prompt),
            reply: usage["completion_tokens"]
                .as_u64()
                .unwrap_or(estimate.reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_estimated_then_reported() {
        let request = json!({
            "messages": [{"content": "12345678"}, {"content": "9"}], "max_tokens": 100,
        });
        let estimate = Tokens::estimated(&request);
        assert_eq!((estimate.prompt, estimate.reply), (3, 100));
        let reply = json!({"usage": {"prompt_tokens": 7}});
        let tokens = Tokens::reported(&reply, estimate);
        assert_eq!((tokens.prompt, tokens.reply), (7, 100));
        let price = Price {
            prompt: 10.0,
            reply: 30.0,
        };
        assert_eq!(price.of(tokens), (7.0 * 10.0 + 100.0 * 30.0) / 1e6);
    }
}
