//! Lines of records, read and written.

use super::*;

/// Lines of builds so far.
const STEPS: [&str; 4] = [
    r#"{"step":0,"weights":[0.5,0.5],"loss/sft":5.25,"gap/sft":4.25,"loss/dpo":0.6931471805599453,"rewards/chosen":0.0,"rewards/accuracies":0.5,"grad_norm":1e-7,"learning_rate":0.0005,"tokens":312,"tokens_per_second":1234.5678,"seconds":0.25,"utilization":0.9,"peak_memory_gb":0.1}"#,
    r#"{"step":1,"weights":[1.0,0.0],"probe/sft":5.0,"loss/sft":5.0,"probe/dpo":0.5,"grad_norm":2.0,"learning_rate":0.0005,"tokens":10,"probed_tokens":7,"tokens_per_second":40.0,"seconds":0.25,"energy_joules":3.5,"peak_memory_gb":null}"#,
    r#"{"step":2,"weights":[0.5,0.5],"loss/a":1.0,"rewards/chosen/a":0.5,"loss/b":2.0,"rewards/chosen/b":-0.5,"peak_memory_gb":0.1,"later":{"x":[1,null]},"loss":3}"#,
    r#"{"step":3,"peak_memory_gb":null}"#,
];

const EVALUATIONS: [&str; 3] = [
    r#"{"step":0,"eval/loss/sft":5.5,"eval/loss/dpo":0.6931471805599453,"eval/rewards/chosen":0.0,"fit/loss/sft":5.25}"#,
    r#"{"step":4,"eval/loss/sft":5.0,"eval/gap/sft":1.0,"eval/loss/dpo":0.5,"eval/gap/dpo":0.25,"eval/rewards/accuracies":1.0,"eval/ideal_distance":1.25,"fit/loss/sft":4.5,"average/eval/loss/sft":4.75,"average/eval/loss/dpo":0.25,"average/eval/rewards/accuracies":0.5,"average/fit/loss/sft":4.25,"average/fit/ideal_distance":0.5}"#,
    r#"{"step":8,"fit/loss/dpo":1e-320,"other/fit/loss/sft":1,"mmlu":0.25,"eval/novel":2}"#,
];

fn written<T>(line: &str) -> String
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let record: T = serde_json::from_str(line).unwrap();
    serde_json::to_string(&record).unwrap()
}

fn evaluation(line: &str) -> EvalRecord {
    serde_json::from_str(line).unwrap()
}

#[test]
fn records_are_read_and_written_byte_for_byte() {
    for line in STEPS {
        assert_eq!(written::<StepRecord>(line), line);
    }
    for line in EVALUATIONS {
        assert_eq!(written::<EvalRecord>(line), line);
    }
}

#[test]
fn keys_of_other_builds_are_kept() {
    let record: StepRecord = serde_json::from_str(STEPS[2]).unwrap();
    let other: Vec<&String> = record.other.keys().collect();
    assert_eq!(other, ["later", "loss"]);
    let record = evaluation(EVALUATIONS[2]);
    let other: Vec<&String> = record.other.keys().collect();
    assert_eq!(other, ["other/fit/loss/sft", "mmlu", "eval/novel"]);
    for line in ["{}", r#"{"step":-1}"#, r#"{"step":"1"}"#] {
        assert!(serde_json::from_str::<StepRecord>(line).is_err(), "{line}");
        assert!(serde_json::from_str::<EvalRecord>(line).is_err(), "{line}");
    }
}

#[test]
fn steps_say_what_they_trained_on() {
    let record: StepRecord = serde_json::from_str(STEPS[1]).unwrap();
    assert!(record.has_trained_on("sft") && !record.has_trained_on("dpo"));
    assert_eq!(record.objectives[1].probe, Some(0.5));
    assert_eq!((record.tokens, record.probed_tokens), (Some(10), 7));
}

#[test]
fn evaluations_have_values_per_adapter_and_set() {
    let record = evaluation(EVALUATIONS[1]);
    assert_eq!(record.last.held_out.loss("dpo"), Some(0.5));
    assert_eq!(record.last.held_out.gap("dpo"), Some(0.25));
    assert_eq!(record.last.held_out.metric("rewards/accuracies"), Some(1.0));
    assert_eq!(record.last.training.loss("dpo"), None);
    let average = record.of(Iterate::Average).unwrap();
    assert_eq!(average[EvalSet::Training].ideal_distance, Some(0.5));
    assert_eq!(average.held_out.metric("rewards/accuracies"), Some(0.5));
    assert_eq!(
        loss_key(Iterate::Average, EvalSet::Training, "sft"),
        "average/fit/loss/sft"
    );
    let damaged = evaluation(r#"{"step":0,"fit/loss/sft":"x"}"#);
    assert_eq!(damaged.last.training.loss("sft"), None);
    let loss = damaged.last.training.objective("sft").unwrap().loss;
    assert!(loss.is_some_and(f64::is_nan));
}

#[test]
fn lowest_losses_are_per_set() {
    let evaluations = EVALUATIONS.map(evaluation);
    let lowest = lowest_loss(&evaluations, "sft");
    assert_eq!(lowest.into_list(), [Some(5.0), Some(4.5)]);
    let lowest = lowest_loss(&evaluations, "dpo");
    assert_eq!(lowest.into_list(), [Some(0.5), Some(1e-320)]);
    assert_eq!(lowest_loss(&evaluations, "x").into_list(), [None, None]);
    let values = PerSet {
        held_out: Some(1.5),
        training: None,
    };
    assert_eq!(serde_json::to_string(&values).unwrap(), "[1.5,null]");
}
