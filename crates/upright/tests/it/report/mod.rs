//! The report of run folders that the tests write themselves.

mod arms;
mod averages;
mod benchmarks;
mod folders;
pub(crate) mod mixed;
mod numbers;
mod page;
mod tokens;
mod verdicts;

use std::fs;

use folders::{Run, Study, run};
use upright_base::progress::Silent;
use upright_report::Report;

/// Five ways at lambda 1/2 with two seeds, and both objectives alone, as the demo has them.
pub(crate) fn story() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.2, 0.1));
    for seed in [1u64, 2] {
        let shift = 0.01 * seed as f64;
        let add = |name: &str, settings: Run, sft: f64, dpo: f64, seconds: f64| {
            let settings = settings
                .seed(seed)
                .ending(sft + shift, dpo + shift * 2.0)
                .seconds(seconds + shift);
            study.add(&format!("{name}-{seed}"), &settings);
        };
        add(
            "dpo-sft",
            run("sequential").stages(&[(1, 4), (0, 4)]),
            0.5,
            2.0,
            0.1,
        );
        add(
            "sft-dpo",
            run("sequential").stages(&[(0, 4), (1, 4)]),
            2.0,
            0.2,
            0.1,
        );
        add("mix", run("mix"), 0.45, 0.4, 0.19);
        add("alright", run("alright"), 0.5, 0.5, 0.105);
        add("maxright", run("maxright"), 0.4, 0.3, 0.11);
    }
    study
}

/// Two weights and two k.
fn sweep() -> Study {
    let study = Study::new();
    study.add("sft-alone", &run("mix").weights(1.0, 0.0).ending(0.3, 4.0));
    study.add("dpo-alone", &run("mix").weights(0.0, 1.0).ending(1.2, 0.1));
    for (lambda, dpo) in [(0.25, 2), (0.5, 4), (0.75, 6)] {
        let at = |method: &str| run(method).weights(1.0 - lambda, lambda);
        study.add(
            &format!("alright-{lambda}"),
            &at("alright").ending(0.4 + lambda, 1.0 - lambda),
        );
        study.add(
            &format!("maxright-{lambda}"),
            &at("maxright").ending(0.3 + lambda, 0.9 - lambda),
        );
        let split = run("sequential").stages(&[(1, dpo), (0, 8 - dpo)]);
        study.add(
            &format!("sequential-{lambda}"),
            &split.ending(0.4, 2.0 + 0.1 * lambda),
        );
    }
    study.add(
        "maxright-100",
        &run("maxright")
            .probe_every(100)
            .ending(0.9, 0.9)
            .seconds(0.05),
    );
    study
}

fn write(study: &Study) -> String {
    let report = Report::read(&[study.path()]).unwrap();
    let page = report
        .write(&study.path().join("report"), &mut Silent)
        .unwrap();
    fs::read_to_string(page).unwrap()
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}
