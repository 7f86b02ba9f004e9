//! The engine against transformers + peft: log-probabilities and every adapter gradient, for every family and dialect.
//! `tools/goldens` makes the files; their values are transformers' in f64.

use std::path::PathBuf;

use safetensors::SafeTensors;
use upright_engine::{Activations, Decoder, DeviceAdapter, Options, Scores, Slopes, Tier};
use upright_model::{
    Recompute,
    pack::{Pack, Target},
    peft,
};

use super::{goldens, machine};

/// Tolerance of the portable tier: norm of the difference over the norm.
const TOLERANCE: f64 = 1e-4;

struct Golden {
    dir: PathBuf,
    bytes: Vec<u8>,
    rows: Vec<(Vec<u32>, Vec<Vec<u32>>)>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let dir = goldens::folder(name);
        let rows: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("rows.json")).unwrap()).unwrap();
        let ids = |v: &serde_json::Value| {
            v.as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_u64().unwrap() as u32)
                .collect()
        };
        let rows = rows.as_array().unwrap().iter();
        let rows = rows.map(|r| {
            (
                ids(&r["prompt"]),
                r["responses"].as_array().unwrap().iter().map(ids).collect(),
            )
        });
        Self {
            rows: rows.collect(),
            bytes: std::fs::read(dir.join("golden.safetensors")).unwrap(),
            dir,
        }
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    fn slopes(&self) -> Vec<f64> {
        self.tensor("slopes").into_iter().map(f64::from).collect()
    }

    fn decoder(&self, options: Options, recompute: Recompute, threads: usize) -> Decoder {
        let options = Options {
            threads,
            recompute,
            ..options
        };
        Decoder::open(&self.dir, &options).unwrap()
    }

    fn adapter(&self, decoder: &Decoder, folder: &str) -> DeviceAdapter {
        let folder = peft::read(&self.dir.join(folder), decoder.config()).unwrap();
        decoder.load(folder.adapter).unwrap()
    }

    /// All rows in one pack, each a tree that shares its prompt; targets in the order of the golden vectors.
    fn pack(&self) -> Pack {
        pack(&self.rows)
    }
}

fn pack(rows: &[(Vec<u32>, Vec<Vec<u32>>)]) -> Pack {
    let mut pack = Pack::default();
    for (prompt, responses) in rows {
        pack.tree(
            prompt,
            &responses.iter().map(|r| &r[..]).collect::<Vec<_>>(),
        );
    }
    pack
}

