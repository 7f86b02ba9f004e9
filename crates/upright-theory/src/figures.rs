//! The results as figures: Figure 2, Figure 5, and the gaps of both theorems over T.

use super::{
    softmax::{DPO, SFT, mixed, weights},
    theorem_3_3::{Theorem33, reference_loss, tasks},
    theorem_4_1::{Point, Series, Theorem41},
    toy::{Place, Toy, Variant, Walk},
};
use upright_plot::{Axis, Dash, Figure, Grid, Ink, Mark, Marker, Panel, Style};

/// Colors of DPO and of SFT.
const INKS: [Ink; 2] = [Ink::Series(0), Ink::Series(1)];

/// Figure 2 for every variant, each with its file name.
pub fn of_toy(toy: &Toy) -> Vec<(String, Figure)> {
    let figure = |variant: &Variant| {
        let features = if variant.name == "as-printed" {
            "as printed"
        } else {
            "with x1's features negated (ours)"
        };
        let title = format!(
            "Toy of Figure 2, {features}: {}",
            second_stage(&variant.walks[0])
        );
        let mut figure = Figure::new(title, variant.walks.len(), [270.0, 240.0]);
        let bounds = Bounds::of(variant);
        figure.panels.extend(
            variant
                .walks
                .iter()
                .map(|walk| weight_space(variant, walk, &bounds)),
        );
        figure.panels.extend(
            variant
                .walks
                .iter()
                .map(|walk| loss_space(variant, walk, &bounds)),
        );
        (format!("toy-{}", variant.name), figure)
    };
    toy.variants.iter().map(figure).collect()
}

/// Describes the effect of Sequential's second stage on the DPO loss.
fn second_stage(sequential: &Walk) -> String {
    match &sequential.between {
        Some(between) if sequential.steps[SFT.0] > 0 => {
            format!(
                "Sequential's SFT stage takes the DPO loss from {:.3} to {:.3}",
                between.dpo, sequential.end.dpo
            )
        }
        _ => "Sequential's SFT stage has nothing to do".to_owned(),
    }
}

/// Axis limits that all panels of a variant share, so that they can be compared.
struct Bounds {
    theta: [[f64; 2]; 2],
    losses: [f64; 2],
}

impl Bounds {
    fn of(variant: &Variant) -> Self {
        let places = || variant.walks.iter().flat_map(|walk| &walk.path);
        let range = |value: fn(&Place) -> f64| {
            let [low, high] = places()
                .map(value)
                .fold([f64::MAX, f64::MIN], |[l, h], x| [l.min(x), h.max(x)]);
            [
                low - 0.12 * (high - low) - 0.5,
                high + 0.12 * (high - low) + 0.5,
            ]
        };
        let most = |value: fn(&Place) -> f64| places().map(value).fold(0.0, f64::max) * 1.08;
        Self {
            theta: [range(|p| p.theta[0]), range(|p| p.theta[1])],
            losses: [most(|p| p.dpo), most(|p| p.sft)],
        }
    }
}

/// A path over the contours of both losses and of their average.
fn weight_space(variant: &Variant, walk: &Walk, bounds: &Bounds) -> Panel {
    const LEVELS: [f64; 5] = [0.02, 0.05, 0.2, 0.5, 1.5];
    let [x, y] = bounds.theta;
    let axis = |name: &str, [low, high]: [f64; 2]| Axis::linear(name).from(low, high);
    let mut panel = Panel::new(walk.method, axis("weight 1", x), axis("weight 2", y));
    let contours = |value: &dyn Fn(&[f64; 2]) -> f64, levels: &[f64]| {
        Mark::Contours(Grid::of(x, y, 90, |a, b| value(&[a, b])), levels.to_vec())
    };
    let one = |id: usize| move |theta: &[f64; 2]| variant.tasks[id].whole(theta).0;
    let average = |theta: &[f64; 2]| mixed(&variant.tasks, &weights(0.5), theta).0;
    let thin = |ink: Ink, dash: Dash| Style::thin(ink).dash(dash).width(1.2);
    panel.add(
        contours(&average, &[0.05, 0.1, 0.2, 0.5, 1.0]),
        thin(Ink::Muted, Dash::Solid).opacity(0.6),
        "average of both (nats)",
    );
    panel.add(
        contours(&one(DPO.0), &LEVELS),
        thin(INKS[0], Dash::Dashed),
        "DPO loss (nats)",
    );
    panel.add(
        contours(&one(SFT.0), &LEVELS),
        thin(INKS[1], Dash::Dotted),
        "SFT loss (nats)",
    );
    trace(&mut panel, walk, |place| place.theta);
    panel
}

