//! Tokens generated from a cache are those that scoring the whole sequence would choose.

use std::path::Path;

use upright_engine::{
    adapter::Adapter,
    cpu::Tier,
    decoder::{Decoder, Options, Recompute},
    generation::Generation,
    pack::{Pack, Target},
    peft,
};

fn open(name: &str, tier: Tier) -> (Decoder, Adapter) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let options = Options {
        threads: 2,
        tier: Some(tier),
        recompute: Recompute::Auto,
    };
    let decoder = Decoder::open(&dir, &options).unwrap();
    let adapter = peft::read(&dir.join("adapter"), decoder.config())
        .unwrap()
        .adapter;
    (decoder, adapter)
}

/// Log-probability of every token of the vocabulary after `sequence`, by scoring it whole.
fn whole(decoder: &Decoder, adapter: &Adapter, sequence: &[u32]) -> Vec<f64> {
    let mut pack = Pack::default();
    pack.root(sequence);
    let row = sequence.len() - 1;
    pack.targets = (0..decoder.config().vocab as u32)
        .map(|token| Target { row, token })
        .collect();
    decoder.score(&pack, Some(adapter)).unwrap().logp
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| f64::from(z - largest).exp()).sum();
    logits
        .iter()
        .map(|z| f64::from(z - largest) - sum.ln())
        .collect()
}

/// What tokens of a cache say, and what scoring whole sequences says, on one tier: log-probabilities of every token of the
/// vocabulary after every beginning of some sequences.
fn along_sequences(name: &str, tier: Tier) -> [Vec<f64>; 2] {
    let (decoder, adapter) = open(name, tier);
    let [mut cached, mut scored] = [Vec::new(), Vec::new()];
    // The windows of mistral and qwen2 are 8 tokens: the sequences run past them.
    let mut sequences: Vec<Vec<u32>> = vec![vec![5, 9, 31, 7, 2, 60], vec![11], (1..12).collect()];
    let prompts: Vec<&[u32]> = sequences.iter().map(|s| &s[..]).collect();
    let (mut generation, mut logits) =
        Generation::start(&decoder, Some(&adapter), &prompts).unwrap();
    for step in 0..8 {
        // The second sequence leaves half way.
        let live: Vec<usize> = (0..3).filter(|&s| s != 1 || step < 4).collect();
        for (&sequence, logits) in live.iter().zip(&logits) {
            assert!(logits.iter().all(|z| z.is_finite()));
            cached.extend(log_softmax(logits));
            scored.extend(whole(&decoder, &adapter, &sequences[sequence]));
            // The same on every tier.
            sequences[sequence].push((7 * step + sequence) as u32 + 3);
        }
        let staying = live.iter().filter(|&&s| s != 1 || step < 3);
        let next: Vec<(usize, u32)> = staying
            .map(|&s| (s, *sequences[s].last().unwrap()))
            .collect();
        logits = generation.advance(&next).unwrap();
    }
    assert!(generation.advance(&[(0, u32::MAX)]).is_err());
    [cached, scored]
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn a_cached_step_is_a_whole_pass_in_every_family() {
    for name in [
        "neox_parallel",
        "neox_sequential",
        "llama",
        "llama3_rope",
        "mistral",
        "qwen2",
        "qwen3",
    ] {
        let [cached, truth] = along_sequences(name, Tier::Portable);
        let off = cached
            .iter()
            .zip(&truth)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(off < 1e-4, "{name}: off by {off:e}");
        for tier in Tier::ALL
            .into_iter()
            .filter(|tier| tier.rounds() && tier.available())
        {
            // A cache rounds what a whole pass rounds, and no more.
            let [cached, scored] = along_sequences(name, tier).map(|found| rms(&found, &truth));
            println!(
                "{name}, {tier}: root mean square error {cached:.5} cached, {scored:.5} scored"
            );
            assert!(
                cached > 0.0 && cached < 1.1 * scored,
                "{name}, {tier}: {cached} against {scored}"
            );
        }
    }
}
