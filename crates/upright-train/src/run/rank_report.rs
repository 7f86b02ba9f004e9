//! What a user learns about ranks: how the work was shared, ranks without work, and ranks that differ.

use serde::{Deserialize, Serialize};
use serde_json::from_slice;
use sha2::{Digest, Sha256};
use upright_base::{Error, Result, counted, progress::Progress};
use upright_data::Example;
use upright_ranks::World;
use upright_runs::plan_record::PlanRecord;

use super::Model;
use crate::{
    learner::{ModelLearner, Task, TaskRow},
    packing::pack,
};

/// The work of a rank.
#[derive(Serialize, Deserialize)]
struct Work {
    packs: u64,
    multiply_adds: u64,
    waited: f64,
}

/// Notes the work of every rank at the end of a run.
pub(super) fn note(model: &Model, observer: &mut dyn Progress) -> Result<()> {
    let world = &model.world;
    if world.size() == 1 {
        return Ok(());
    }
    let counts = model.decoder.usage().counts;
    let work = Work {
        packs: counts.packs,
        multiply_adds: counts.multiply_adds(),
        waited: world.waited_seconds(),
    };
    let unreadable = |error: serde_json::Error| Error::failure(error.to_string());
    let all = world.agree(serde_json::to_vec(&work).map_err(unreadable))?;
    observer.note(&format!("ranks: {} ({})", world.size(), world.library()));
    for (rank, bytes) in all.iter().enumerate() {
        let work: Work = from_slice(bytes).map_err(unreadable)?;
        observer.note(&format!(
            "  {}: {}, {:.3e} multiply-adds, {:.1} s in calls to other ranks",
            world.place(rank),
            counted(usize::try_from(work.packs).unwrap_or(usize::MAX), "pack"),
            work.multiply_adds as f64,
            work.waited
        ));
    }
    Ok(())
}

/// Notes that some ranks have no pack in a step, and how to give them one.
pub(super) fn note_idle(learner: &ModelLearner<'_>, observer: &mut dyn Progress) {
    let ranks = learner.world().size();
    for task in &learner.tasks {
        if ranks == 1 || task.train.is_empty() {
            continue;
        }
        let rows = task.order.peek();
        let batch: Vec<&Example> = rows.iter().map(|row| &task.train[*row].example).collect();
        let packs = pack(&batch, learner.token_budget).len();
        if packs >= ranks {
            continue;
        }
        let mut ways = Vec::new();
        if let Some(budget) = budget_for(&batch, ranks) {
            ways.push(format!("--token-budget {budget}"));
        }
        if let Some(size) = batch_for(&task.train, batch.len(), learner.token_budget, ranks) {
            ways.push(format!("a batch of {size} rows"));
        }
        let name = &task.name;
        let mut note = format!(
            "note: a batch of {name} has {} in {}, for {ranks} ranks, so some ranks wait in its steps",
            counted(batch.len(), "row"),
            counted(packs, "pack"),
        );
        if !ways.is_empty() {
            note += &format!("; {} gives each rank a pack", ways.join(" or "));
        }
        observer.note(&note);
    }
}

/// The largest power of two that, as a token budget, gives a batch as many packs as there are ranks.
fn budget_for(batch: &[&Example], ranks: usize) -> Option<usize> {
    let mut budget = 1 << 20;
    while budget >= 16 {
        if pack(batch, budget).len() >= ranks {
            return Some(budget);
        }
        budget /= 2;
    }
    None
}

/// A multiple of a batch that has as many packs as there are ranks, judged by the first training rows.
fn batch_for(train: &[TaskRow], batch: usize, token_budget: usize, ranks: usize) -> Option<usize> {
    let mut size = 2 * batch;
    while size <= train.len() {
        let rows: Vec<&Example> = train[..size].iter().map(|row| &row.example).collect();
        if pack(&rows, token_budget).len() >= ranks {
            return Some(size);
        }
        size += batch;
    }
    None
}

/// Checks that all ranks run the same program on the same rows and settings. That they have the same model was checked before.
///
/// # Errors
/// A rank differs; the error names it and what differs.
pub(super) fn check_equal(world: &World, written: &PlanRecord) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let facts = &written.facts;
    world.same(
        "version of the program",
        env!("CARGO_PKG_VERSION").as_bytes(),
    )?;
    for (objective, data) in written.plan.objectives.iter().zip(&facts.data) {
        let what = format!("version of the rows of {}", objective.name);
        world.same(&what, data.encoded_sha256.as_bytes())?;
    }
    world.same("initial adapter", facts.init_adapter.as_bytes())?;
    world.same("reference adapter", facts.reference.as_bytes())?;
    world.same("plan", written.hash()?.as_bytes())
}

/// Checks that all ranks hold the same adapter, and compute the same log-probabilities of one row. A rank that differs has broken memory,
/// or a broken processor.
///
/// # Errors
/// A rank differs, or the device failed.
pub(super) fn check_adapter(learner: &ModelLearner<'_>, step: usize) -> Result<()> {
    let world = learner.world();
    if world.size() == 1 {
        return Ok(());
    }
    let all = world.agree(digests(learner))?;
    for (rank, digest) in all.iter().enumerate() {
        let (here, first) = (world.place(rank), world.place(0));
        let hint = "check the memory of both machines, then continue with --resume from the last checkpoint";
        if digest.get(..32) != all[0].get(..32) {
            return Err(Error::failure(format!(
                "{here} has another adapter than {first} after step {step}, although both took the same steps"
            ))
            .hint(hint));
        }
        if *digest != all[0] {
            return Err(Error::failure(format!(
                "{here} computes another log-probability than {first} after step {step}, from the same row and the same adapter"
            ))
            .hint(hint));
        }
    }
    Ok(())
}

