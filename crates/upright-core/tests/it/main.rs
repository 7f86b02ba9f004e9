//! Every loss compared with torch (`tools/goldens/objectives.py`).

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print as they like"
)]

use serde_json::Value;
use upright_core::objectives::{LossKind, Objective, Response, evaluate};

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
        let kind = *LossKind::ALL
            .iter()
            .find(|kind| kind.name() == name)
            .unwrap();
        let setting = |name: &str| case["settings"].get(name).and_then(Value::as_f64);
        let default = Objective::new(kind);
        let objective = Objective {
            beta: setting("beta").unwrap_or(default.beta),
            label_smoothing: setting("label_smoothing").unwrap_or(default.label_smoothing),
            alpha: setting("alpha").unwrap_or(default.alpha),
            gamma: setting("gamma").unwrap_or(default.gamma),
            kind,
        };
        let responses = kind.spec().responses;
        let row = |row: &Value| (0..responses).map(|i| response(row, i)).collect::<Vec<_>>();
        let (loss, slopes, _) = evaluate(&objective, &rows.iter().map(row).collect::<Vec<_>>());
        let near = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-12 * wanted.abs();
        assert!(
            near(loss, number(case, "value")),
            "{objective:?}: {loss}, {}",
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
    let seen = |kind: &LossKind| cases.iter().any(|case| case["loss"] == kind.to_string());
    assert!(LossKind::ALL.iter().all(seen) && rows.len() > 12);
}
