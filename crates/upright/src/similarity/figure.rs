//! Figure 6.

use super::Pair;
use crate::plot::{Axis, Dash, Figure, Ink, Mark, Panel, Style};

/// Windows of the running median.
const WINDOWS: usize = 40;

/// Similarities against the rank of the pair, which is that of its prompts' similarity.
pub fn figure(pairs: &[Pair]) -> Figure {
    let mut figure = Figure::new(
        "Each preference row beside the instruction with the nearest prompt: cosine similarity of token counts",
        1,
        [640.0, 170.0],
    );
    let axes = || {
        let rank = Axis::linear("rank of the pair, by the similarity of its prompts").from(0.0, pairs.len() as f64);
        (rank, Axis::linear("cosine").from(0.0, 1.0))
    };
    type Values = fn(&Pair) -> f64;
    let panels: [(&str, &[(Values, usize, &str)]); 3] = [
        ("Both prompts", &[(|pair| pair.prompts, 2, "prompts")]),
        (
            "Answers of the preference with that of the instruction",
            &[(|pair| pair.chosen, 0, "chosen"), (|pair| pair.rejected, 1, "rejected")],
        ),
        ("Chosen with rejected", &[(|pair| pair.chosen_rejected, 3, "chosen with rejected")]),
    ];
    for (title, series) in panels {
        let (x, y) = axes();
        let mut panel = Panel::new(title, x, y);
        let points = |value: Values| pairs.iter().enumerate().map(move |(rank, pair)| [rank as f64 + 0.5, value(pair)]);
        if let [(value, style, name)] = series
            && *name == "prompts"
        {
            // They fall in order: a line is all of them.
            panel.add(Mark::Line(points(*value).collect()), Style::series(*style).unmarked().dash(Dash::Solid), name);
            figure.panels.push(panel);
            continue;
        }
        for (value, style, _) in series {
            panel.add(Mark::Dots(points(*value).collect()), Style::series(*style).opacity(0.35), "");
        }
        // A rim keeps the lines apart from the dots.
        for (value, ..) in series {
            panel.add(Mark::Line(medians(pairs, *value)), Style::thin(Ink::Paper).width(5.0), "");
        }
        for (value, style, name) in series {
            let style = Style::series(*style).unmarked().width(2.5);
            let dash = if *name == "rejected" { Dash::Dashed } else { Dash::Solid };
            panel.add(
                Mark::Line(medians(pairs, *value)),
                style.dash(dash),
                &format!("{name}: dots and running median"),
            );
        }
        figure.panels.push(panel);
    }
    figure
}

/// The median of each of some windows, at the window's middle.
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
        assert_eq!((medians[0], medians[1], medians[27]), ([1.5, 1.0], [4.5, 4.0], [81.5, 81.0]));
        assert_eq!(figure(&pairs).panels.len(), 3);
    }
}
