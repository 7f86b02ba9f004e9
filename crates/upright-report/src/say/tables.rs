//! The tables of the page, and the numbers behind every figure.

mod benchmarks;

use super::{
    SET_NAMES, prose,
    table::{Better, Cell, Column, Table, listed},
};
use crate::compare::{Optimum, Report, arm::Arm, labels, matching};
use upright_runs::records::EvalSet;

pub(crate) use benchmarks::{benchmarks, scores};

/// Names of all possible tables.
pub(crate) const NAMES: [&str; 10] = [
    "results",
    "gaps",
    "cost",
    "fronts",
    "probes",
    "curves",
    "distances",
    "decisions",
    "benchmarks",
    "scores",
];

/// The tables that the page shows.
pub(crate) fn shown(report: &Report) -> Vec<Table> {
    let mut tables = vec![results(report)];
    if report.has_ideal() {
        tables.push(gaps(report));
    }
    tables.push(cost(report));
    tables.extend(fronts(report));
    tables.extend(probes(report));
    tables.extend(benchmarks(report));
    tables.extend(scores(report));
    tables
}

/// The numbers behind figures that are in no table on the page.
pub(crate) fn behind_figures(report: &Report) -> Vec<Table> {
    let mut tables = vec![curves(report), decisions(report)];
    if report.has_ideal() {
        tables.push(distances(report));
    }
    tables
}

/// The final losses and distance of every arm, and whether it is on the front.
pub(crate) fn results(report: &Report) -> Table {
    let mut columns = vec![Column::new("arm"), Column::new("runs")];
    for rows in SET_NAMES.into_list() {
        columns.extend(
            report
                .objectives
                .iter()
                .map(|name| Column::of(rows, format!("{name} loss"), None)),
        );
        columns.push(Column::of(rows, "distance", Some(Better::Small)));
        columns.push(Column::of(rows, "front", None));
    }
    let mut table = Table::new("results", "Final losses of every arm", columns);
    for (setting, of) in report.settings.iter().enumerate() {
        let named = |what: &str| match report.settings.len() {
            1 => what.to_owned(),
            _ => format!("{what}, {}", report.setting_name(setting)),
        };
        let mut start = vec![Cell::Text(named("start, before training")), Cell::Missing];
        let given = of.untrained(&report.objectives);
        let what = if given.is_empty() {
            "ideal point, each alone".to_owned()
        } else if given.len() == report.objectives.len() {
            format!("ideal point ({})", prose::GIVEN)
        } else {
            format!("ideal point ({} {})", listed(&given), prose::GIVEN)
        };
        let mut ideal = vec![Cell::Text(named(&what)), Cell::Missing];
        for set in EvalSet::ALL {
            start.extend(
                of.start[set]
                    .iter()
                    .map(|loss| Cell::number(loss.map(|loss| loss.mean), 3)),
            );
            let value = |optimum: &Option<Optimum>| optimum.as_ref().map(|optimum| optimum.value);
            ideal.extend(
                of.ideal[set]
                    .iter()
                    .map(|optimum| Cell::number(value(optimum), 3)),
            );
            start.extend([Cell::Missing, Cell::Text(String::new())]);
            ideal.extend([Cell::Missing, Cell::Text(String::new())]);
        }
        table
            .references
            .extend([table.rows.len(), table.rows.len() + 1]);
        table.groups.extend([setting; 2]);
        table.rows.extend([start, ideal]);
    }
    for (index, arm) in report.arms.iter().enumerate() {
        let mut row = vec![
            Cell::Text(labels::named(arm)),
            Cell::Number(arm.runs.len() as f64, 0),
        ];
        for set in EvalSet::ALL {
            row.extend(arm.ends[set].iter().map(|end| Cell::spread(*end, 3)));
            row.push(Cell::spread(arm.ideal_distance[set], 3));
            let on_front = report.best.on_front[index][set];
            row.push(Cell::Text(if on_front { "yes" } else { "" }.into()));
        }
        aside(&mut table, report, arm);
        table.rows.push(row);
    }
    table
}

/// Records which rows the next row, an arm's, is compared with. An arm that trains one objective
/// alone does not compete for the smallest distance.
fn aside(table: &mut Table, report: &Report, arm: &Arm) {
    table.groups.push(report.group(arm));
    if !report.contends(arm) {
        table.aside.push(table.rows.len());
    }
}

