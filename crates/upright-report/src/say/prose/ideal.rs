//! What the page says about the ideal point.

use crate::{
    compare::{Comparable, Report, Source},
    say::{SET_NAMES, table::listed},
};
use upright_runs::records::{EvalSet, PerSet};

/// The ideal point and its source, or how to get one.
pub(super) fn ideal(report: &Report) -> String {
    let mut parts = Vec::new();
    // Objectives without an optimum and the rows they lack it on, with the settings concerned.
    let mut lacking: Vec<(String, Vec<String>)> = Vec::new();
    for (index, setting) in report.settings.iter().enumerate() {
        let mut missing = PerSet::<Vec<String>>::default();
        for set in EvalSet::ALL {
            for (k, name) in report.objectives.iter().enumerate() {
                let measured = report
                    .arms
                    .iter()
                    .any(|arm| arm.setting == index && arm.ends[set][k].is_some());
                if setting.ideal[set][k].is_none() && measured {
                    missing[set].push(name.clone());
                }
            }
            let Some(point) = setting.ideal_point(set) else {
                continue;
            };
            let values: Vec<String> = point
                .iter()
                .zip(&report.objectives)
                .map(|(x, name)| format!("{name} {x:.3}"))
                .collect();
            let place = match report.settings.len() {
                1 => SET_NAMES[set].to_owned(),
                _ => format!("{}, {}", SET_NAMES[set], report.setting_name(index)),
            };
            parts.push((
                format!("{} on {place}", listed(&values)),
                sources(setting, set),
            ));
        }
        let PerSet { held_out, training } = &missing;
        let words = if held_out == training {
            let both = format!("{} and {}", SET_NAMES.held_out, SET_NAMES.training);
            vec![(held_out, both)]
        } else {
            vec![
                (held_out, SET_NAMES.held_out.to_owned()),
                (training, SET_NAMES.training.to_owned()),
            ]
        };
        for (names, rows) in words.into_iter().filter(|(names, _)| !names.is_empty()) {
            let what = format!("{} on {rows}", listed(names));
            let place = report.setting_name(index);
            match lacking.iter_mut().find(|(other, _)| *other == what) {
                Some((_, places)) => places.push(place),
                None => lacking.push((what, vec![place])),
            }
        }
    }
    let mut text = String::new();
    if !parts.is_empty() {
        let points: Vec<&str> = parts.iter().map(|(point, _)| &point[..]).collect();
        let mut from: Vec<&str> = parts.iter().map(|(_, from)| *from).collect();
        from.dedup();
        text = format!(
            "The ideal point is {}. It comes from {}.",
            points.join("; "),
            from.join("; ")
        );
    }
    let given = rests_on_given(report);
    if !given.is_empty() {
        text += &format!(" {given}");
    }
    if !lacking.is_empty() {
        let several = report.settings.len() > 1;
        let words: Vec<String> = lacking
            .iter()
            .map(|(what, places)| match several {
                true => format!("{what} ({})", listed(places)),
                false => what.clone(),
            })
            .collect();
        text += &format!(
            " No optimum is known for {}, so gaps and distances that need it are left out. To get \
             them, train that objective alone for as many steps (lambda 0 is SFT alone, lambda 1 \
             DPO alone) and add that run to the report, or set --optimum (training rows) and \
             --optimum-eval (held-out rows).",
            words.join("; ")
        );
    }
    text.trim().to_owned()
}

/// Says which optima were given and not reached by training in this report; empty if there are none.
pub(crate) fn rests_on_given(report: &Report) -> String {
    let mut given: Vec<(String, Vec<String>)> = Vec::new();
    for (index, setting) in report.settings.iter().enumerate() {
        let names = setting.untrained(&report.objectives);
        if names.is_empty() {
            continue;
        }
        let what = listed(&names);
        let place = report.setting_name(index);
        match given.iter_mut().find(|(other, _)| *other == what) {
            Some((_, places)) => places.push(place),
            None => given.push((what, vec![place])),
        }
    }
    let several = report.settings.len() > 1;
    let words: Vec<String> = given
        .iter()
        .map(|(what, places)| match several {
            true => format!("{what} ({})", listed(places)),
            false => what.clone(),
        })
        .collect();
    if words.is_empty() {
        return String::new();
    }
    format!(
        "The optimum of {} is {GIVEN}: no run in this report reached it by training that objective \
         alone. Gaps and distances are as good as that guess.",
        words.join("; ")
    )
}

/// Marks an optimum that a user gave and that no run in the report reached.
pub(crate) const GIVEN: &str = "given, not trained";

fn sources(setting: &Comparable, set: EvalSet) -> &'static str {
    let all = |source: Source| {
        setting.ideal[set]
            .iter()
            .flatten()
            .all(|optimum| optimum.source == source)
    };
    if all(Source::Given) {
        "the optima given to the runs"
    } else if all(Source::Alone) {
        "the lowest loss in any evaluation while each objective was trained alone"
    } else {
        "the optima given to the runs, else from the lowest loss while the objective was trained alone"
    }
}
