//! Ten optimizer steps of the real learner against the same ten in PyTorch (`tools/goldens/README.md`): SFT on two rows at
//! even steps, DPO on three at odd ones.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests write files and print"
)]

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::Value;
use upright_base::progress::Silent;
use upright_core::{
    objectives::{DPO, LossSpec, Objective, SFT},
    optimizer::{AdamW, AdamWConfig, Average, Curve, LearningRate},
    train::{Learner, Method, ObjectiveId, train},
};
use upright_data::{Example, order::Order};
use upright_engine::DeviceAdapter;
use upright_engine::{Decoder, Options, Tier};
use upright_model::{Device, Recompute, config::DecoderConfig, merge, peft};
use upright_ranks::World;
use upright_train::{
    learner::{ModelLearner, Optimization, Task, TaskRow},
    reference::{Policy, Reference},
};

mod ranks;

/// The folder of the engine's golden models.
fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-engine/tests/golden")
}

/// The names of all golden models, sorted.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(goldens()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort_unstable();
    assert!(!names.is_empty(), "no folder in {}", goldens().display());
    names
}

/// The first golden model of every model type and residual wiring that has sizes that a GPU takes, which are multiples of 8. The
/// host device is slow, and the other models differ only in their rotary embedding or their adapters.
fn names_of_gpu() -> Vec<String> {
    let mut kinds = Vec::new();
    let mut chosen = Vec::new();
    for name in names() {
        let config = DecoderConfig::read(&goldens().join(&name)).unwrap();
        let is_taken = [config.hidden, config.intermediate, config.head_size]
            .iter()
            .all(|size| size.is_multiple_of(8));
        let kind = (config.model_type, config.residual);
        if is_taken && !kinds.contains(&kind) {
            kinds.push(kind);
            chosen.push(name);
        }
    }
    chosen
}

/// Largest relative errors of losses, gradient norms and parameters after ten steps with bf16 products: one and a half times those of
/// the AVX512-BF16 tier.
const BOUNDS: [f64; 3] = [0.0012, 0.0039, 0.0023];

/// Norm of the difference over the norm.
const TOLERANCE: f64 = 1e-4;

fn relative(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let difference: f64 = found.iter().zip(wanted).map(|(f, w)| (f - w).powi(2)).sum();
    (difference / wanted.iter().map(|w| w.powi(2)).sum::<f64>()).sqrt()
}

/// A frozen policy on one rank.
fn policy<'p>(
    decoder: &'p Decoder,
    adapter: &'p DeviceAdapter,
    token_budget: usize,
    world: &'p World,
) -> Policy<'p> {
    Policy {
        decoder,
        adapter: Some(adapter),
        token_budget,
        world,
    }
}

/// SFT, DPO, SFT, ...
struct InTurn;

impl Method for InTurn {
    fn weights(&mut self, step: usize) -> Vec<f64> {
        if step.is_multiple_of(2) {
            vec![1.0, 0.0]
        } else {
            vec![0.0, 1.0]
        }
    }
}

