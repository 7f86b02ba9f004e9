//! The plane of two losses: the paths of arms through it, and the end points of methods over their
//! weights.

use super::{
    Shown, WIDTH,
    facets::{Facet, facets},
    given, loss_axis, loss_name, marked, spans_decades,
};
use crate::{
    compare::{
        Arm, Comparable, Front, Report, Role, labels,
        matching::{distinct, same},
    },
    read::Run,
    say::SET_NAMES,
};
use upright_core::methods::ALRIGHT;
use upright_core::{
    metrics::{Spread, front::pareto_front},
    optimizer::Iterate,
};
use upright_plot::{Axis, Dash, Figure, Ink, Mark, Marker, Panel, Style};
use upright_runs::records::{EvalSet, PerSet};

/// Titles of panels that differ only in their set of rows.
const SET_TITLES: PerSet<&str> = PerSet {
    held_out: "Held-out rows (eval)",
    training: "Training rows (fit)",
};

/// The two objectives of the plane: x is the first preference objective and y the first other one;
/// otherwise the first two objectives.
fn axes(report: &Report) -> Option<[usize; 2]> {
    let preference = |name: &String| {
        let of = |run: &Run| Some(run.plan().objectives[run.objective(name)?].is_preference());
        report.runs.iter().find_map(of).unwrap_or(false)
    };
    let find = |wanted: bool| {
        report
            .objectives
            .iter()
            .position(|name| preference(name) == wanted)
    };
    match (find(true), find(false)) {
        (Some(x), Some(y)) => Some([x, y]),
        _ => (report.objectives.len() > 1).then_some([0, 1]),
    }
}

/// The plane with its axes, which both sets of rows share.
struct Plane {
    axes: [Axis; 2],
}

impl Plane {
    /// Chooses scales for these points and for the start and the ideal point of every setting.
    fn of(
        report: &Report,
        objectives: [usize; 2],
        places: impl Iterator<Item = [Spread; 2]>,
    ) -> Self {
        let mut all: Vec<[f64; 2]> = places.map(mean).collect();
        let fixed = |setting| EvalSet::ALL.map(|set| fixed_points(setting, objectives, set));
        all.extend(report.settings.iter().flat_map(fixed).flatten().flatten());
        let axis = |i: usize| {
            loss_axis(
                loss_name(report, objectives[i]),
                spans_decades(all.iter().map(|place| place[i])),
            )
        };
        Self {
            axes: [axis(0), axis(1)],
        }
    }
}

/// A point in the plane, if both losses were measured.
fn place(losses: &[Option<Spread>], [x, y]: [usize; 2]) -> Option<[Spread; 2]> {
    Some([losses[x]?, losses[y]?])
}

fn mean([x, y]: [Spread; 2]) -> [f64; 2] {
    [x.mean, y.mean]
}

/// An empty panel whose axes cover points with errors and points without.
fn panel(plane: &Plane, title: String, places: &[[Spread; 2]], fixed: &[[f64; 2]]) -> Panel {
    let axis = |i: usize| {
        let ends = |place: &[Spread; 2]| {
            [
                place[i].mean - place[i].reach(),
                place[i].mean + place[i].reach(),
            ]
        };
        let means = || {
            places
                .iter()
                .map(|place| place[i].mean)
                .chain(fixed.iter().map(|place| place[i]))
        };
        let axis = plane.axes[i].clone();
        let whole = axis.ends(means().chain(places.iter().flat_map(ends)));
        axis.within(whole)
    };
    Panel::new(title, axis(0), axis(1))
}

/// Start and ideal point of a setting on a set of rows, if known.
fn fixed_points(setting: &Comparable, [x, y]: [usize; 2], set: EvalSet) -> [Option<[f64; 2]>; 2] {
    let value = |k: usize| setting.ideal[set][k].as_ref().map(|optimum| optimum.value);
    let ideal = || Some([value(x)?, value(y)?]);
    [place(&setting.start[set], [x, y]).map(mean), ideal()]
}

fn add_fixed(panel: &mut Panel, setting: &Comparable, axes: [usize; 2], set: EvalSet) {
    let [start, ideal] = fixed_points(setting, axes, set);
    if let Some(start) = start {
        panel.add(
            Mark::Points(vec![start]),
            Style::thin(Ink::Muted).marker(Marker::Circle),
            "start",
        );
    }
    add_ideal(panel, ideal, is_trained(setting, axes, set));
}