/// Gaps to the optimum and distances to the ideal point.
pub(crate) fn gaps(report: &Report) -> Table {
    let mut columns = vec![Column::new("arm")];
    for rows in SET_NAMES.into_list() {
        columns.extend(
            report
                .objectives
                .iter()
                .map(|name| Column::of(rows, format!("{name} gap"), None)),
        );
        columns.push(Column::of(rows, "distance", Some(Better::Small)));
    }
    let mut title =
        "Gap to the optimum of each objective, and distance to the ideal point".to_owned();
    if !prose::rests_on_given(report).is_empty() {
        title += &format!(" (optima {})", prose::GIVEN);
    }
    let mut table = Table::new("gaps", title, columns);
    for arm in &report.arms {
        let mut row = vec![Cell::Text(labels::named(arm))];
        for set in EvalSet::ALL {
            row.extend(arm.gaps[set].iter().map(|gap| Cell::spread(*gap, 4)));
            row.push(Cell::spread(arm.ideal_distance[set], 4));
        }
        aside(&mut table, report, arm);
        table.rows.push(row);
    }
    table
}

/// The cost of every arm.
pub(crate) fn cost(report: &Report) -> Table {
    let mut columns = vec![Column::new("arm")];
    columns.extend(
        report
            .objectives
            .iter()
            .map(|name| Column::of("steps of", name.clone(), None)),
    );
    let time = matching::time(&report.arms);
    columns.push(Column::new(time.name));
    columns.push(Column::new(format!("increase in {} (%)", time.name)));
    if time.is_busy() {
        columns.push(Column::new("wall-clock seconds"));
    }
    columns.extend([
        Column::new("utilization (%)"),
        Column::new("utilization increase (%)"),
        Column::of("tokens", "trained on", None),
        Column::of("tokens", "only probed", None),
        Column::new("tokens/s"),
        Column::new("peak memory (GB)"),
    ]);
    let mut table = Table::new(
        "cost",
        "Cost of every arm; increases are relative to Sequential with the same weights and steps",
        columns,
    );
    // An averaged arm costs what its last iterate costs.
    for arm in report.arms.iter().filter(|arm| !arm.is_averaged()) {
        let mut row = vec![Cell::Text(labels::named(arm))];
        for steps in &arm.updates {
            let differ = steps.is_some_and(|steps| steps.reach() > 0.0);
            row.push(Cell::spread(*steps, if differ { 1 } else { 0 }));
        }
        let percent = arm.utilization.map(|used| used.times(100.0));
        row.push(Cell::spread((time.mean)(arm), 2));
        row.push(Cell::spread(arm.cost_increase, 1));
        if time.is_busy() {
            row.push(Cell::spread(arm.seconds, 2));
        }
        row.extend([
            Cell::spread(percent, 1),
            Cell::spread(arm.utilization_increase, 1),
            Cell::spread(arm.tokens, 0),
            Cell::spread(arm.probed_tokens, 0),
            Cell::spread(arm.tokens_per_second, 0),
            Cell::number(arm.peak_memory_gb, 2),
        ]);
        table.rows.push(row);
    }
    table
}

