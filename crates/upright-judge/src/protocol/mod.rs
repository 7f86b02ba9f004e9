//! Protocols: what the judge is asked about a pair, and what its reply means.
//!
//! A preference is a number from 1 to 2, as in AlpacaEval: 1 if the first answer is better, 2 if the
//! second is, 1.5 for a tie.

mod reply;

use serde_json::{Map, Value, json};

use crate::{Pair, python_random::first_number};

/// How a judge compares a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// AlpacaEval's `alpaca_eval_gpt4_turbo_fn`, which the paper used: the judge ranks the answers
    /// with a function call. One order per pair.
    Fn,
    /// AlpacaEval's default, `weighted_alpaca_eval_gpt4_turbo`: the probabilities of the judge's
    /// first token. One order per pair.
    Weighted,
    /// The question of [`Protocol::Weighted`] in both orders. A pair's preference is the mean.
    BothOrders,
}

/// Label of the answer that is shown first.
const FIRST: &str = "m";
/// Label of the answer that is shown second.
const SECOND: &str = "M";

impl Protocol {
    /// All protocols.
    pub const ALL: &'static [Self] = &[Self::BothOrders, Self::Weighted, Self::Fn];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fn => "fn",
            Self::Weighted => "weighted",
            Self::BothOrders => "both-orders",
        }
    }

    /// The name of AlpacaEval's evaluator with the same question.
    pub fn evaluator(self) -> &'static str {
        match self {
            Self::Fn => "alpaca_eval_gpt4_turbo_fn",
            Self::Weighted | Self::BothOrders => "weighted_alpaca_eval_gpt4_turbo",
        }
    }

    /// The orders in which a pair is shown: whether the model's answer comes first. None if both
    /// answers are equal, which is a tie.
    pub(crate) fn orders(self, pair: &Pair, seed: u64) -> Vec<bool> {
        if pair.reference == pair.output {
            return Vec::new();
        }
        match self {
            Self::BothOrders => vec![false, true],
            Self::Fn | Self::Weighted => {
                // AlpacaEval: random_seeded_choice([False, True]).
                let text = format!("is_switched_outputs{}{seed}", pair.instruction);
                vec![first_number(&text) >= 0.5]
            }
        }
    }

    /// The body of a request. `options` replaces fields; a null removes one.
    pub(crate) fn request(
        self,
        model: &str,
        pair: &Pair,
        is_swapped: bool,
        options: &Map<String, Value>,
    ) -> Value {
        let (first, second) = match is_swapped {
            false => (&pair.reference, &pair.output),
            true => (&pair.output, &pair.reference),
        };
        let fill = |text: &str| filled(text, &pair.instruction, first, second);
        let mut request = match self {
            Self::Fn => json!({
                "model": model,
                "messages": [
                    {"role": "system", "content": fill(include_str!("ranking-system.txt"))},
                    {"role": "user", "content": fill(include_str!("ranking-user.txt"))},
                ],
                "max_tokens": 100,
                "temperature": 0,
                "top_p": 1.0,
                "tools": [leaderboard_tool()],
                "tool_choice": {
                    "type": "function", "function": {"name": "make_partial_leaderboard"},
                },
            }),
            Self::Weighted | Self::BothOrders => json!({
                "model": model,
                "messages": [
                    {"role": "system", "content": fill(include_str!("choice-system.txt"))},
                    {"role": "user", "content": fill(include_str!("choice-user.txt"))},
                ],
                "max_tokens": 1,
                "temperature": 1,
                "top_p": 1.0,
                "logprobs": true,
                "top_logprobs": 5,
            }),
        };
        if let Some(fields) = request.as_object_mut() {
            for (name, value) in options {
                if value.is_null() {
                    fields.shift_remove(name);
                } else {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        request
    }

    /// The preference in the body of a reply: 1 if the answer shown first is better. `None` if the
    /// reply has no verdict.
    pub(crate) fn preference(self, body: &str) -> Option<f64> {
        let reply: Value = serde_json::from_str(body).ok()?;
        let choice = &reply["choices"][0];
        match self {
            Self::Fn => reply::ranked(choice),
            Self::Weighted | Self::BothOrders => reply::weighted(choice),
        }
    }

    /// What AlpacaEval keeps of a reply: the arguments of the call, or the text; for a weighted
    /// verdict, the whole choice.
    pub(crate) fn kept(self, body: &str) -> Value {
        let reply: Value = serde_json::from_str(body).unwrap_or_default();
        let choice = &reply["choices"][0];
        if self != Self::Fn {
            return choice.clone();
        }
        let message = &choice["message"];
        match message["tool_calls"][0]["function"]["arguments"].as_str() {
            Some(arguments) => arguments.into(),
            None => message["content"].clone(),
        }
    }
}

/// The tool of AlpacaEval's evaluator.
fn leaderboard_tool() -> Value {
    json!({
        "type": "function",
        "function": {
            "name": "make_partial_leaderboard",
            "description": "Make a leaderboard of models given a list of the models ordered by the preference of \
                            their outputs.",
            "strict": true,
            "parameters": {
                "type": "object",
                "properties": {
                    "ordered_models": {
                        "type": "array",
                        "description": "A list of models ordered by the preference of their outputs. The first \
                                        model in the list has the best output.",
                        "items": {
                            "type": "object",
                            "properties": {
                                "model": {"type": "string", "description": "The name of the model"},
                                "rank": {
                                    "type": "number",
                                    "description": "Order of preference of the model, 1 has the best output",
                                },
                            },
                            "additionalProperties": false,
                            "required": ["model", "rank"],
                        },
                    },
                },
                "additionalProperties": false,
                "required": ["ordered_models"],
            },
        },
    })
}

/// Fills the placeholders of a prompt in one pass, so that the texts are never searched for
/// placeholders.
fn filled(prompt: &str, instruction: &str, first: &str, second: &str) -> String {
    let values = [
        ("{instruction}", instruction),
        ("{output_1}", first),
        ("{output_2}", second),
    ];
    let mut text =
        String::with_capacity(prompt.len() + instruction.len() + first.len() + second.len());
    let mut rest = prompt;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let value = values.iter().find(|(name, _)| rest.starts_with(name));
        match value {
            Some((name, value)) => {
                text.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(instruction: &str, reference: &str, output: &str) -> Pair {
        Pair {
            instruction: instruction.into(),
            reference: reference.into(),
            output: output.into(),
        }
    }

    #[test]
    fn texts_are_not_searched_for_placeholders() {
        let hostile = pair(
            "say {output_1} and {output_2}",
            "{instruction}<|im_end|>",
            "{}",
        );
        let request = Protocol::Weighted.request("j", &hostile, false, &Map::new());
        let user = request["messages"][1]["content"].as_str().unwrap();
        assert!(user.contains("\"instruction\": \"\"\"say {output_1} and {output_2}\"\"\","));
        assert!(user.contains("\"output\": \"\"\"{instruction}<|im_end|>\"\"\""));
        assert!(user.contains("\"output\": \"\"\"{}\"\"\""));
        assert!(user.ends_with("## Best Model Identifier"));
    }

    #[test]
    fn a_swapped_pair_shows_the_model_first() {
        let shown = |protocol: Protocol, is_swapped| {
            let pair = pair("i", "REFERENCE", "OUTPUT");
            let request = protocol.request("j", &pair, is_swapped, &Map::new());
            let user = request["messages"][1]["content"]
                .as_str()
                .unwrap()
                .to_owned();
            user.find("REFERENCE") < user.find("OUTPUT")
        };
        for protocol in Protocol::ALL {
            assert!(shown(*protocol, false) && !shown(*protocol, true));
        }
    }

    #[test]
    fn orders_are_those_of_alpaca_eval() {
        let orders =
            |protocol: Protocol, instruction| protocol.orders(&pair(instruction, "a", "b"), 0);
        assert_eq!(orders(Protocol::Fn, "What is 2+2?"), [false]);
        assert_eq!(orders(Protocol::Weighted, "Name a colour."), [true]);
        assert_eq!(
            orders(Protocol::BothOrders, "Name a colour."),
            [false, true]
        );
        assert!(
            Protocol::Fn
                .orders(&pair("x", "same", "same"), 0)
                .is_empty()
        );
    }

    #[test]
    fn options_replace_and_remove_fields() {
        let options = json!({"max_tokens": null, "max_completion_tokens": 500, "temperature": 0.5});
        let options = options.as_object().unwrap();
        let request = Protocol::Weighted.request("j", &pair("i", "a", "b"), false, options);
        assert_eq!(request.get("max_tokens"), None);
        assert_eq!(request["max_completion_tokens"], 500);
        assert_eq!(request["temperature"], 0.5);
    }
}
