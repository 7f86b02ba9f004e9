//! What a user learns about ranks: how the work was shared, ranks without work, and ranks that differ.

use serde::{Deserialize, Serialize};
use serde_json::from_slice;
use sha2::{Digest, Sha256};
use upright_base::{Error, Result, counted, observer::Observer};
use upright_core::train::ObjectiveId;
use upright_engine::Vector;
use upright_ranks::World;
use upright_runs::plan_record::PlanRecord;

use super::Model;
use crate::learner::ModelLearner;

/// The work of a rank.
#[derive(Serialize, Deserialize)]
struct Work {
    packs: u64,
    multiply_adds: u64,
    waited: f64,
}

/// Notes the work of every rank at the end of a run.
pub(super) fn note(model: &Model, observer: &mut dyn Observer) -> Result<()> {
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
pub(super) fn note_idle(learner: &ModelLearner<'_>, observer: &mut dyn Observer) {
    let ranks = learner.world().size();
    for (index, task) in learner.tasks.iter().enumerate() {
        if ranks == 1 || task.train.is_empty() {
            continue;
        }
        let packs = learner.packs_of_next_batch(ObjectiveId(index));
        if packs >= ranks {
            continue;
        }
        let rows = task.order.peek().len();
        let needed = (rows * ranks).div_ceil(packs.max(1));
        let name = &task.name;
        observer.note(&format!(
            "note: a batch of {name} has {rows} rows in {}, for {ranks} ranks, so some ranks wait in its steps; \
             --token-budget below {} or a batch of {needed} rows gives each rank a pack",
            counted(packs, "pack"),
            learner.token_budget
        ));
    }
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

/// Checks that all ranks hold the same adapter. A rank that differs has broken memory, or a broken device.
///
/// # Errors
/// A rank differs, or the device failed.
pub(super) fn check_adapter(learner: &ModelLearner<'_>, step: usize) -> Result<()> {
    let world = learner.world();
    if world.size() == 1 {
        return Ok(());
    }
    let digests = || -> Result<Vec<u8>> {
        let mut hash = Sha256::new();
        let mut add = |vector: &Vector| -> Result<()> {
            for value in vector.read()?.iter() {
                hash.update(value.to_le_bytes());
            }
            Ok(())
        };
        add(&learner.adapter.parameters)?;
        add(&learner.moments.m)?;
        add(&learner.moments.v)?;
        Ok(hash.finalize().to_vec())
    };
    let all = world.agree(digests())?;
    for (rank, digest) in all.iter().enumerate() {
        if *digest != all[0] {
            return Err(Error::failure(format!(
                "{} has another adapter than {} after step {step}, although both took the same steps",
                world.place(rank),
                world.place(0)
            ))
            .hint("check the memory of both machines, then continue with --resume from the last checkpoint"));
        }
    }
    Ok(())
}