fn relative<T: Copy + Into<f64>>(found: &[T], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let difference: f64 = found
        .iter()
        .zip(wanted)
        .map(|(&f, &w)| (f.into() - f64::from(w)).powi(2))
        .sum();
    let norm: f64 = wanted.iter().map(|&w| f64::from(w).powi(2)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

fn rms<T: Copy + Into<f64>>(found: &[T], wanted: &[f32]) -> f64 {
    let sum: f64 = found
        .iter()
        .zip(wanted)
        .map(|(&f, &w)| (f.into() - f64::from(w)).powi(2))
        .sum();
    (sum / wanted.len() as f64).sqrt()
}

fn gradient(
    decoder: &Decoder,
    adapter: &DeviceAdapter,
    pack: &Pack,
    slopes: &[f64],
) -> (Vec<f64>, Vec<f32>) {
    let forward = decoder.forward(pack, adapter).unwrap();
    gradient_of(decoder, forward, adapter, pack, slopes)
}

fn gradient_of(
    decoder: &Decoder,
    (scores, activations): (Scores, Activations),
    adapter: &DeviceAdapter,
    pack: &Pack,
    slopes: &[f64],
) -> (Vec<f64>, Vec<f32>) {
    let mut gradient = decoder.vector(vec![0.0; adapter.parameters.len()]).unwrap();
    let slopes = Slopes {
        logp: slopes.to_vec(),
    };
    decoder
        .backward(pack, adapter, activations, &slopes, &mut gradient)
        .unwrap();
    (scores.logp, gradient.read().unwrap().into_owned())
}

#[test]
fn the_exact_products_are_those_of_transformers() {
    for name in &goldens::names() {
        let golden = Golden::open(name);
        let decoder = golden.decoder(machine::exact(), Recompute::Off, 2);
        let (adapter, pack) = (golden.adapter(&decoder, "adapter"), golden.pack());
        let base = relative(
            &decoder.score(&pack, None).unwrap().logp,
            &golden.tensor("base_logp"),
        );
        assert!(
            base < TOLERANCE,
            "{name}: base log-probabilities are off by {base:e}"
        );
        let reference = golden.adapter(&decoder, "reference");
        let reference = relative(
            &decoder.score(&pack, Some(&reference)).unwrap().logp,
            &golden.tensor("reference_logp"),
        );
        assert!(
            reference < TOLERANCE,
            "{name}: reference log-probabilities are off by {reference:e}"
        );

        let slopes = golden.slopes();
        let (logp, found) = gradient(&decoder, &adapter, &pack, &slopes);
        let logp = relative(&logp, &golden.tensor("logp"));
        assert!(
            logp < TOLERANCE,
            "{name}: log-probabilities are off by {logp:e}"
        );
        let mut worst = 0f64;
        for target in &adapter.layout.targets {
            for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
                let key = format!("grad.{}.{part}.weight", target.module);
                let error = relative(&found[range], &golden.tensor(&key));
                assert!(error < TOLERANCE, "{name}: {key} is off by {error:e}");
                worst = worst.max(error);
            }
        }
        println!(
            "{name}: share of the tolerance used: logp {:.3}, gradients {:.3}",
            logp / TOLERANCE,
            worst / TOLERANCE
        );
    }
}

#[test]
fn every_device_with_bf16_products_is_no_worse_than_transformers_in_bf16() {
    for options in machine::rounding() {
        let device = machine::name(&options);
        for name in goldens::names()
            .iter()
            .filter(|name| machine::takes(&options, name))
        {
            let golden = Golden::open(name);
            let decoder = golden.decoder(options, Recompute::Off, 2);
            let (adapter, pack) = (golden.adapter(&decoder, "adapter"), golden.pack());
            let truth = golden.tensor("logp");
            let ours = rms(&decoder.score(&pack, Some(&adapter)).unwrap().logp, &truth);
            let theirs = rms(&golden.tensor("logp_bf16"), &truth);
            println!(
                "{name}, {device}: root mean square error {ours:.5}, transformers in bf16 {theirs:.5}"
            );
            assert!(ours <= theirs, "{name}, {device}: {ours} against {theirs}");

            let slopes = golden.slopes();
            let (_, found) = gradient(&decoder, &adapter, &pack, &slopes);
            let mut worst = 0f64;
            for target in &adapter.layout.targets {
                for (part, range) in [("lora_A", target.a()), ("lora_B", target.b())] {
                    let key = format!("grad.{}.{part}.weight", target.module);
                    // bf16 keeps 8 bits: 2^-9 per rounding, a few dozen roundings per backward
                    // pass.
                    let error = relative(&found[range], &golden.tensor(&key));
                    assert!(error < 0.03, "{name}, {device}: {key} is off by {error}");
                    worst = worst.max(error);
                }
            }
            println!("{name}, {device}: gradients are off by {worst:.5} at worst");
        }
    }
}

/// The GPU decoder on the host device beside the CPU's tiers that round operands to bf16 too: both are off the truth by their
/// roundings, so they are at most that far from each other.
#[test]
fn the_gpu_decoder_is_the_cpu_decoder_but_for_rounding() {
    let (gpu, cpu): (Vec<Options>, Vec<Options>) = machine::rounding()
        .into_iter()
        .partition(|options| options.tier.is_none());
    for name in &goldens::names() {
        let golden = Golden::open(name);
        let (slopes, pack) = (golden.slopes(), golden.pack());
        let of = |options: &Options| {
            let decoder = golden.decoder(*options, Recompute::Off, 2);
            let adapter = golden.adapter(&decoder, "adapter");
            gradient(&decoder, &adapter, &pack, &slopes)
        };
        for gpu in gpu.iter().filter(|gpu| machine::takes(gpu, name)) {
            let (logp, found) = of(gpu);
            for cpu in &cpu {
                let (wanted_logp, wanted) = of(cpu);
                let wanted_logp: Vec<f32> = wanted_logp.iter().map(|x| *x as f32).collect();
                let (logp, gradient) = (rms(&logp, &wanted_logp), relative(&found, &wanted));
                let device = machine::name(cpu);
                println!("{name}, {device}: {logp:.5}, gradients {gradient:.5}");
                assert!(logp < 0.02, "{name}, {device}: {logp}");
                assert!(gradient < 0.02, "{name}, {device}: {gradient}");
            }
        }
    }
}

/// Same bits alone or among other rows, from `score`, `forward` or `probe`, with or without
/// recompute, for any number of threads.
#[test]
fn log_probabilities_and_gradients_are_the_same_bits_however_they_are_made() {
    for options in machine::all() {
        let device = machine::name(&options);
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let golden = Golden::open(name);
            let decoder = golden.decoder(options, Recompute::Off, 1);
            let (adapter, pack_of_all) = (golden.adapter(&decoder, "adapter"), golden.pack());
            let slopes = golden.slopes();
            let (logp, straight) = gradient(&decoder, &adapter, &pack_of_all, &slopes);
            assert_eq!(
                decoder.score(&pack_of_all, Some(&adapter)).unwrap().logp,
                logp,
                "{name}: scored"
            );
            for (recompute, threads) in
                [(Recompute::On, 1), (Recompute::Off, 3), (Recompute::On, 2)]
            {
                let other = golden.decoder(options, recompute, threads);
                let adapter = golden.adapter(&other, "adapter");
                let (other_logp, other_gradient) =
                    gradient(&other, &adapter, &pack_of_all, &slopes);
                assert_eq!(
                    other_logp, logp,
                    "{name}, {device}: {recompute:?}, {threads} threads"
                );
                assert_eq!(
                    other_gradient, straight,
                    "{name}, {device}: {recompute:?}, {threads} threads"
                );
                let probed = other.probe(&pack_of_all, &adapter).unwrap();
                let probed = gradient_of(&other, probed, &adapter, &pack_of_all, &slopes);
                assert!(
                    probed == (other_logp, other_gradient),
                    "{name}, {device}: probed, {recompute:?}"
                );
            }
            let mut alone = Vec::new();
            for row in &golden.rows {
                alone.extend(
                    decoder
                        .score(&pack(std::slice::from_ref(row)), Some(&adapter))
                        .unwrap()
                        .logp,
                );
            }
            assert_eq!(alone, logp, "{name}, {device}: a row alone");
            // A response scored without its sibling: a shared prompt changes nothing.
            let (prompt, responses) = &golden.rows[0];
            let single = pack(&[(prompt.clone(), vec![responses[1].clone()])]);
            let single = decoder.score(&single, Some(&adapter)).unwrap().logp;
            assert_eq!(
                single,
                logp[responses[0].len()..][..responses[1].len()],
                "{name}, {device}: without its sibling"
            );
        }
    }
}