fn add_ideal(panel: &mut Panel, ideal: Option<[f64; 2]>, trained: bool) {
    if let Some(ideal) = ideal {
        panel.add(
            Mark::Points(vec![ideal]),
            Style::thin(Ink::Text).marker(Marker::Star),
            &marked("ideal point", trained),
        );
    }
}

/// Whether training reached both optima of the plane.
fn is_trained(setting: &Comparable, axes: [usize; 2], set: EvalSet) -> bool {
    let of = |k: usize| setting.ideal[set][k].as_ref();
    axes.iter()
        .all(|k| of(*k).is_none_or(|optimum| optimum.trained))
}

/// Adds error bars in both directions, and the marker on top.
fn add_end(panel: &mut Panel, [x, y]: [Spread; 2], style: Style, name: &str) {
    let thin = style.unmarked().width(1.3);
    if y.reach() > 0.0 {
        panel.add(Mark::ErrorBars(vec![[x.mean, y.mean, y.reach()]]), thin, "");
    }
    if x.reach() > 0.0 {
        panel.add(
            Mark::ErrorBarsAcross(vec![[x.mean, y.mean, x.reach()]]),
            thin,
            "",
        );
    }
    // A line with one point draws only its marker, but its legend entry shows the dash too.
    panel.add(Mark::Line(vec![[x.mean, y.mean]]), style, name);
}

/// Names the objectives of the plane if there are more than two.
fn beyond(report: &Report, [x, y]: [usize; 2]) -> String {
    let (all, names) = (report.objectives.len(), &report.objectives);
    let said = format!(
        " There are {all} objectives; this plot shows {} and {}.",
        names[x], names[y]
    );
    if all > 2 { said } else { String::new() }
}

/// The paper's Figure 3, left: one panel per set of rows and weights.
pub(super) fn trajectories(report: &Report, looks: &[Style]) -> Option<Shown> {
    let axes = axes(report)?;
    let facets = facets(report);
    // Few facets are side by side, with one row per set; many facets are rows, with one column per
    // set.
    let beside = (2..=3).contains(&facets.len());
    let columns = if beside { facets.len() } else { 2 };
    let height = if facets.len() == 1 { 360.0 } else { 270.0 };
    let mut figure = Figure::new(
        "Paths through the plane of both losses, from the start to the end",
        columns,
        [400.0, height],
    );
    // If runs stop at different steps, the mean end lies beyond their common steps.
    let path = |arm: &Arm, set: EvalSet| -> Vec<[Spread; 2]> {
        let mut path: Vec<_> = report
            .path(arm)
            .iter()
            .filter_map(|stop| place(&stop.losses[set], axes))
            .collect();
        path.extend(place(&arm.ends[set], axes).filter(|end| path.last() != Some(end)));
        path
    };
    let everywhere = report
        .arms
        .iter()
        .flat_map(|arm| EvalSet::ALL.map(|set| path(arm, set)))
        .flatten();
    let plane = Plane::of(report, axes, everywhere);
    let mut shown: Vec<(&Facet, EvalSet)> = Vec::new();
    if beside {
        for set in EvalSet::ALL {
            shown.extend(facets.iter().map(|facet| (facet, set)));
        }
    } else {
        for facet in &facets {
            shown.extend(EvalSet::ALL.map(|set| (facet, set)));
        }
    }
    for (facet, set) in shown {
        // All facets of a setting share their axes.
        let whole = report
            .arms
            .iter()
            .filter(|arm| arm.setting == facet.setting);
        let places: Vec<[Spread; 2]> = whole.flat_map(|arm| path(arm, set)).collect();
        if places.is_empty() {
            continue;
        }
        let title = match facet.name.is_empty() {
            true => SET_TITLES[set].to_owned(),
            false => format!("{}: {}", facet.name, SET_NAMES[set]),
        };
        let fixed: Vec<_> = fixed_points(&report.settings[facet.setting], axes, set)
            .into_iter()
            .flatten()
            .collect();
        let mut panel = panel(&plane, title, &places, &fixed);
        let paths: Vec<_> = facet
            .arms
            .iter()
            .map(|i| (*i, path(&report.arms[*i], set)))
            .collect();
        for (index, path) in &paths {
            let line = path.iter().map(|place| mean(*place)).collect();
            panel.add(
                Mark::Line(line),
                looks[*index].unmarked().width(1.8).opacity(0.75),
                "",
            );
        }
        if let Some(front) = sampled_front(report, axes, facet, set) {
            let style = Style::thin(Ink::Muted).dash(Dash::Dotted).width(1.6);
            panel.add(
                Mark::Line(front),
                style,
                "end points of alright, all weights",
            );
        }
        for index in &facet.arms {
            if let Some(end) = place(&report.arms[*index].ends[set], axes) {
                add_end(&mut panel, end, looks[*index], &report.arms[*index].method);
            }
        }
        add_fixed(&mut panel, &report.settings[facet.setting], axes, set);
        figure.panels.push(panel);
    }
    if figure.panels.is_empty() {
        return None;
    }
    let caption = format!(
        "Every arm starts at the gray dot and ends at its marker (mean over its runs, bars are \
         standard errors). A lower {} loss is to the left and a lower {} loss is down, so the best \
         corner is the lower left. The star is the ideal point, where both losses are at their \
         optimum. A path that bends back loses in its second half \
         what it gained in the first; this is forgetting.{}{}{}{}",
        report.objectives[axes[0]],
        report.objectives[axes[1]],
        straight(report),
        nearest(report),
        given(report),
        beyond(report, axes)
    );
    Some(Shown {
        name: "trajectories",
        heading: "Paths",
        figure: figure.fit(WIDTH),
        caption,
        table: "curves",
    })
}

