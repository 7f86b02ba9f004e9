use serde_json::json;

use super::*;
use crate::config::tests::refused;
use crate::weights::tests::config;
use upright_base::Result;

fn lora(rank: usize, targets: &[&str]) -> LoraConfig {
    LoraConfig::new(
        rank,
        16.0,
        targets.iter().map(|&name| name.to_owned()).collect(),
    )
}

fn modules(kind: &str, targets: &[&str]) -> Vec<String> {
    let layout = AdapterLayout::new(&config(kind, json!({})), &lora(2, targets)).unwrap();
    layout
        .targets
        .into_iter()
        .map(|target| target.module)
        .collect()
}

#[test]
fn names_resolve_as_in_peft() {
    let both = [
        "gpt_neox.layers.0.attention.dense",
        "gpt_neox.layers.1.attention.dense",
    ];
    assert_eq!(modules("gpt_neox", &["dense"]), both);
    assert_eq!(modules("gpt_neox", &["attention.dense", "dense"]), both);
    assert_eq!(
        modules("gpt_neox", &["gpt_neox.layers.1.mlp.dense_4h_to_h"]),
        ["gpt_neox.layers.1.mlp.dense_4h_to_h"]
    );
    assert_eq!(modules("gpt_neox", &["all-linear"]).len(), 8);
    assert_eq!(modules("llama", &["all-linear"]).len(), 14);
    assert_eq!(
        modules("llama", &["1.self_attn.q_proj"]),
        ["model.layers.1.self_attn.q_proj"]
    );
    // Sorted by layer and slot whatever the order of the names.
    assert_eq!(
        modules("llama", &["v_proj", "q_proj"])[..2],
        ["q_proj", "v_proj"].map(|n| format!("model.layers.0.self_attn.{n}"))
    );
}

#[test]
fn the_layout_is_dense_and_sorted() {
    for kind in ["gpt_neox", "llama", "qwen3"] {
        let config = config(kind, json!({}));
        let layout = AdapterLayout::new(&config, &lora(3, &["all-linear"])).unwrap();
        let mut end = 0;
        for (target, spec) in layout.targets.iter().zip(linears(&config)) {
            assert_eq!(
                (&target.module, target.inputs, target.outputs),
                (&spec.module, spec.inputs, spec.outputs)
            );
            assert_eq!((target.a().start, target.b().start), (end, target.a().end));
            assert_eq!(
                target.a().len() + target.b().len(),
                3 * (target.inputs + target.outputs)
            );
            assert_eq!(layout.find(target.layer, target.slot), Some(target));
            assert_eq!(target.scale, 16.0 / 3.0);
            end = target.b().end;
        }
        assert_eq!(layout.len, end);
        assert!(layout.targets.is_sorted_by_key(|t| (t.layer, t.slot)));
    }
}

#[test]
fn patterns_change_rank_and_alpha_of_what_they_end() {
    let config = config("llama", json!({}));
    let mut lora = lora(4, &["q_proj", "v_proj"]);
    lora.rank_pattern = BTreeMap::from([
        ("q_proj".into(), 8),
        ("layers.1.self_attn.q_proj".into(), 100),
    ]);
    lora.alpha_pattern = BTreeMap::from([("v_proj".into(), 2.0)]);
    let layout = AdapterLayout::new(&config, &lora).unwrap();
    let found: Vec<_> = layout.targets.iter().map(|t| (t.rank, t.scale)).collect();
    assert_eq!(found, [(8, 2.0), (4, 0.5), (100, 0.16), (4, 0.5)]);
    lora.use_rslora = true;
    assert_eq!(lora.scale_of("model.layers.0.self_attn.v_proj"), 1.0);
    lora.rank_pattern = BTreeMap::from([("proj".into(), 8)]);
    refused(AdapterLayout::new(&config, &lora), &["`proj`", "q_proj"]);
    lora.rank_pattern = BTreeMap::from([("q.*".into(), 8)]);
    refused(
        AdapterLayout::new(&config, &lora),
        &["`q.*`", "`*`", "regular expression"],
    );
}