/// A path in the plane of both losses, with the ideal point.
fn loss_space(variant: &Variant, walk: &Walk, bounds: &Bounds) -> Panel {
    let axis = |name: &str, most: f64| Axis::linear(name).from(-0.06 * most, most);
    let [dpo, sft] = bounds.losses;
    let title = format!(
        "{} ends {:.3} from the ideal",
        walk.method, walk.ideal_distance
    );
    let mut panel = Panel::new(
        title,
        axis("DPO loss (nats)", dpo),
        axis("SFT loss (nats)", sft),
    );
    trace(&mut panel, walk, |place| [place.dpo, place.sft]);
    panel.add(
        Mark::Points(vec![variant.ideal]),
        Style::series(3).marker(Marker::Star),
        "ideal point",
    );
    panel
}

/// Adds the path, its start, the end of Sequential's first stage, and its end.
fn trace(panel: &mut Panel, walk: &Walk, at: fn(&Place) -> [f64; 2]) {
    let ink = Style::thin(Ink::Text);
    panel.add(
        Mark::Line(walk.path.iter().map(at).collect()),
        ink.width(2.0),
        "path",
    );
    let points = |places: Vec<[f64; 2]>, marker: Marker| (Mark::Points(places), ink.marker(marker));
    let (mark, style) = points(
        walk.path.first().map(at).into_iter().collect(),
        Marker::Circle,
    );
    panel.add(mark, style, "start");
    let (mark, style) = points(
        walk.between.as_ref().map(at).into_iter().collect(),
        Marker::Diamond,
    );
    // If SFT had nothing to do, this is the end.
    if walk.between.is_some() && walk.steps[SFT.0] > 0 {
        panel.add(mark, style, "from DPO to SFT");
    }
    let (mark, style) = points(vec![at(&walk.end)], Marker::Square);
    panel.add(mark, style, "end");
}

/// Figure 5, and the end and gap of Sequential over T.
pub fn of_theorem_3_3(theorem: &Theorem33) -> Vec<(String, Figure)> {
    vec![
        ("theorem-3.3-losses".to_owned(), losses(theorem)),
        ("theorem-3.3-gap".to_owned(), sequential_gap(theorem)),
    ]
}

/// The losses of the example.
fn losses(theorem: &Theorem33) -> Figure {
    let tasks = tasks();
    let title = "Theorem 3.3, the example (Figure 5): lowering one loss raises the other";
    let mut figure = Figure::new(title, 1, [560.0, 320.0]);
    let thetas: Vec<f64> = (0..=200).map(|i| -18.0 + 0.14 * f64::from(i)).collect();
    let line = |value: &dyn Fn(f64) -> f64| {
        Mark::Line(thetas.iter().map(|theta| [*theta, value(*theta)]).collect())
    };
    let mut panel = Panel::new(
        "",
        Axis::linear("parameter \u{3b8}").from(-18.0, 10.0),
        Axis::linear("loss (nats)"),
    );
    let of = |index: usize| Style::series(index).unmarked();
    panel.add(line(&|theta| tasks[DPO.0].whole(&[theta]).0), of(0), "DPO");
    panel.add(line(&|theta| tasks[SFT.0].whole(&[theta]).0), of(1), "SFT");
    panel.add(
        line(&|theta| mixed(&tasks, &weights(0.5), &[theta]).0),
        of(5).dash(Dash::Solid),
        "their average",
    );
    panel.add(
        line(&reference_loss),
        of(2),
        "loss of the reference, \u{2212}log \u{3c0}(y_w | x1)",
    );
    let reference = [theorem.reference, reference_loss(theorem.reference)];
    panel.add(
        Mark::Points(vec![reference]),
        Style::series(2).marker(Marker::Triangle),
        "",
    );
    panel.add(
        Mark::Note(
            [reference[0], reference[1] + 0.35],
            format!("reference {:.0}, not -5", theorem.reference).replace('-', "\u{2212}"),
        ),
        Style::thin(Ink::Series(2)),
        "",
    );
    let best = [theorem.argmin, theorem.minimum];
    panel.add(
        Mark::Points(vec![best]),
        Style::series(5).marker(Marker::Star),
        "",
    );
    panel.add(
        Mark::Note(
            [best[0] - 3.2, best[1] + 2.0],
            format!("minimum {:.3} at {:.0}", best[1], best[0]).replace('-', "\u{2212}"),
        ),
        Style::thin(Ink::Text),
        "",
    );
    figure.panels.push(panel);
    figure
}

