//! Bar charts: gaps and distance, and the cost of every arm.

use super::{Shown, WIDTH, contenders, given, height, names};
use crate::{
    compare::{Arm, Report, Role, matching::time},
    say::SET_NAMES,
};
use upright_core::methods::{self, Form};
use upright_core::metrics::Spread;
use upright_plot::{Axis, Figure, Ink, Mark, Panel, Style};
use upright_runs::records::{EvalSet, PerSet};

/// Height of the row of an arm.
const ROW: f64 = 31.0;
/// Opacity of the bars of each set of rows.
const OPACITIES: PerSet<f64> = PerSet {
    held_out: 1.0,
    training: 0.42,
};

/// Gap of every objective and distance to the ideal point; none if no optimum is known.
pub(super) fn gaps(report: &Report, looks: &[Style]) -> Option<Shown> {
    if !report
        .arms
        .iter()
        .any(|arm| arm.gaps.iter().flatten().any(Option::is_some))
    {
        return None;
    }
    let count = report.objectives.len();
    let panels = count + usize::from(report.has_ideal());
    let arms = contenders(report);
    let mut figure = Figure::new(
        "Gap to the optimum of each objective, and distance to the ideal point",
        panels,
        [200.0, height(report, &arms, ROW)],
    );
    for k in 0..panels {
        let value = |arm: &Arm, set: EvalSet| {
            if k < count {
                arm.gaps[set][k]
            } else {
                arm.ideal_distance[set]
            }
        };
        let name = report.objectives.get(k).map(|name| format!("{name} gap"));
        let name = name.unwrap_or_else(|| "distance to the ideal point".into());
        figure.panels.push(bars(
            report,
            &arms,
            looks,
            &name,
            k == 0,
            &EvalSet::ALL,
            &value,
        ));
    }
    let caption = format!(
        "Final loss minus the optimum of each objective. Shorter is better; 0 is as good as \
         training that objective alone. The distance combines all gaps. Dark bars are held-out \
         rows, light bars are training rows, and whiskers are standard errors.{}{}",
        given(report),
        if arms.len() < report.arms.len() {
            " Arms that train one objective alone are not shown."
        } else {
            ""
        }
    );
    Some(Shown {
        name: "gaps",
        heading: "Gaps and distance",
        figure: figure.fit(WIDTH),
        caption,
        table: "gaps",
    })
}

/// Time per arm, and the increases over Sequential if there are any.
pub(super) fn cost(report: &Report, looks: &[Style]) -> Option<Shown> {
    let time = time(&report.arms);
    let takes_time = |i: &usize| {
        report.arms[*i]
            .seconds
            .is_some_and(|seconds| seconds.mean > 0.0)
    };
    // An averaged arm costs what its last iterate costs.
    let arms: Vec<usize> = contenders(report)
        .into_iter()
        .filter(|i| takes_time(i) && !report.arms[*i].is_averaged())
        .collect();
    let joint: Vec<usize> = arms
        .iter()
        .copied()
        .filter(|i| report.arms[*i].is_joint())
        .collect();
    let some = |value: OfArm| joint.iter().any(|i| value(&report.arms[*i]).is_some());
    let mut values: Vec<(String, OfArm)> = vec![(format!("{} of all steps", time.name), time.mean)];
    let (increased, used) = (
        some(|arm| arm.cost_increase),
        some(|arm| arm.utilization_increase),
    );
    if increased {
        values.push((format!("increase in {} (%)", time.name), |arm| {
            arm.cost_increase
        }));
    }
    if used {
        values.push(("increase in utilization (%)".into(), |arm| {
            arm.utilization_increase
        }));
    }
    if arms.is_empty() {
        return None;
    }
    let mut figure = Figure::new(
        "Cost of each arm",
        values.len(),
        [200.0, height(report, &arms, ROW * 0.8)],
    );
    for (k, (name, value)) in values.iter().enumerate() {
        let value = |arm: &Arm, _: EvalSet| value(arm);
        // A cost does not depend on rows, so an arm has one bar.
        let sets = [EvalSet::HeldOut];
        figure
            .panels
            .push(bars(report, &arms, looks, name, k == 0, &sets, &value));
    }
    let mut caption = format!(
        "{}{}",
        increases(report, &joint, increased),
        missing(report, increased, used)
    );
    if report.arms.iter().any(Arm::is_averaged) {
        caption = format!(
            "{} An averaged arm costs as much as the last iterates of its runs.",
            caption.trim_end()
        );
    }
    Some(Shown {
        name: "cost",
        heading: "Cost",
        figure: figure.fit(WIDTH),
        caption,
        table: "cost",
    })
}