#[test]
fn settings_that_cannot_be_are_named() {
    let llama = config("llama", json!({}));
    let new = |rank, alpha, targets: &[&str]| -> Result<AdapterLayout> {
        AdapterLayout::new(
            &llama,
            &LoraConfig {
                alpha,
                ..lora(rank, targets)
            },
        )
    };
    refused(
        new(2, 1.0, &["q_proj", "query"]),
        &[
            "`query`",
            "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        ],
    );
    refused(new(2, 1.0, &["proj"]), &["`proj`"]);
    refused(new(2, 1.0, &["lm_head"]), &["`lm_head`", "head"]);
    refused(new(2, 1.0, &[]), &["no LoRA targets", "all-linear"]);
    refused(new(0, 1.0, &["q_proj"]), &["rank is 0"]);
    refused(new(1 << 40, 1.0, &["q_proj"]), &["rank is 1099511627776"]);
    refused(new(2, f64::NAN, &["q_proj"]), &["alpha is NaN"]);
    let neox = config("gpt_neox", json!({}));
    refused(
        AdapterLayout::new(&neox, &lora(2, &["q_proj"])),
        &["query_key_value, dense, dense_h_to_4h, dense_4h_to_h"],
    );
    assert!(new(1000, 1.0, &["q_proj"]).is_ok());
}

#[test]
fn a_fresh_adapter_is_uniform_in_a_and_zero_in_b() {
    let config = config("llama", json!({}));
    let layout = Arc::new(AdapterLayout::new(&config, &lora(64, &["all-linear"])).unwrap());
    let adapter = Adapter::init(Arc::clone(&layout), 7);
    assert_eq!(adapter, Adapter::init(Arc::clone(&layout), 7));
    assert_ne!(adapter, Adapter::init(Arc::clone(&layout), 8));
    for target in &layout.targets {
        let a = &adapter.parameters[target.a()];
        let bound = 1.0 / (target.inputs as f32).sqrt();
        assert!(a.iter().all(|v| v.abs() <= bound));
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        let square = a.iter().map(|v| v * v).sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.1 * bound && (square / (bound * bound / 3.0) - 1.0).abs() < 0.1);
        assert!(adapter.parameters[target.b()].iter().all(|&v| v == 0.0));
    }
    let first = &adapter.parameters[layout.targets[0].a()];
    assert_ne!(first, &adapter.parameters[layout.targets[1].a()]);
    assert_eq!(
        Adapter::zeros(layout)
            .parameters
            .iter()
            .filter(|&&v| v != 0.0)
            .count(),
        0
    );
}

/// `Σ_k scale B[row, k] A[k, col]` of every adapted linear, in f64.
fn delta(adapter: &Adapter, layer: usize, slot: Slot) -> Option<Vec<f64>> {
    let target = adapter.layout.find(layer, slot)?;
    let (a, b) = (
        &adapter.parameters[target.a()],
        &adapter.parameters[target.b()],
    );
    let element = |row: usize, col: usize| {
        let products = (0..target.rank)
            .map(|k| f64::from(b[row * target.rank + k]) * f64::from(a[k * target.inputs + col]));
        f64::from(target.scale) * products.sum::<f64>()
    };
    Some(
        (0..target.outputs * target.inputs)
            .map(|i| element(i / target.inputs, i % target.inputs))
            .collect(),
    )
}

#[test]
fn a_combination_is_the_weighted_sum_of_what_its_parts_add() {
    let config = config("llama", json!({}));
    let filled = |lora: &LoraConfig, seed: u64| {
        let mut adapter = Adapter::init(Arc::new(AdapterLayout::new(&config, lora).unwrap()), seed);
        adapter
            .parameters
            .iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v += ((i as u64 * 7 + seed) % 13) as f32 / 13.0 - 0.5);
        adapter
    };
    let one = lora(3, &["q_proj", "v_proj"]);
    let mut two = lora(2, &["q_proj", "0.mlp.up_proj"]);
    two.use_rslora = true;
    two.rank_pattern = BTreeMap::from([("1.self_attn.q_proj".into(), 5)]);
    let (first, second) = (filled(&one, 1), filled(&two, 2));
    let (sum, written) = combine(&config, &[(&first, 0.75), (&second, -2.0)]).unwrap();
    assert_eq!(AdapterLayout::new(&config, &written).unwrap(), *sum.layout);
    let ranks: Vec<_> = sum
        .layout
        .targets
        .iter()
        .map(|t| (t.layer, t.slot, t.rank, t.scale))
        .collect();
    let expected = [
        (0, Slot::Q, 5),
        (0, Slot::V, 3),
        (0, Slot::Up, 2),
        (1, Slot::Q, 8),
        (1, Slot::V, 3),
    ];
    assert_eq!(
        ranks,
        expected.map(|(layer, slot, rank)| (layer, slot, rank, 1.0))
    );
    for target in &sum.layout.targets {
        let found = delta(&sum, target.layer, target.slot).unwrap();
        let part = |adapter, i: usize| {
            delta(adapter, target.layer, target.slot).map_or(0.0, |delta| delta[i])
        };
        for (i, found) in found.into_iter().enumerate() {
            let wanted = 0.75 * part(&first, i) - 2.0 * part(&second, i);
            assert!(
                (found - wanted).abs() < 1e-5 * (1.0 + wanted.abs()),
                "{}[{i}]: {found}, {wanted}",
                target.module
            );
        }
    }
    // Adapters of one shape keep its short names.
    let (_, same) = combine(&config, &[(&first, 0.5), (&filled(&one, 9), 0.5)]).unwrap();
    assert_eq!(
        (same.rank, same.alpha, &same.targets[..]),
        (6, 6.0, &["q_proj".to_owned(), "v_proj".to_owned()][..])
    );
    assert!(same.rank_pattern.is_empty() && same.alpha_pattern.is_empty());
    refused(combine(&config, &[(&first, f64::NAN)]), &["weight", "NaN"]);
    let wide = filled(&lora(layout::MAX_RANK, &["1.self_attn.k_proj"]), 3);
    refused(
        combine(&config, &[(&wide, 1.0), (&wide, 1.0)]),
        &["ranks add up to 131072"],
    );
}