fn examples(dir: &Path) -> Vec<Example> {
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(dir.join("rows.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect()
    };
    let example = |(row, value): (usize, &Value)| Example {
        row,
        prompt: ids(&value["prompt"]),
        responses: value["responses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| ids(value).into())
            .collect(),
    };
    rows.iter().enumerate().map(example).collect()
}

fn task(
    name: &str,
    loss: &'static LossSpec,
    train: &[Example],
    reference: Option<&Reference>,
) -> Task {
    Task {
        name: name.into(),
        objective: Objective::new(loss),
        train: TaskRow::list(train.to_vec(), reference),
        held_out: vec![],
        fit: vec![],
        order: Order::new(0, name, train.len(), train.len()),
    }
}

/// AdamW with a constant rate and no decay, as in the goldens.
fn optimization() -> Optimization {
    Optimization {
        optimizer: AdamW::new(AdamWConfig {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
        }),
        learning_rate: LearningRate {
            peak: 1e-3,
            curve: Curve::Constant,
            warmup: 0,
            steps: 10,
        },
        clip: 1.0,
        gradient_exponent: -44,
        average: Average::None,
    }
}

/// Every value of ten steps that is in the goldens, as `(name, relative error)`.
fn errors(name: &str, options: Options, token_budget: usize) -> Vec<(String, f64)> {
    let dir = goldens().join(name);
    let bytes = fs::read(dir.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let wanted = |name: &str| -> Vec<f64> {
        let data = golden.tensor(name).unwrap().data();
        data.chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    };
    let decoder = Decoder::open(&dir, &options).unwrap();
    let adapter = |folder: &str| {
        peft::read(&dir.join(folder), decoder.config())
            .unwrap()
            .adapter
    };
    let (start, frozen, rows) = (adapter("adapter"), adapter("reference"), examples(&dir));

    let (cache, world) = (tempfile::tempdir().unwrap(), World::alone());
    let fingerprint = merge::fingerprint(&dir, decoder.config(), None, &mut |_, _| true)
        .unwrap()
        .unwrap();
    let mut reference =
        Reference::open(cache.path(), &decoder, &fingerprint, Some(&frozen)).unwrap();
    let pairs: Vec<&Example> = rows[..3].iter().collect();
    let frozen = decoder.load(frozen).unwrap();
    assert_eq!(
        reference
            .prepare(
                &policy(&decoder, &frozen, token_budget, &world),
                &pairs,
                &mut Silent
            )
            .unwrap(),
        6
    );

    let tasks = vec![
        task("sft", &SFT, &rows[3..], None),
        task("dpo", &DPO, &rows[..3], Some(&reference)),
    ];
    let mut learner =
        ModelLearner::new(&decoder, start, optimization(), token_budget, tasks).unwrap();
    let (mut losses, mut norms) = (vec![], vec![]);
    train(&mut learner, &mut InTurn, 0..10, |step, learner, _| {
        losses.push(step.losses[step.index % 2].unwrap());
        norms.push(learner.report.gradient_norm);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();

    let mut errors = vec![
        (
            "steps_loss".to_owned(),
            relative(&losses, &wanted("steps_loss")),
        ),
        (
            "steps_grad_norm".to_owned(),
            relative(&norms, &wanted("steps_grad_norm")),
        ),
    ];
    let adapter = learner.adapter.to_host().unwrap();
    for target in &adapter.layout.targets {
        for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
            let key = format!("adapter10.{}.{part}.weight", target.module);
            let found: Vec<f64> = adapter.parameters[range]
                .iter()
                .map(|value| f64::from(*value))
                .collect();
            errors.push((key.clone(), relative(&found, &wanted(&key))));
        }
    }
    errors
}

/// A tier of the CPU, or the device if there is none.
fn options(device: Device, tier: Option<Tier>) -> Options {
    Options {
        device,
        threads: 2,
        tier,
        recompute: Recompute::Off,
        ..Options::default()
    }
}

#[test]
fn ten_steps_are_those_of_pytorch() {
    let options = options(Device::Cpu, Some(Tier::Portable));
    for name in &names() {
        // All rows in one pack, and every row in its own.
        for token_budget in [2048, 1] {
            let errors = errors(name, options, token_budget);
            let worst = errors.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            println!(
                "{name}, budget {token_budget}: worst {} {:.1e}, losses {:.1e}, norms {:.1e}",
                worst.0, worst.1, errors[0].1, errors[1].1
            );
            let off: Vec<_> = errors
                .iter()
                .filter(|(_, error)| error.is_nan() || *error >= TOLERANCE)
                .collect();
            assert!(off.is_empty(), "{name}, budget {token_budget}: {off:?}");
        }
    }
}

/// The GPU decoder, on the host device, is as close to PyTorch as the tiers of the CPU that round operands to bf16 too.
#[test]
fn ten_steps_of_a_gpu_are_those_of_pytorch_but_for_rounding() {
    if let Some(why) = upright_emulator::missing() {
        println!("{why}");
        return;
    }
    let mut devices = vec![options(Device::Host, None)];
    for tier in [Tier::Avx512, Tier::Amx] {
        if tier.available() {
            devices.push(options(Device::Cpu, Some(tier)));
        }
    }
    for name in &names_of_gpu() {
        let mut found = Vec::new();
        for options in &devices {
            let errors = errors(name, *options, 2048);
            let adapter = errors[2..]
                .iter()
                .map(|(_, error)| error.powi(2))
                .sum::<f64>();
            let adapter = (adapter / (errors.len() - 2) as f64).sqrt();
            println!(
                "{name}, {:?}: losses {:.4}, norms {:.4}, adapter {adapter:.4}",
                options.tier, errors[0].1, errors[1].1
            );
            found.push([errors[0].1, errors[1].1, adapter]);
        }
        for found in found {
            for (error, bound) in found.iter().zip(BOUNDS) {
                assert!(*error < bound, "{name}: {error} against {bound}");
            }
        }
    }
}

/// A policy that is its own reference has log-ratios of exactly 0, so DPO's loss is ln 2 to the last bit, probed or trained on.
#[test]
fn a_policy_equal_to_its_reference_has_a_loss_of_ln_2() {
    let mut devices = vec![options(Device::Cpu, None)];
    if upright_emulator::missing().is_none() {
        devices.push(options(Device::Host, None));
    }
    for options in devices {
        for name in &names_of_gpu() {
            let dir = goldens().join(name);
            let decoder = Decoder::open(&dir, &options).unwrap();
            let start = peft::read(&dir.join("adapter"), decoder.config())
                .unwrap()
                .adapter;
            let rows = examples(&dir);
            let (cache, world) = (tempfile::tempdir().unwrap(), World::alone());
            let fingerprint = merge::fingerprint(&dir, decoder.config(), None, &mut |_, _| true)
                .unwrap()
                .unwrap();
            let mut reference =
                Reference::open(cache.path(), &decoder, &fingerprint, Some(&start)).unwrap();
            let frozen = decoder.load(start.clone()).unwrap();
            let pairs: Vec<&Example> = rows[..3].iter().collect();
            // Packs of one row here, and all rows in one pack below.
            reference
                .prepare(&policy(&decoder, &frozen, 1, &world), &pairs, &mut Silent)
                .unwrap();
            let tasks = vec![task("dpo", &DPO, &rows[..3], Some(&reference))];
            let mut learner =
                ModelLearner::new(&decoder, start, optimization(), 2048, tasks).unwrap();
            let probed = learner.loss(ObjectiveId(0)).unwrap();
            let trained = learner.accumulate(ObjectiveId(0), 1.0).unwrap();
            assert_eq!(probed, std::f64::consts::LN_2, "{name}, {}", options.device);
            assert_eq!(trained, probed, "{name}, {}", options.device);
        }
    }
}

/// A weight that no method gives leads to a gradient that the sum cannot represent: an error before
/// the update names the tensor.
#[test]
fn a_gradient_out_of_range_is_named() {
    let dir = goldens().join("llama");
    let decoder = Decoder::open(&dir, &Options::default()).unwrap();
    let start = peft::read(&dir.join("adapter"), decoder.config())
        .unwrap()
        .adapter;
    let rows = examples(&dir);
    let tasks = vec![task("sft", &SFT, &rows[3..], None)];
    let mut learner =
        ModelLearner::new(&decoder, start.clone(), optimization(), 2048, tasks).unwrap();
    let error = learner.accumulate(ObjectiveId(0), 1e30).unwrap_err();
    assert!(
        error
            .message
            .starts_with("the gradient of sft, pack 0, is out of range: "),
        "{error}"
    );
    assert!(error.message.contains(" in model.layers."), "{error}");
    assert_eq!(learner.adapter.to_host().unwrap(), start);
}
