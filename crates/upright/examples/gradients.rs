//! How large gradients are, pack by pack, and how near three ways of adding them come to f64: the measurement behind
//! `upright_runs::plan::GRADIENT_EXPONENT`.
//!
//! ```sh
//! cargo run --release -p upright --example gradients -- STEPS CONFIG.toml ...
//! ```
//!
//! Each config holds settings of `upright train`. Every objective's next batch is measured before the first step and after
//! `STEPS` steps of Mix.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{ops::ControlFlow, path::Path};

use upright::bench::{Base, Bench};
use upright_base::{Error, Result, files, progress::Silent};
use upright_core::{
    methods::Mix,
    train::{ObjectiveId, train},
};
use upright_runs::{plan::GRADIENT_EXPONENT, settings::Config};
use upright_train::learner::ModelLearner;

/// The gradients of one batch.
struct Batch {
    /// One vector per pack.
    packs: Vec<Vec<f32>>,
}

impl Batch {
    fn measure(learner: &mut ModelLearner<'_>, id: ObjectiveId) -> Result<Self> {
        let mut packs = Vec::new();
        learner.gradients(id, &mut |_, gradient| {
            packs.push(gradient.read()?.into_owned());
            Ok(())
        })?;
        Ok(Self { packs })
    }

    /// Magnitudes of all values that are not 0, ascending.
    fn magnitudes(&self) -> Vec<f32> {
        let values = self.packs.iter().flatten().map(|x| x.abs());
        let mut found: Vec<f32> = values.filter(|x| *x > 0.0).collect();
        found.sort_unstable_by(f32::total_cmp);
        found
    }

    /// Norm of the difference to the sum in f64, over its norm: of a running sum in f32, and of the fixed-point sum.
    fn errors(&self, learner: &ModelLearner<'_>) -> Result<[f64; 2]> {
        let len = self.packs[0].len();
        let mut exact = vec![0.0f64; len];
        let mut running = vec![0.0f32; len];
        let mut fixed = learner.decoder.sum(len, GRADIENT_EXPONENT)?;
        for pack in &self.packs {
            for ((exact, running), x) in exact.iter_mut().zip(&mut running).zip(pack) {
                *exact += f64::from(*x);
                *running += x;
            }
            let added = fixed.add(&learner.decoder.vector(pack.clone())?)?;
            assert_eq!(added, None, "gradients within range");
        }
        let mut read = learner.decoder.vector(vec![0.0; len])?;
        fixed.write_to(&mut read)?;
        let norm: f64 = exact.iter().map(|x| x * x).sum();
        let read = read.read()?;
        Ok([&running[..], &read[..]].map(|found| {
            let off: f64 = exact
                .iter()
                .zip(found)
                .map(|(e, f)| (e - f64::from(*f)).powi(2))
                .sum();
            (off / norm).sqrt()
        }))
    }
}

fn report(config: &str, when: usize, learner: &mut ModelLearner<'_>) -> Result<()> {
    for index in 0..learner.tasks.len() {
        let batch = Batch::measure(learner, ObjectiveId(index))?;
        let magnitudes = batch.magnitudes();
        let at = |share: f64| magnitudes[((magnitudes.len() - 1) as f64 * share) as usize];
        let unit = 2f32.powi(GRADIENT_EXPONENT);
        let lost = magnitudes.partition_point(|x| *x < unit / 2.0);
        let [running, fixed] = batch.errors(learner)?;
        println!(
            "| {config} | {} | {when} | {} | {:.0e} | {:.0e} | {:.0e} | {:.0e} | {:.4}% | {running:.1e} | {fixed:.1e} |",
            learner.tasks[index].name,
            batch.packs.len(),
            at(0.0001),
            at(0.01),
            at(0.5),
            at(1.0),
            100.0 * lost as f64 / magnitudes.len() as f64,
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::input("usage: gradients STEPS CONFIG.toml ...");
    let (steps, configs) = arguments.split_first().ok_or_else(usage)?;
    let steps: usize = steps.parse().map_err(|_| usage())?;
    println!(
        "| settings | objective | step | packs | 0.01% | 1% | median | largest | lost | error in f32 | error in fixed point |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for path in configs {
        let text = files::read_text(Path::new(path))?;
        let config = Config::parse(&text, path)?;
        let bench = Bench::open(&config, Base::Files, steps + 1, &mut Silent)?;
        let mut learner = bench.learner()?;
        report(path, 0, &mut learner)?;
        let mut mix = Mix {
            weights: bench.plan().weights(),
        };
        train(&mut learner, &mut mix, 0..steps, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })?;
        report(path, steps, &mut learner)?;
    }
    Ok(())
}
