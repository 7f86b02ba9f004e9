//! Which files make a model's folder besides its config and its weights.

/// Whether a file says how text becomes tokens, how conversations become text, how answers are drawn, or what may be done
/// with the model.
pub fn is_companion(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "vocab.json",
        "vocab.txt",
    ];
    let lower = name.to_lowercase();
    let legal = ["license", "notice", "use_policy"].iter().any(|legal| lower.starts_with(legal));
    !name.contains('/') && (NAMES.contains(&name) || name.starts_with("tokenizer") || legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_told_from_weights_and_notes() {
        assert!(
            ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE.txt"]
                .map(is_companion)
                .iter()
                .all(|y| *y)
        );
        assert!(
            !["config.json", "model.safetensors", "README.md", "onnx/tokenizer.json"]
                .map(is_companion)
                .iter()
                .any(|y| *y)
        );
    }
}
