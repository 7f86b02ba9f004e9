//! `upright theory`: what it prints, what it writes, and what it refuses.

use std::fs;

use crate::fixture::{Done, Place};
use serde_json::Value;

fn near(value: &Value, expected: f64, allowed: f64) {
    let found = value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"));
    assert!(
        (found - expected).abs() <= allowed,
        "{found}, expected {expected}"
    );
}

#[test]
fn theorem_3_3_has_its_constants_in_the_json() {
    let place = Place::new();
    let theorem = &Done::good(place.command("theory theorem-3.3 --json")).json()[0];
    near(&theorem["c_star"], 173.778, 5e-4);
    near(&theorem["gap_at_zero"], 0.27104, 5e-6);
    near(&theorem["argmin"], -5.0, 1e-9);
    near(&theorem["minimum"], 2.57889, 5e-6);
    let text = Done::good(place.command("theory theorem-3.3")).stdout;
    for part in [
        "c* 173.778",
        "0.27104",
        "0.256843",
        "theta_ref = -10, not -5",
        "0.3348",
        "after dpo",
        "100000",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn the_toy_names_what_is_not_as_printed() {
    let place = Place::new();
    let text = Done::good(place.command("theory toy")).stdout;
    for part in [
        "as-printed",
        "conflicting",
        "do not conflict",
        "sequential",
        "alright",
        "maxright",
        "beta 1",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn all_of_it_is_written_with_pictures() {
    let place = Place::new();
    let all = &Done::good(place.command("theory --out figures --seeds 2 --json")).json()[0];
    assert_eq!(all["theorem-4.1"]["seeds"], 2);
    for series in all["theorem-4.1"]["series"].as_array().unwrap() {
        for point in series["points"].as_array().unwrap() {
            assert!(
                point["mean_gap"].as_f64() <= point["bound"].as_f64(),
                "{point}"
            );
        }
    }
    for (name, key) in [
        ("toy", "toy"),
        ("theorem-3.3", "theorem-3.3"),
        ("theorem-4.1", "theorem-4.1"),
    ] {
        let written: Value =
            serde_json::from_slice(&place.read(&format!("figures/{name}.json"))).unwrap();
        assert_eq!(written, all[key]);
        assert!(!written["slips"].as_array().unwrap().is_empty());
    }
    let names = [
        "toy-as-printed",
        "toy-conflicting",
        "theorem-3.3-losses",
        "theorem-3.3-gap",
        "theorem-4.1-gap",
    ];
    for name in names {
        let svg = String::from_utf8(place.read(&format!("figures/{name}.svg"))).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"),
            "{name}"
        );
        for suffix in ["", "-dark"] {
            assert!(
                place
                    .read(&format!("figures/{name}{suffix}.png"))
                    .starts_with(b"\x89PNG"),
                "{name}"
            );
        }
    }
    assert_eq!(
        fs::read_dir(place.path("figures")).unwrap().count(),
        3 + 3 * names.len()
    );
}

#[test]
fn mistakes_are_told() {
    let place = Place::new();
    for (words, part) in [
        ("theory theorem-3", "theorem-3.3"),
        (
            "theory theorem-4.1 --seeds 1",
            "seeds must be a whole number of at least 2",
        ),
        ("theory toy --seeds 5", "--seeds"),
        ("theory theorem-4.1 --threads 0", "threads"),
        ("theory toy --out sft.jsonl", "out must be a folder"),
    ] {
        let done = Done::of(place.command(words));
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(2), ""),
            "{words}: {done:?}"
        );
        assert!(done.error().contains(part), "{words}: {done:?}");
    }
}
