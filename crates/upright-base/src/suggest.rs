//! "Did you mean": the known name closest to an unknown name.

/// The closest known name, if it is close enough: at most a third of the letters, and at least one
/// letter, may be wrong.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    let distances = known
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate));
    distances
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Edit distance: letters added, dropped, changed, or swapped with a neighbor (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                d[i][j] = i + j;
                continue;
            }
            let changed = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            d[i][j] = changed.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d[i][j] = d[i][j].min(d[i - 2][j - 2] + 1);
            }
        }
    }
    d[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["lambda", "learning-rate", "lora-rank", "sft"];
        assert_eq!(nearest("lamda", known), Some("lambda"));
        assert_eq!(nearest("learning_rate", known), Some("learning-rate"));
        assert_eq!(nearest("LoRA-Rnk", known), Some("lora-rank"));
        assert_eq!(nearest("sfy", known), Some("sft"));
        assert_eq!(nearest("stf", known), Some("sft"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(
            (
                distance("kitten", "sitting"),
                distance("", "ab"),
                distance("ab", "")
            ),
            (3, 2, 2)
        );
    }
}