/// The last block computes only rows that have targets. With a target of zero slope on every row,
/// the results stay the same.
#[test]
fn rows_that_are_not_scored_change_nothing() {
    for options in machine::all() {
        let device = machine::name(&options);
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let golden = Golden::open(name);
            let decoder = golden.decoder(options, Recompute::Off, 2);
            let (adapter, narrow) = (golden.adapter(&decoder, "adapter"), golden.pack());
            let mut slopes = golden.slopes();
            let (logp, straight) = gradient(&decoder, &adapter, &narrow, &slopes);
            assert!(
                narrow.scored_rows().len() < narrow.tokens.len(),
                "{name}: some rows have no target"
            );
            let mut wide = narrow.clone();
            wide.targets
                .extend((0..narrow.tokens.len()).map(|row| Target { row, token: 1 }));
            slopes.resize(wide.targets.len(), 0.0);
            let (wide_logp, wide_gradient) = gradient(&decoder, &adapter, &wide, &slopes);
            assert_eq!(wide_logp[..logp.len()], logp, "{name}, {device}");
            let wide_gradient: Vec<f64> = wide_gradient.into_iter().map(f64::from).collect();
            let error = relative(&wide_gradient, &straight);
            println!("{name}, {device}: {error:.1e}");
            // Sums over rows have another order where zeros are left out.
            assert!(error < 1e-6, "{name}, {device}: {error:e}");
        }
    }
}