/// The digest of adapter, moments and average, then the log-probabilities of the first row that is evaluated.
fn digests(learner: &ModelLearner<'_>) -> Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let mut vectors = vec![
        &learner.adapter.parameters,
        &learner.moments.m,
        &learner.moments.v,
    ];
    vectors.extend(learner.average.as_ref().map(|average| &average.parameters));
    for vector in vectors {
        for value in vector.read()?.iter() {
            hash.update(value.to_le_bytes());
        }
    }
    let mut bytes = hash.finalize().to_vec();
    let evaluated = |task: &Task| task.fit.first().or(task.held_out.first()).cloned();
    if let Some(row) = learner.tasks.iter().find_map(evaluated) {
        for packed in pack(&[&row.example], learner.token_budget) {
            let scores = learner
                .decoder
                .score(&packed.pack, Some(&learner.adapter))?;
            for logp in scores.logp {
                bytes.extend_from_slice(&logp.to_le_bytes());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use upright_core::{
        objectives::{Objective, SFT},
        optimizer::{AdamW, AdamWConfig, Average, Curve, LearningRate},
    };
    use upright_data::order::Order;
    use upright_engine::{Decoder, Options};
    use upright_model::peft;
    use upright_ranks::threads::threads;

    use super::*;
    use crate::learner::Optimization;

    fn row(index: usize, len: usize) -> Example {
        Example {
            row: index,
            prompt: (0..len).map(|i| (i * 7 + index) as u32 % 50 + 1).collect(),
            responses: vec![vec![3, 4, 5].into()],
            ..Example::default()
        }
    }

    /// A learner of a golden model on a rank of two; `change` may break it. Returns what its check says.
    fn check_on_two(change: fn(usize, &mut ModelLearner<'_>)) -> Vec<Result<()>> {
        let dir =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-engine/tests/golden/llama");
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for ranks in threads(2, Duration::from_secs(30)) {
                let dir = &dir;
                running.push(scope.spawn(move || {
                    let world = Arc::new(World::new(Box::new(ranks)).unwrap());
                    let options = Options {
                        threads: 1,
                        ..Options::default()
                    };
                    let decoder = Decoder::open(dir, &options).unwrap();
                    let start = peft::read(&dir.join("adapter"), decoder.config()).unwrap();
                    let rows: Vec<Example> = (0..6).map(|index| row(index, 20)).collect();
                    let rows = TaskRow::list(rows, None);
                    let task = Task {
                        name: "sft".to_owned(),
                        objective: Objective::new(&SFT),
                        train: rows.clone(),
                        held_out: Vec::new(),
                        fit: rows,
                        order: Order::new(0, "sft", 6, 2),
                    };
                    let optimization = Optimization {
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
                        average: Average::Polynomial,
                    };
                    let adapter = start.adapter;
                    let learner =
                        ModelLearner::new(&decoder, adapter, optimization, 64, vec![task]);
                    let mut learner = learner.unwrap().among(&world);
                    change(world.rank(), &mut learner);
                    check_adapter(&learner, 7)
                }));
            }
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    #[test]
    fn a_rank_with_another_adapter_is_found() {
        for result in check_on_two(|_, _| {}) {
            result.unwrap();
        }
        let scaled = check_on_two(|rank, learner| {
            if rank == 1 {
                learner
                    .adapter
                    .parameters
                    .scale(1.0 + f32::EPSILON)
                    .unwrap();
            }
        });
        let averaged = check_on_two(|rank, learner| {
            if let (1, Some(average)) = (rank, &mut learner.average) {
                average.parameters.scale(0.5).unwrap();
            }
        });
        for result in scaled.into_iter().chain(averaged) {
            let message = result.unwrap_err().message;
            assert!(
                message.starts_with("rank 1 on ") && message.contains("after step 7"),
                "{message}"
            );
        }
        // Other rows stand for a processor that computes something else.
        let computed =
            check_on_two(|rank, learner| learner.tasks[0].fit[0].example = row(rank, 20));
        for result in computed {
            let message = result.unwrap_err().message;
            assert!(
                message.contains("computes another log-probability"),
                "{message}"
            );
        }
    }

    /// What a note proposes gives every rank a pack.
    #[test]
    fn proposals_are_enough() {
        let rows: Vec<Example> = (0..60).map(|index| row(index, 10 + index % 7)).collect();
        let batch: Vec<&Example> = rows[..5].iter().collect();
        for ranks in 2..6 {
            let budget = budget_for(&batch, ranks).unwrap();
            assert!(pack(&batch, budget).len() >= ranks && pack(&batch, 2 * budget).len() < ranks);
            let train = TaskRow::list(rows.clone(), None);
            let size = batch_for(&train, 5, 100, ranks).unwrap_or(usize::MAX);
            if let Some(rows) = rows.get(..size) {
                let rows: Vec<&Example> = rows.iter().collect();
                assert!(pack(&rows, 100).len() >= ranks);
            }
        }
        assert_eq!(budget_for(&batch, 9), None);
    }
}
