//! Every loss compared with torch (`tools/goldens/objectives.py`).

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print as they like"
)]

use serde_json::Value;
use upright_core::{
    objectives::{self, Objective, Response, evaluate},
    settings::Value as Setting,
};

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is not a number in {value}"))
}

#[test]
fn losses_and_slopes_are_those_of_torch() {
    let goldens: Value = serde_json::from_str(include_str!("data/goldens.json")).unwrap();
    let pair = |value: &Value| [0, 1].map(|i| value[i].as_f64().unwrap());
    let response = |row: &Value, i: usize| Response {
        policy: pair(&row["policy"])[i],
        reference: Some(pair(&row["reference"])[i]),
        tokens: row["tokens"][i].as_u64().unwrap() as usize,
    };
    let rows = goldens["rows"].as_array().unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    for case in cases {
        let name = case["loss"].as_str().unwrap();
        let loss = objectives::all()
            .iter()
            .find(|loss| loss.name == name)
            .unwrap();
        let mut objective = Objective::new(loss);
        for (name, value) in case["settings"].as_object().unwrap() {
            let name = name.replace('_', "-");
            assert!(loss.takes(&name), "{loss} takes no {name}");
            objective
                .settings
                .set(&name, Setting::Number(value.as_f64().unwrap()));
        }
        let responses = loss.responses;
        let row = |row: &Value| (0..responses).map(|i| response(row, i)).collect::<Vec<_>>();
        let (value, slopes, _) = evaluate(&objective, &rows.iter().map(row).collect::<Vec<_>>());
        let near = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-12 * wanted.abs();
        assert!(
            near(value, number(case, "value")),
            "{objective:?}: {value}, {}",
            case["value"]
        );
        for (i, slopes) in slopes.iter().enumerate() {
            let wanted = pair(&case["slopes"][i]);
            let all = slopes
                .iter()
                .zip(wanted)
                .all(|(found, wanted)| near(*found, wanted));
            assert!(all, "{objective:?}, row {i}: {slopes:?}, {wanted:?}");
        }
    }
    for loss in objectives::all() {
        assert!(cases.iter().any(|case| case["loss"] == loss.name), "{loss}");
    }
    assert!(rows.len() > 12);
}
