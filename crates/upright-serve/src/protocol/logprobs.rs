//! Log-probabilities in the forms of completions and of chats.

use serde_json::{Map, Value, json};
use upright_engine::generation::Candidate;

/// Least log-probability in an answer: JSON has no infinity.
const LEAST: f64 = -9999.0;

/// A token of a prompt or of an answer, with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// Token id.
    pub(crate) token: u32,
    /// Text of the token.
    pub(crate) text: String,
    /// Log-probability in nats; `None` for the first token of a prompt, which nothing predicts.
    pub(crate) logp: Option<f64>,
    /// The most likely tokens at this place with their texts, best first.
    pub(crate) best: Vec<(Candidate, String)>,
}

fn finite(logp: f64) -> f64 {
    logp.max(LEAST)
}

/// The `logprobs` object of a completion. `offsets` say where the text of every token begins, in
/// characters.
pub(crate) fn of_completion(tokens: &[Scored], offsets: &[usize]) -> Value {
    let mut texts = Vec::with_capacity(tokens.len());
    let mut logps = Vec::with_capacity(tokens.len());
    let mut tops = Vec::with_capacity(tokens.len());
    for token in tokens {
        texts.push(json!(token.text));
        logps.push(json!(token.logp.map(finite)));
        let Some(logp) = token.logp else {
            tops.push(Value::Null);
            continue;
        };
        // Tokens can have the same text; the likelier one is listed.
        let mut top = Map::new();
        for (candidate, text) in &token.best {
            top.entry(text.clone())
                .or_insert_with(|| json!(finite(candidate.logp)));
        }
        top.entry(token.text.clone())
            .or_insert_with(|| json!(finite(logp)));
        tops.push(Value::Object(top));
    }
    json!({
        "tokens": texts,
        "token_logprobs": logps,
        "top_logprobs": tops,
        "text_offset": offsets,
    })
}

/// The `logprobs.content` of a chat's answer.
pub(crate) fn of_chat(tokens: &[Scored]) -> Value {
    let entry = |text: &str, logp: f64| json!({"token": text, "logprob": finite(logp), "bytes": text.as_bytes()});
    let mut content = Vec::with_capacity(tokens.len());
    for token in tokens {
        let mut listed = entry(&token.text, token.logp.unwrap_or(LEAST));
        let mut top = Vec::with_capacity(token.best.len());
        for (candidate, text) in &token.best {
            top.push(entry(text, candidate.logp));
        }
        listed["top_logprobs"] = json!(top);
        content.push(listed);
    }
    json!({ "content": content, "refusal": null })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(text: &str, logp: Option<f64>, best: &[(u32, &str, f64)]) -> Scored {
        let candidate =
            |&(token, text, logp): &(u32, &str, f64)| (Candidate { token, logp }, text.to_owned());
        Scored {
            token: 1,
            text: text.to_owned(),
            logp,
            best: best.iter().map(candidate).collect(),
        }
    }

    /// The second token is not among the best, and two of the best have the same text.
    #[test]
    fn a_completion_lists_the_token_itself_and_the_likelier_of_equal_texts() {
        let tokens = [
            scored("Zoë", None, &[]),
            scored(" a", Some(-3.0), &[(5, "?", -0.5), (6, "?", -1.5)]),
            scored("b", Some(f64::NEG_INFINITY), &[(7, " c", -0.25)]),
        ];
        let found = of_completion(&tokens, &[0, 3, 5]);
        let expected = json!({
            "tokens": ["Zoë", " a", "b"],
            "token_logprobs": [null, -3.0, -9999.0],
            "top_logprobs": [null, {"?": -0.5, " a": -3.0}, {" c": -0.25, "b": -9999.0}],
            "text_offset": [0, 3, 5],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_chat_lists_bytes() {
        let found = of_chat(&[scored("é", Some(-1.0), &[(2, "é", -1.0)])]);
        let one = json!({"token": "é", "logprob": -1.0, "bytes": [0xc3, 0xa9]});
        assert_eq!(found["content"][0]["bytes"], one["bytes"]);
        assert_eq!(found["content"][0]["top_logprobs"][0], one);
    }
}