/// A pack of prompts alone has no log-probabilities and adds nothing to a gradient.
#[test]
fn a_pack_without_targets_is_nothing() {
    for options in machine::all() {
        let device = machine::name(&options);
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let golden = Golden::open(name);
            for recompute in [Recompute::Off, Recompute::On] {
                let decoder = golden.decoder(options, recompute, 2);
                let adapter = golden.adapter(&decoder, "adapter");
                let mut prompts = golden.pack();
                prompts.targets.clear();
                assert!(
                    decoder
                        .score(&prompts, Some(&adapter))
                        .unwrap()
                        .logp
                        .is_empty(),
                    "{name}, {device}"
                );
                let (logp, gradient) = gradient(&decoder, &adapter, &prompts, &[]);
                assert!(
                    logp.is_empty() && gradient.iter().all(|v| *v == 0.0),
                    "{name}, {device}"
                );
            }
        }
    }
}

/// Rows whose prompts have a common prefix may share it: the same bits, and the same gradient but
/// for the order of sums.
#[test]
fn a_beginning_that_rows_share_changes_nothing() {
    for options in machine::all() {
        let device = machine::name(&options);
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let golden = Golden::open(name);
            let decoder = golden.decoder(options, Recompute::Off, 2);
            let adapter = golden.adapter(&decoder, "adapter");
            let (prompt, responses) = &golden.rows[0];
            let longer: Vec<Vec<u32>> = responses
                .iter()
                .map(|response| prompt.iter().chain(response).copied().collect())
                .collect();
            let mut rows = golden.rows.clone();
            rows.extend(longer.into_iter().flat_map(|prompt| {
                [
                    (prompt.clone(), responses.clone()),
                    (prompt, vec![vec![1, 2, 3]]),
                ]
            }));
            let apart = pack(&rows);
            let together = apart.clone().with_shared_beginnings(2);
            assert!(
                together.tokens.len() + 3 * prompt.len() <= apart.tokens.len(),
                "{name}"
            );
            let slopes: Vec<f64> = (0..apart.targets.len())
                .map(|i| (i * 37 % 19) as f64 / 9.0 - 1.0)
                .collect();
            let (logp, straight) = gradient(&decoder, &adapter, &apart, &slopes);
            let (shared_logp, shared) = gradient(&decoder, &adapter, &together, &slopes);
            assert_eq!(shared_logp, logp, "{name}, {device}");
            let shared: Vec<f64> = shared.into_iter().map(f64::from).collect();
            let error = relative(&shared, &straight);
            println!("{name}, {device}: {error:.1e}");
            // The bf16 tiers round the gradient of a shared token once instead of once per row:
            // 2^-9 either way.
            let tolerance = if options.tier == Some(Tier::Portable) {
                1e-6
            } else {
                1e-2
            };
            assert!(error < tolerance, "{name}, {device}: {error:e}");
        }
    }
}