/// Methods over their weights; none if no method has several.
pub(crate) fn fronts(report: &Report) -> Option<Table> {
    let mut columns = vec![
        Column::new("method"),
        Column::new("weights"),
        Column::new("arms"),
    ];
    for rows in SET_NAMES.into_list() {
        columns.push(Column::of(rows, "hypervolume", Some(Better::Large)));
        columns.push(Column::of(rows, "Delta", Some(Better::Small)));
    }
    let mut table = Table::new("fronts", "Front of each method over its weights", columns);
    for front in &report.fronts {
        let run = &report.runs[report.arms[front.arms[0]].runs[0]];
        let weights = front
            .weights
            .iter()
            .map(|weights| labels::weighed(run.plan(), weights, &report.objectives));
        let weights = weights.collect::<Vec<_>>().join("; ");
        let mut row = vec![
            Cell::Text(report.front_name(front)),
            Cell::Text(weights),
            Cell::Number(front.arms.len() as f64, 0),
        ];
        for set in EvalSet::ALL {
            row.extend([
                Cell::number(front.hypervolume[set], 4),
                Cell::spread(front.delta[set].as_ref().map(|delta| delta.spread), 3),
            ]);
        }
        table.groups.push(report.group(&report.arms[front.arms[0]]));
        table.rows.push(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Mean losses of every arm at the evaluations that all its runs share.
pub(crate) fn curves(report: &Report) -> Table {
    let mut columns = vec![Column::new("arm"), Column::new("step")];
    for rows in SET_NAMES.into_list() {
        columns.extend(
            report
                .objectives
                .iter()
                .map(|name| Column::of(rows, format!("{name} loss"), None)),
        );
    }
    let mut table = Table::new("curves", "Losses by step", columns);
    for arm in &report.arms {
        for point in report.path(arm) {
            let mut row = vec![
                Cell::Text(arm.label.clone()),
                Cell::Number(point.step as f64, 0),
            ];
            row.extend(
                point
                    .losses
                    .iter()
                    .flatten()
                    .map(|loss| Cell::spread(*loss, 4)),
            );
            table.rows.push(row);
        }
    }
    table
}

/// Mean distances of every arm at the evaluations that all its runs share, by step, tokens and
/// seconds.
pub(crate) fn distances(report: &Report) -> Table {
    let mut columns = vec![
        Column::new("arm"),
        Column::new("step"),
        Column::new("tokens trained on"),
        Column::new("seconds of training steps"),
    ];
    for rows in SET_NAMES.into_list() {
        columns.push(Column::of(rows, "distance", None));
    }
    let mut table = Table::new(
        "distances",
        "Distance to the ideal point by step, tokens and seconds",
        columns,
    );
    for arm in &report.arms {
        for stop in report.path(arm) {
            table.rows.push(vec![
                Cell::Text(arm.label.clone()),
                Cell::Number(stop.step as f64, 0),
                Cell::spread(Some(stop.tokens), 0),
                Cell::spread(Some(stop.seconds), 2),
                Cell::spread(stop.ideal_distance.held_out, 4),
                Cell::spread(stop.ideal_distance.training, 4),
            ]);
        }
    }
    table
}

/// The objectives that each step of an arm's first run trained on; shares if several steps share a
/// bin.
pub(crate) fn decisions(report: &Report) -> Table {
    let mut columns = vec![
        Column::new("arm"),
        Column::new("first step"),
        Column::new("last step"),
    ];
    columns.extend(
        report
            .objectives
            .iter()
            .map(|name| Column::of("share of", name.clone(), None)),
    );
    let mut table = Table::new(
        "decisions",
        "Objective trained in each step, first seed of each arm",
        columns,
    );
    for arm in report.arms.iter().filter(|arm| !arm.is_averaged()) {
        for (from, to, shares) in report.decisions(arm) {
            let mut row = vec![
                Cell::Text(arm.label.clone()),
                Cell::Number(from as f64, 0),
                Cell::Number((to - 1) as f64, 0),
            ];
            row.extend(shares.iter().map(|share| Cell::Number(*share, 3)));
            table.rows.push(row);
        }
    }
    table
}

/// Methods that probe, over k; none if there is only one k.
pub(crate) fn probes(report: &Report) -> Option<Table> {
    let mut columns = vec![Column::new("arm"), Column::new("k")];
    for rows in SET_NAMES.into_list() {
        columns.push(Column::of(rows, "distance", Some(Better::Small)));
    }
    let time = matching::time(&report.arms);
    columns.push(Column::of("", time.name, Some(Better::Small)));
    let mut table = Table::new(
        "probes",
        format!("{} by probe interval k, in steps", report.probing()),
        columns,
    );
    for (group, index) in report
        .probed()
        .into_iter()
        .enumerate()
        .flat_map(|(i, group)| group.into_iter().map(move |arm| (i, arm)))
    {
        let arm = &report.arms[index];
        table.groups.push(group);
        table.rows.push(vec![
            Cell::Text(arm.label.clone()),
            Cell::number(arm.probe_every.map(|k| k as f64), 0),
            Cell::spread(arm.ideal_distance.held_out, 4),
            Cell::spread(arm.ideal_distance.training, 4),
            Cell::spread((time.mean)(arm), 2),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}
