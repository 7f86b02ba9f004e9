//! What `upright eval loss` prints: a line per row, or totals.

use serde_json::{Map, Value, json};
use upright_core::objectives::{Objective, Response, evaluate};
use upright_data::{Example, RowKind};

/// Names of the responses of a row.
fn names(kind: RowKind) -> &'static [&'static str] {
    if kind == RowKind::Preference {
        &["chosen", "rejected"]
    } else {
        &["response"]
    }
}

fn responses(example: &Example, policy: &[f64], reference: Option<&[f64]>) -> Vec<Response> {
    let response = |i: usize| Response {
        policy: policy[i],
        reference: reference.map(|sums| sums[i]),
        tokens: example.responses[i].loss_tokens(),
    };
    (0..policy.len()).map(response).collect()
}

/// One line of `--per-row` output.
pub(super) fn row_line(
    example: &Example,
    kind: RowKind,
    policy: &[f64],
    reference: Option<&[f64]>,
    objective: Option<&Objective>,
) -> Map<String, Value> {
    let named = |values: &[f64]| -> Map<String, Value> {
        names(kind)
            .iter()
            .zip(values)
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect()
    };
    let mut tokens = Map::from_iter([("prompt".to_owned(), json!(example.prompt.len()))]);
    for (name, response) in names(kind).iter().zip(&example.responses) {
        tokens.insert((*name).to_owned(), json!(response.loss_tokens()));
    }
    let mut line = Map::new();
    line.insert("row".into(), json!(example.row));
    line.insert("tokens".into(), Value::Object(tokens));
    line.insert("logp".into(), Value::Object(named(policy)));
    if let Some(reference) = reference {
        line.insert("reference".into(), Value::Object(named(reference)));
    }
    if let Some(objective) = objective {
        let (loss, _, _) = evaluate(objective, &[responses(example, policy, reference)]);
        line.insert("loss".into(), json!(loss));
    }
    line
}

/// Token ids of the prompt and the responses, by name.
pub(super) fn ids(example: &Example, kind: RowKind) -> Value {
    let mut ids = Map::from_iter([("prompt".to_owned(), json!(example.prompt))]);
    for (name, response) in names(kind).iter().zip(&example.responses) {
        ids.insert((*name).to_owned(), json!(response.tokens));
    }
    Value::Object(ids)
}

/// Totals over all rows.
pub(super) fn totals(
    examples: &[&Example],
    kind: RowKind,
    policy: &[Vec<f64>],
    reference: Option<&[Vec<f64>]>,
    objective: Option<&Objective>,
) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("rows".into(), json!(examples.len()));
    line.insert(
        "tokens".into(),
        json!(
            examples
                .iter()
                .map(|example| example.tokens())
                .sum::<usize>()
        ),
    );
    let loss_tokens = examples.iter().map(|example| example.loss_tokens());
    line.insert("scored".into(), json!(loss_tokens.sum::<usize>()));
    for (index, name) in names(kind).iter().enumerate() {
        let mean = policy.iter().map(|sums| sums[index]).sum::<f64>() / examples.len() as f64;
        line.insert(format!("logps/{name}"), json!(mean));
    }
    if let Some(objective) = objective {
        let rows: Vec<Vec<Response>> = examples
            .iter()
            .enumerate()
            .map(|(i, example)| responses(example, &policy[i], reference.map(|sums| &sums[i][..])))
            .collect();
        let (loss, _, metrics) = evaluate(objective, &rows);
        line.insert("loss".into(), json!(loss));
        for (name, value) in objective.loss.metrics.iter().zip(metrics) {
            line.insert((*name).to_owned(), json!(value));
        }
    }
    line
}
