//! Counts in messages.

/// A count with its regular noun: `1 step`, `2 steps`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_agree_with_their_count() {
        let words = [0, 1, 2].map(|count| counted(count, "held-out row"));
        assert_eq!(
            words,
            ["0 held-out rows", "1 held-out row", "2 held-out rows"]
        );
    }
}