/// Explains the end of a path if the runs of an arm stop at different steps.
fn straight(report: &Report) -> &'static str {
    if !report.arms.iter().any(|arm| report.ends_apart(arm)) {
        return "";
    }
    " If the runs of an arm stop at different steps, its path is their mean up to the first stop, \
     then a straight line to the mean of their end points."
}

/// Names the arms that end nearest to the ideal point.
fn nearest(report: &Report) -> String {
    // Distances are not compared between settings or training budgets.
    if report.comparisons().len() != 1 {
        return String::new();
    }
    let of = |set: EvalSet| {
        let far = |i: &usize| {
            Some((
                *i,
                report.arms[*i].ideal_distance[set].filter(|_| !report.arms[*i].unfinished)?,
            ))
        };
        let all: Vec<(usize, Spread)> = super::contenders(report).iter().filter_map(far).collect();
        let (best, distance) = *all.iter().min_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?;
        let label = &report.arms[best].label;
        (all.len() > 1).then(|| {
            format!(
                "\u{201c}{label}\u{201d} on {} (distance {:.3})",
                SET_NAMES[set], distance.mean
            )
        })
    };
    let found: Vec<String> = EvalSet::ALL.into_iter().filter_map(of).collect();
    if found.is_empty() {
        String::new()
    } else {
        format!(" Nearest to the ideal point: {}.", found.join(", "))
    }
}

/// The non-dominated end points of ALRIGHT over its weights, ordered by x.
fn sampled_front(
    report: &Report,
    axes: [usize; 2],
    facet: &Facet,
    set: EvalSet,
) -> Option<Vec<[f64; 2]>> {
    let here = |front: &&Front| {
        front.role.is(&ALRIGHT) && front.setting == facet.setting && front.iterate == facet.iterate
    };
    let front = report.fronts.iter().find(here)?;
    let ends: Vec<[f64; 2]> = front
        .arms
        .iter()
        .filter_map(|i| place(&report.arms[*i].ends[set], axes).map(mean))
        .collect();
    let all: Vec<Vec<f64>> = ends.iter().map(|end| end.to_vec()).collect();
    let mut line: Vec<[f64; 2]> = pareto_front(&all).into_iter().map(|i| ends[i]).collect();
    line.sort_by(|a, b| a[0].total_cmp(&b[0]));
    (line.len() > 1).then_some(line)
}

/// The reference point of the hypervolumes of a setting, in words.
fn worst(report: &Report, setting: usize) -> Option<String> {
    let fronts = report.fronts.iter().any(|front| front.setting == setting);
    let worst = report.best.worst.get(setting).filter(|_| fronts)?;
    let on = |set: EvalSet| {
        let point = worst[set]
            .as_ref()?
            .iter()
            .map(|x| format!("{x:.3}"))
            .collect::<Vec<_>>();
        Some(format!("({}) on {}", point.join(", "), SET_NAMES[set]))
    };
    let words = EvalSet::ALL
        .into_iter()
        .filter_map(on)
        .collect::<Vec<_>>()
        .join(" and ");
    let name = match report.settings.len() {
        1 => String::new(),
        _ => report.setting_name(setting),
    };
    Some(if name.is_empty() {
        words
    } else {
        format!("{words}, {name}")
    })
}

