//! The figure of similarities (the paper's Figure 6).

use super::Pair;
use upright_plot::{Axis, Dash, Figure, Ink, Mark, Panel, Style};

/// Number of windows of the running median.
const WINDOWS: usize = 40;

/// One similarity of a pair, with its style number and its name.
struct Shown {
    value: fn(&Pair) -> f64,
    style: usize,
    name: &'static str,
}

impl Shown {
    fn points(&self, pairs: &[Pair]) -> Vec<[f64; 2]> {
        pairs
            .iter()
            .enumerate()
            .map(|(rank, pair)| [rank as f64 + 0.5, (self.value)(pair)])
            .collect()
    }

    /// A line in the style of this similarity; `rejected` is dashed.
    fn line(&self) -> Style {
        let dash = if self.name == "rejected" {
            Dash::Dashed
        } else {
            Dash::Solid
        };
        Style::series(self.style).unmarked().dash(dash).width(2.5)
    }
}

/// Similarities over the rank of the pair by prompt similarity.
pub fn figure(pairs: &[Pair]) -> Figure {
    let mut figure = Figure::new(
        "Each preference row and the instruction with the nearest prompt: cosine similarity of token counts",
        1,
        [640.0, 170.0],
    );
    let empty = |title: &str| {
        let rank =
            Axis::linear("rank of the pair, by prompt similarity").from(0.0, pairs.len() as f64);
        Panel::new(title, rank, Axis::linear("cosine").from(0.0, 1.0))
    };
    let mut prompts = empty("Prompts");
    // They are sorted in descending order, so a line shows all of them.
    let shown = Shown {
        value: |pair| pair.prompts,
        style: 2,
        name: "prompts",
    };
    prompts.add(Mark::Line(shown.points(pairs)), shown.line(), shown.name);
    let mut answers = empty("Responses of the preference row vs. response of the instruction");
    let chosen = Shown {
        value: |pair| pair.chosen,
        style: 0,
        name: "chosen",
    };
    let rejected = Shown {
        value: |pair| pair.rejected,
        style: 1,
        name: "rejected",
    };
    scatter(&mut answers, pairs, &[chosen, rejected]);
    let mut both = empty("Chosen vs. rejected");
    scatter(
        &mut both,
        pairs,
        &[Shown {
            value: |pair| pair.chosen_rejected,
            style: 3,
            name: "chosen vs. rejected",
        }],
    );
    figure.panels = vec![prompts, answers, both];
    figure
}

/// Adds a dot per pair, and the running medians on top of all dots.
fn scatter(panel: &mut Panel, pairs: &[Pair], all: &[Shown]) {
    for shown in all {
        panel.add(
            Mark::Dots(shown.points(pairs)),
            Style::series(shown.style).opacity(0.35),
            "",
        );
    }
    // A rim separates the lines from the dots.
    for shown in all {
        panel.add(
            Mark::Line(medians(pairs, shown.value)),
            Style::thin(Ink::Paper).width(5.0),
            "",
        );
    }
    for shown in all {
        let name = format!("{}: dots and running median", shown.name);
        panel.add(Mark::Line(medians(pairs, shown.value)), shown.line(), &name);
    }
}

/// The median of each window, at the middle of the window.
fn medians(pairs: &[Pair], value: fn(&Pair) -> f64) -> Vec<[f64; 2]> {
    let window = pairs.len().div_ceil(WINDOWS).max(1);
    let median = |(i, pairs): (usize, &[Pair])| {
        let mut values: Vec<f64> = pairs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        [i as f64 * window as f64 + pairs.len() as f64 / 2.0, middle]
    };
    pairs.chunks(window).enumerate().map(median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_in_the_middle_of_their_windows() {
        let pair = |i: usize| Pair {
            dpo_row: i,
            sft_row: 0,
            prompts: i as f64,
            chosen: 0.0,
            rejected: 0.0,
            chosen_rejected: 0.0,
        };
        let pairs: Vec<Pair> = (0..82).map(pair).collect();
        let medians = medians(&pairs, |pair| pair.prompts);
        // Windows of 3: 0 1 2, 3 4 5, ..., and 81 alone.
        assert_eq!(
            (medians[0], medians[1], medians[27]),
            ([1.5, 1.0], [4.5, 4.0], [81.5, 81.0])
        );
        assert_eq!(figure(&pairs).panels.len(), 3);
    }
}
