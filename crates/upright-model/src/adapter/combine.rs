//! The exact weighted sum of adapters: their factors are concatenated, as in PEFT's
//! `add_weighted_adapter` with `combination_type="cat"`. `Σ w s B A` of adapters with weights w and
//! scales s is `[B₁ B₂ ..] [w₁ s₁ A₁; w₂ s₂ A₂; ..]`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::layout::{MAX_RANK, short_names};
use super::{Adapter, AdapterLayout, LinearSpec, LoraConfig, Slot, linears};
use crate::config::DecoderConfig;
use upright_base::{Error, Result};

/// The weighted sum of adapters of one model, and its settings. Ranks add up, for each linear over
/// the adapters that adapt it.
///
/// # Errors
/// Bad input: a weight is not finite, or the ranks add up to more than the maximum rank.
///
/// # Panics
/// If there is no adapter.
pub fn combine(config: &DecoderConfig, parts: &[(&Adapter, f64)]) -> Result<(Adapter, LoraConfig)> {
    assert!(!parts.is_empty(), "a sum of no adapters has no linears");
    if let Some((_, weight)) = parts
        .iter()
        .find(|(_, weight)| !(*weight as f32).is_finite())
    {
        let hint = "use a finite number, such as 0.5".to_owned();
        return Err(Error::input(format!("the weight of an adapter is {weight}")).hint(hint));
    }
    let on = |layer: usize, slot: Slot| {
        parts.iter().filter_map(move |(adapter, weight)| {
            Some((adapter, adapter.layout.find(layer, slot)?, *weight as f32))
        })
    };
    let rank = |linear: &LinearSpec| {
        on(linear.layer, linear.slot)
            .map(|(_, target, _)| target.rank)
            .sum()
    };
    let all = linears(config).into_iter();
    let ranked = all.map(|linear| {
        let rank: usize = rank(&linear);
        (linear, rank)
    });
    let adapted: Vec<(LinearSpec, usize)> = ranked.filter(|(_, rank)| *rank > 0).collect();
    let lora = describe(config, &adapted)?;
    let layout = AdapterLayout::assemble(
        adapted.into_iter().map(|(linear, _)| linear).collect(),
        &lora,
    );
    let mut sum = Adapter::zeros(Arc::new(layout));
    let layout = Arc::clone(&sum.layout);
    for target in &layout.targets {
        let mut first = 0;
        for (adapter, part, weight) in on(target.layer, target.slot) {
            let (a, b) = (&adapter.parameters[part.a()], &adapter.parameters[part.b()]);
            let into = &mut sum.parameters[target.a()][first * target.inputs..][..a.len()];
            into.iter_mut()
                .zip(a)
                .for_each(|(to, from)| *to = from * weight * part.scale);
            let into = &mut sum.parameters[target.b()];
            for (row, values) in b.chunks_exact(part.rank).enumerate() {
                into[row * target.rank + first..][..part.rank].copy_from_slice(values);
            }
            first += part.rank;
        }
    }
    Ok((sum, lora))
}

/// Settings that give every linear its rank and a scale of 1, with short target names if they
/// select the same linears.
fn describe(config: &DecoderConfig, adapted: &[(LinearSpec, usize)]) -> Result<LoraConfig> {
    let rank = adapted.iter().map(|(_, rank)| *rank).max().unwrap_or(0);
    if rank > MAX_RANK {
        let hint = "combine fewer adapters, or merge one of them into the base first".to_owned();
        return Err(
            Error::input(format!("the ranks add up to {rank}, more than {MAX_RANK}")).hint(hint),
        );
    }
    let ends_in = |module: &str, name: &str| module.rsplit('.').next() == Some(name);
    let named: Vec<&str> = short_names(config);
    let named = named.into_iter().filter(|name| {
        adapted
            .iter()
            .any(|(linear, _)| ends_in(&linear.module, name))
    });
    let short: BTreeSet<&str> = named.collect();
    let everywhere = linears(config)
        .iter()
        .filter(|linear| short.iter().any(|name| ends_in(&linear.module, name)))
        .count();
    let targets = if everywhere == adapted.len() {
        short.into_iter().map(str::to_owned).collect()
    } else {
        adapted
            .iter()
            .map(|(linear, _)| linear.module.clone())
            .collect()
    };
    let others = adapted.iter().filter(|(_, own)| *own != rank);
    let rank_pattern: BTreeMap<String, usize> = others
        .map(|(linear, own)| (linear.module.clone(), *own))
        .collect();
    let alpha_pattern = rank_pattern
        .iter()
        .map(|(module, own)| (module.clone(), *own as f64))
        .collect();
    Ok(LoraConfig {
        rank_pattern,
        alpha_pattern,
        ..LoraConfig::new(rank, rank as f64, targets)
    })
}