/// The caption of the cost figure.
fn increases(report: &Report, joint: &[usize], increased: bool) -> String {
    let time = time(&report.arms);
    let sums = report.arms.iter().any(|arm| arm.role == Role::Sum);
    let seconds = format!(
        "Costs are in {}, over all training steps, without evaluations. {}{}",
        time.name,
        if sums {
            "The cost of a sum of adapters is the cost of training its adapters, if their runs are \
             in the report. "
        } else {
            ""
        },
        if time.is_busy() {
            "Busy seconds are wall-clock seconds times CPU utilization: the cost of the run itself, \
             independent of other load on the machine. "
        } else {
            ""
        }
    );
    if !increased {
        return seconds;
    }
    let words = |percent: f64| match percent.round() {
        more if more >= 1.0 => format!("{more:.0}% more"),
        less if less <= -1.0 => format!("{:.0}% less", -less),
        _ => "as much".to_owned(),
    };
    // A method with several weights has a range.
    let of = |form: &Form| {
        let own = joint
            .iter()
            .map(|i| &report.arms[*i])
            .filter(|arm| arm.role.joint().is_some_and(|joint| joint.form == form))
            .filter(|arm| !arm.is_averaged());
        let mut all: Vec<f64> = own
            .filter_map(|arm| Some(arm.cost_increase?.mean))
            .collect();
        all.sort_by(f64::total_cmp);
        let (least, most) = (words(*all.first()?), words(*all.last()?));
        Some(if least == most {
            format!("{} {least}", form.title)
        } else {
            format!("{} from {least} to {most}", form.title)
        })
    };
    let mut all: Vec<String> = Vec::new();
    for form in methods::all().iter().flat_map(|method| method.forms) {
        all.extend(of(form));
    }
    format!(
        "{seconds}An increase is relative to the Sequential runs with the same weights (the mean \
         over their orders); 0% means the same cost. The cost of Sequential is that of training one \
         objective per step. Here, in {}: {}. ",
        time.name,
        all.join(", ")
    )
}

/// Says which increases are not shown, and how to get them.
fn missing(report: &Report, increased: bool, used: bool) -> String {
    if !increased {
        return "Increases need a Sequential run with the same weights and steps as the joint runs."
            .to_owned();
    }
    match (
        used,
        report.arms.iter().any(|arm| arm.utilization.is_some()),
    ) {
        (false, false) => "These runs did not record CPU utilization.".to_owned(),
        _ => String::new(),
    }
}

/// A value of an arm.
type OfArm = fn(&Arm) -> Option<Spread>;

/// A value of an arm on a set of rows.
type Value<'v> = &'v dyn Fn(&Arm, EvalSet) -> Option<Spread>;

/// One panel with one row per arm and one bar per set.
fn bars(
    report: &Report,
    arms: &[usize],
    looks: &[Style],
    name: &str,
    labeled: bool,
    sets: &[EvalSet],
    value: Value<'_>,
) -> Panel {
    let shown: Vec<&Arm> = arms.iter().map(|i| &report.arms[*i]).collect();
    let categories = names(&shown);
    let all = || {
        sets.iter()
            .flat_map(|set| shown.iter().filter_map(|arm| value(arm, *set)))
    };
    let low = all()
        .map(|value| value.mean - value.reach())
        .fold(0.0, f64::min);
    let high = all()
        .map(|value| value.mean + value.reach())
        .fold(0.0, f64::max);
    // Bars that are all 0 have an axis too.
    let high = if high - low < 1e-9 { 1.0 } else { high };
    let room = 0.05 * (high - low);
    let axis = Axis::linear(name).from(if low < 0.0 { low - room } else { 0.0 }, high + room);
    let mut panel = Panel::new(
        "",
        axis,
        if labeled {
            categories
        } else {
            categories.unlabeled()
        },
    );
    let width = 0.76 / sets.len() as f64;
    for (position, set) in sets.iter().enumerate() {
        for (row, (arm, index)) in shown.iter().zip(arms).enumerate() {
            let Some(value) = value(arm, *set) else {
                continue;
            };
            // The first arm is at the top, and so is the first set in its row.
            let y = (shown.len() - 1 - row) as f64 + 0.38 - (position as f64 + 0.5) * width;
            let style = Style::thin(looks[*index].ink).opacity(if sets.len() > 1 {
                OPACITIES[*set]
            } else {
                0.85
            });
            panel.add(
                Mark::bars_across(&[[value.mean, y]], width * 0.9),
                style,
                "",
            );
            if value.reach() > 0.0 {
                let whisker = Style::thin(Ink::Text).width(1.2);
                panel.add(
                    Mark::ErrorBarsAcross(vec![[value.mean, y, value.reach()]]),
                    whisker,
                    "",
                );
            }
        }
        if sets.len() > 1 {
            let style = Style::thin(Ink::Muted).opacity(OPACITIES[*set]);
            panel.add(Mark::Rectangles(Vec::new()), style, SET_NAMES[*set]);
        }
    }
    if low < 0.0 {
        panel.add(Mark::Vertical(0.0), Style::thin(Ink::Muted), "");
    }
    panel
}