fn sequential_gap(theorem: &Theorem33) -> Figure {
    let title = "Theorem 3.3: Sequential (DPO, then SFT) keeps a gap, however long it trains";
    let mut figure = Figure::new(title, 2, [320.0, 270.0]);
    let steps = || Axis::log("T, iterations of each stage");
    let mut ends = Panel::new(
        "Parameter after each stage",
        steps(),
        Axis::linear("parameter \u{3b8}"),
    );
    let line = |value: &dyn Fn(usize) -> f64| {
        let points = theorem.runs.iter().enumerate();
        Mark::Line(
            points
                .map(|(i, run)| [run.steps as f64, value(i)])
                .collect(),
        )
    };
    ends.add(
        line(&|i| theorem.runs[i].after_dpo),
        Style::series(0),
        "after DPO",
    );
    ends.add(
        line(&|i| theorem.runs[i].end),
        Style::series(1),
        "after SFT (the end)",
    );
    ends.add(
        Mark::Horizontal(theorem.argmin),
        Style::thin(Ink::Text).dash(Dash::Dotted).width(1.5),
        "minimum of the average",
    );
    let mut gaps = Panel::new(
        "Gap of the end",
        steps(),
        Axis::log("gap of the mix to its minimum (nats)"),
    );
    for (i, tradeoff) in theorem.lambdas.iter().enumerate() {
        let name = format!("\u{3bb} = {}", tradeoff.lambda);
        // Separate colors: 0 and 1 are the stages.
        gaps.add(
            line(&|run| theorem.runs[run].gaps[i]),
            Style::series(i + 2),
            &name,
        );
    }
    let bound = format!("bound {:.5} (\u{3bb} = 0.5)", theorem.gap_at_zero);
    gaps.add(
        Mark::Horizontal(theorem.gap_at_zero),
        Style::thin(Ink::Text).dash(Dash::Dashed).width(1.5),
        &bound,
    );
    figure.panels = vec![ends, gaps];
    figure
}

/// The gap of ALRIGHT over T, one panel per alpha_0.
pub fn of_theorem_4_1(theorem: &Theorem41) -> Vec<(String, Figure)> {
    let title = format!(
        "Theorem 4.1: ALRIGHT's gap vanishes (\u{3bb} = {}; mean of {} seeds with standard errors)",
        theorem.lambda, theorem.seeds
    );
    let mut figure = Figure::new(title, theorem.series.len(), [330.0, 290.0]);
    figure.panels = theorem.series.iter().map(alright_gap).collect();
    vec![("theorem-4.1-gap".to_owned(), figure)]
}

fn alright_gap(series: &Series) -> Panel {
    let step = |alpha: f64| format!("\u{3b1} = {alpha} / \u{221a}T");
    let title = match series.tail_slope {
        Some(slope) => format!(
            "{}: slope {slope:.2} after the transient",
            step(series.alpha_0)
        ),
        None => format!("{}: all transient", step(series.alpha_0)),
    }
    .replace('-', "\u{2212}");
    let mut panel = Panel::new(
        title,
        Axis::log("T, iterations"),
        Axis::log("gap of the mix to its minimum (nats)").from(5e-5, 50.0),
    );
    let line = |value: fn(&Point) -> f64| {
        Mark::Line(
            series
                .points
                .iter()
                .map(|point| [point.steps as f64, value(point)])
                .collect(),
        )
    };
    panel.add(
        line(|point| point.bound),
        Style::series(5).dash(Dash::Solid).unmarked(),
        "bound, as derived in its proof",
    );
    panel.add(
        line(|point| point.printed_bound),
        Style::series(1).dash(Dash::Dashed).unmarked(),
        "bound (51), as printed",
    );
    panel.add(
        line(|point| point.noiseless_gap),
        Style::series(2).dash(Dash::Dotted).unmarked(),
        "Mix (without noise)",
    );
    if let Some(first) = series.points.iter().find(|point| !point.transient) {
        let rate = |steps: usize| (steps as f64).ln() / (steps as f64).sqrt();
        let tail = series.points.iter().filter(|point| !point.transient);
        let scaled = |point: &Point| first.mean_gap * rate(point.steps) / rate(first.steps);
        let guide = tail
            .map(|point| [point.steps as f64, scaled(point)])
            .collect();
        panel.add(
            Mark::Line(guide),
            Style::thin(Ink::Muted).dash(Dash::DashDotted).width(1.5),
            "log T / \u{221a}T, from the tail's start",
        );
    }
    let bars = series
        .points
        .iter()
        .map(|point| [point.steps as f64, point.mean_gap, point.standard_error])
        .collect();
    panel.add(Mark::ErrorBars(bars), Style::series(0), "");
    panel.add(line(|point| point.mean_gap), Style::series(0), "ALRIGHT");
    panel
}