/// Explains the weights of Sequential if they were not requested.
fn shares(report: &Report) -> &'static str {
    let sequential = report
        .fronts
        .iter()
        .filter(|front| matches!(front.role, Role::Sequential(_)));
    let mut runs = sequential
        .flat_map(|front| &front.arms)
        .map(|i| &report.runs[report.arms[*i].runs[0]]);
    match (
        runs.clone().all(|run| run.weighed),
        runs.any(|run| run.weighed),
    ) {
        (true, _) => "",
        (_, false) => " For Sequential the weight is the share of its steps.",
        _ => " For Sequential the weight is the share of its steps, unless weights were given.",
    }
}

/// The end points of every method over its weights.
pub(super) fn fronts(report: &Report, looks: &[Style]) -> Option<Shown> {
    let axes = axes(report).filter(|_| !report.fronts.is_empty())?;
    let all = report
        .fronts
        .iter()
        .flat_map(|front| &front.arms)
        .map(|i| &report.arms[*i]);
    let weights = distinct(all);
    let marker = |of: &[f64]| {
        super::style::marker(
            weights
                .iter()
                .position(|other| same(other, of))
                .unwrap_or(0),
        )
    };
    let look = |index: usize| match report.arms[index].iterate {
        Iterate::Last => looks[index],
        Iterate::Average => super::style::beside_last(looks[index]),
    };
    let mut figure = Figure::new(
        "End points of each method over its weights",
        2,
        [400.0, 340.0],
    );
    let all = report
        .fronts
        .iter()
        .flat_map(|front| &front.arms)
        .flat_map(|i| report.arms[*i].ends.iter());
    let plane = Plane::of(report, axes, all.filter_map(|ends| place(ends, axes)));
    for (setting, set) in
        (0..report.settings.len()).flat_map(|setting| EvalSet::ALL.map(|set| (setting, set)))
    {
        let fronts: Vec<_> = report
            .fronts
            .iter()
            .filter(|front| front.setting == setting)
            .collect();
        let end = |i: &usize| Some((*i, place(&report.arms[*i].ends[set], axes)?));
        let ends: Vec<Vec<(usize, [Spread; 2])>> = fronts
            .iter()
            .map(|front| front.arms.iter().filter_map(end).collect())
            .collect();
        let places: Vec<[Spread; 2]> = ends.iter().flatten().map(|(_, place)| *place).collect();
        if places.is_empty() {
            continue;
        }
        let title = match report.settings.len() {
            1 => SET_TITLES[set].to_owned(),
            _ => format!("{}: {}", report.setting_name(setting), SET_NAMES[set]),
        };
        let [_, ideal] = fixed_points(&report.settings[setting], axes, set);
        let mut panel = panel(&plane, title, &places, ideal.as_slice());
        for (front, ends) in fronts.iter().zip(&ends) {
            let line = ends.iter().map(|(_, place)| mean(*place)).collect();
            panel.add(
                Mark::Line(line),
                look(front.arms[0]).unmarked(),
                &front.method,
            );
        }
        for (index, end) in ends.iter().flatten() {
            add_end(
                &mut panel,
                *end,
                look(*index).marker(marker(&report.arms[*index].weights)),
                "",
            );
        }
        let run = &report.runs[0];
        for weights in &weights {
            let name = labels::weighed(run.plan(), weights, &report.objectives);
            panel.add(
                Mark::Points(Vec::new()),
                Style::thin(Ink::Muted).marker(marker(weights)),
                &name,
            );
        }
        let trained = is_trained(&report.settings[setting], axes, set);
        add_ideal(&mut panel, ideal, trained);
        figure.panels.push(panel);
    }
    if figure.panels.is_empty() {
        return None;
    }
    let reference = (0..report.settings.len())
        .filter_map(|setting| worst(report, setting))
        .collect::<Vec<_>>()
        .join("; ");
    let caption = format!(
        "One line per method and one marker per weight (mean over runs, bars are standard errors). \
         Lines closer to the lower left are better. If the points are spread along a line, the \
         weight controls the trade-off between the objectives; if they cluster, it does not. The \
         table has the hypervolume of each method (the volume that it dominates, up to the worst \
         end point: {reference}; larger is better) and Deb's Delta, which measures how unevenly \
         its points lie between the end points of the runs that train one objective alone (0 is \
         even, about 1 is all in one place).{}",
        beyond(report, axes)
    );
    let (figure, caption) = (figure.fit(WIDTH), caption + shares(report));
    Some(Shown {
        name: "fronts",
        heading: "Trade-off",
        figure,
        caption,
        table: "fronts",
    })
}
