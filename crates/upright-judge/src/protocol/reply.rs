//! Verdicts in replies. A judge that does not answer in the requested form may still answer: first
//! the requested form is read, then JSON anywhere in the text, then a single label.

use serde_json::Value;

use super::{FIRST, SECOND};

/// Bytes of a text that are searched for JSON.
const SEARCHED: usize = 1 << 16;

/// The preference in a ranking: 1 if the first answer has rank 1.
pub(super) fn ranked(choice: &Value) -> Option<f64> {
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array();
    if let Some(call) = calls.and_then(|calls| calls.first()) {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        return in_json(arguments);
    }
    let text = message["content"].as_str()?;
    in_json(text).or_else(|| labelled(text))
}

/// The preference in the probabilities of the first token: 2 - p(first) / (p(first) + p(second)).
pub(super) fn weighted(choice: &Value) -> Option<f64> {
    let best = choice["logprobs"]["content"][0]["top_logprobs"].as_array();
    if let Some(best) = best.filter(|best| !best.is_empty()) {
        let mut first = f64::NEG_INFINITY;
        let mut second = f64::NEG_INFINITY;
        for candidate in best {
            if let Some(logp) = candidate["logprob"].as_f64() {
                match candidate["token"].as_str() {
                    Some(FIRST) => first = logp,
                    Some(SECOND) => second = logp,
                    _ => {}
                }
            }
        }
        let larger = first.max(second);
        if larger == f64::NEG_INFINITY {
            return None;
        }
        let total = larger + ((first - larger).exp() + (second - larger).exp()).ln();
        return Some(2.0 - (first - total).exp());
    }
    // Servers and models without log-probabilities.
    let text = choice["message"]["content"].as_str()?;
    in_json(text).or_else(|| labelled(text))
}

/// The rank of the first answer in a list of `{"model": .., "rank": ..}`.
fn rank(models: &Value) -> Option<f64> {
    for entry in models.as_array()? {
        if entry["model"] == FIRST {
            let rank = entry["rank"].as_f64()?;
            return (rank == 1.0 || rank == 2.0).then_some(rank);
        }
    }
    None
}

/// The verdict of the first JSON value in a text that has one.
fn in_json(text: &str) -> Option<f64> {
    let mut end = text.len().min(SEARCHED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    let mut from = 0;
    while let Some(found) = text[from..].find(['{', '[']) {
        let at = from + found;
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            from = at + 1;
            continue;
        };
        // Values inside this one were searched with it.
        from = at + values.byte_offset();
        if let Some(verdict) = in_value(&value) {
            return Some(verdict);
        }
    }
    None
}

/// The verdict of a JSON value: a ranking, a list with one object that has it, or the name of the
/// best answer.
fn in_value(value: &Value) -> Option<f64> {
    if let Some([only]) = value.as_array().map(Vec::as_slice)
        && only.get("ordered_models").is_some()
    {
        return in_value(only);
    }
    let models = value.get("ordered_models").unwrap_or(value);
    if models.is_array() {
        return rank(models);
    }
    for name in ["model", "best_model", "model_identifier", "winner"] {
        if let Some(label) = value[name].as_str() {
            return labelled(label);
        }
    }
    None
}

/// The verdict of a text in which only one of the labels stands as a word.
fn labelled(text: &str) -> Option<f64> {
    let mut has_first = false;
    let mut has_second = false;
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '_') {
        match word.trim_matches('\'') {
            FIRST => has_first = true,
            SECOND => has_second = true,
            _ => {}
        }
    }
    match (has_first, has_second) {
        (true, false) => Some(1.0),
        (false, true) => Some(2.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(arguments: &str) -> Value {
        json!({"message": {"content": null, "tool_calls": [{"function": {"arguments": arguments}}]}})
    }

    fn text(content: &str) -> Value {
        json!({"message": {"content": content}})
    }

    #[test]
    fn ranks_are_read_from_the_call() {
        for (arguments, expected) in [
            (
                r#"{"ordered_models": [{"model": "m", "rank": 1}, {"model": "M", "rank": 2}]}"#,
                Some(1.0),
            ),
            (
                r#"{"ordered_models": [{"model": "M", "rank": 1}, {"model": "m", "rank": 2.0}]}"#,
                Some(2.0),
            ),
            (r#"{"ordered_models": [{"model": "m", "rank": 3}]}"#, None),
            (r#"{"ordered_models": [{"model": "m", "rank": "1"}]}"#, None),
            (r#"{"ordered_models": [{"model": "x", "rank": 1}]}"#, None),
            (r#"{"ordered_models": "m"}"#, None),
            (
                r#"[{"ordered_models": [{"model": "m", "rank": 2}]}]"#,
                Some(2.0),
            ),
            ("m", None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(ranked(&call(arguments)), expected, "{arguments}");
        }
    }

    #[test]
    fn other_forms_are_read_after_the_requested_one() {
        for (content, expected) in [
            (
                "Sure: ```json\n{\"ordered_models\": [{\"model\": \"m\", \"rank\": 2}]}```",
                Some(2.0),
            ),
            ("[{\"model\": \"m\", \"rank\": 1}]", Some(1.0)),
            ("{broken} then {\"model\": \"M\"}", Some(2.0)),
            ("m", Some(1.0)),
            ("The best model is M.", Some(2.0)),
            ("I'm sure", None),
            ("m or M", None),
            ("model", None),
            ("", None),
        ] {
            assert_eq!(ranked(&text(content)), expected, "{content}");
            assert_eq!(weighted(&text(content)), expected, "{content}");
        }
    }

    #[test]
    fn hostile_texts_end_soon() {
        for piece in ["[", "{\"a\":", "[\"[", "{", "\u{1f994}["] {
            let content = piece.repeat(2_000_000 / piece.len());
            assert_eq!(ranked(&text(&content)), None, "{piece}");
        }
    }

    #[test]
    fn weights_come_from_the_first_token() {
        let choice = |best: Value| json!({"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": best}]}});
        let both = choice(json!([
            {"token": "M", "logprob": -0.25_f64}, {"token": "m", "logprob": -1.5_f64}, {"token": "x", "logprob": -9.0},
        ]));
        let expected = 2.0 - (-1.5_f64).exp() / ((-1.5_f64).exp() + (-0.25_f64).exp());
        assert!((weighted(&both).unwrap() - expected).abs() < 1e-15);
        let unlikely =
            choice(json!([{"token": "M", "logprob": -1000.0}, {"token": "m", "logprob": -1000.0}]));
        assert!((weighted(&unlikely).unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(
            weighted(&choice(json!([{"token": "m", "logprob": -3.0}]))),
            Some(1.0)
        );
        assert_eq!(
            weighted(&choice(json!([{"token": "M", "logprob": 0.0}]))),
            Some(2.0)
        );
        assert_eq!(
            weighted(&choice(json!([{"token": " m", "logprob": -3.0}]))),
            None
        );
        assert_eq!(
            weighted(&choice(json!([{"token": "m", "logprob": null}]))),
            None
        );
        assert_eq!(weighted(&json!({})), None);
    }
}
