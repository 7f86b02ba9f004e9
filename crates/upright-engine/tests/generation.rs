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

fn open(name: &str) -> (Decoder, Adapter) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let options = Options { threads: 2, tier: Some(Tier::Portable), recompute: Recompute::Auto };
    let decoder = Decoder::open(&dir, &options).unwrap();
    let adapter = peft::read(&dir.join("adapter"), decoder.config()).unwrap().adapter;
    (decoder, adapter)
}

/// Log-probability of every token of the vocabulary after `sequence`, by scoring it whole.
fn whole(decoder: &Decoder, adapter: &Adapter, sequence: &[u32]) -> Vec<f64> {
    let mut pack = Pack::default();
    pack.root(sequence);
    let row = sequence.len() - 1;
    pack.targets = (0..decoder.config().vocab as u32).map(|token| Target { row, token }).collect();
    decoder.score(&pack, Some(adapter)).unwrap().logp
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| f64::from(z - largest).exp()).sum();
    logits.iter().map(|z| f64::from(z - largest) - sum.ln()).collect()
}

fn largest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

#[test]
fn a_cached_step_is_a_whole_pass_in_every_family() {
    for name in ["neox_parallel", "neox_sequential", "llama", "llama3_rope", "mistral", "qwen2", "qwen3"] {
        let (decoder, adapter) = open(name);
        // The windows of mistral and qwen2 are 8 tokens: the sequences run past them.
        let mut sequences: Vec<Vec<u32>> = vec![vec![5, 9, 31, 7, 2, 60], vec![11], (1..12).collect()];
        let prompts: Vec<&[u32]> = sequences.iter().map(|s| &s[..]).collect();
        let (mut generation, mut logits) = Generation::start(&decoder, Some(&adapter), &prompts).unwrap();
        for step in 0..8 {
            // The second sequence leaves half way.
            let live: Vec<usize> = (0..3).filter(|&s| s != 1 || step < 4).collect();
            for (&sequence, logits) in live.iter().zip(&logits) {
                let expected = whole(&decoder, &adapter, &sequences[sequence]);
                assert!(logits.iter().all(|z| z.is_finite()));
                let off = log_softmax(logits).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < 1e-4, "{name}, step {step}, sequence {sequence}: off by {off:e}");
                sequences[sequence].push(largest(logits));
            }
            let staying = live.iter().filter(|&&s| s != 1 || step < 3);
            let next: Vec<(usize, u32)> = staying.map(|&s| (s, *sequences[s].last().unwrap())).collect();
            logits = generation.advance(&next).unwrap();
        }
        assert!(generation.advance(&[(0, u32::MAX)]).is_err());
    }
}
