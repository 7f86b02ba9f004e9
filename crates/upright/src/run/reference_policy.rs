//! The reference policy of a run: the base itself, an adapter that exists, or one that is trained first and kept for
//! every later run with the same plan.

use upright_engine::{adapter::Adapter, peft};

use super::{Engine, open};
use crate::{
    Error, Result,
    data::{Dataset, Example},
    files::{self, Lock},
    observer::Observer,
    plan::{Plan, ReferencePlan, Schedule},
    reference::Reference,
    run_dir,
};

/// Makes the reference ready for every row that the run may draw or evaluate; `None` where no objective needs one.
pub(super) fn prepare(
    engine: &Engine,
    plan: &Plan,
    schedule: &Schedule,
    datasets: &[Dataset],
    observer: &mut dyn Observer,
) -> Result<Option<Reference>> {
    let needs = |index: usize| plan.objectives[index].loss.form().reference;
    if !(0..datasets.len()).any(needs) {
        return Ok(None);
    }
    let adapter = match &plan.reference {
        ReferencePlan::None => None,
        ReferencePlan::Folder(folder) => Some(engine.read_adapter(folder, observer)?),
        ReferencePlan::Train { .. } => Some(trained(engine, plan, datasets, observer)?),
    };
    let mut reference = Reference::open(&engine.decoder, adapter.as_ref())?;
    let mut rows: Vec<&Example> = Vec::new();
    for (index, data) in datasets.iter().enumerate().filter(|(index, _)| needs(*index)) {
        rows.extend(drawn(plan, schedule, index, data));
        rows.extend(data.held_out(plan.eval_rows));
        rows.extend(data.fit(plan.eval_rows).into_iter().map(|row| &data.train[row]));
    }
    let computed = reference.prepare(&engine.decoder, adapter.as_ref(), &rows, plan.token_budget, observer)?;
    observer.note(&format!("reference: {} rows needed, {computed} responses scored, the rest from the cache", rows.len()));
    Ok(Some(reference))
}

/// Training rows of an objective that the run may draw: exact where the method's choice does not depend on losses.
fn drawn<'d>(plan: &Plan, schedule: &Schedule, index: usize, data: &'d Dataset) -> Vec<&'d Example> {
    let mut method = plan.method(schedule);
    let decided_by_losses = (0..schedule.total).any(|step| !method.probes(step).is_empty());
    let batches = if decided_by_losses {
        schedule.total
    } else {
        (0..schedule.total).filter(|&step| method.weights(step)[index] > 0.0).count()
    };
    let mut order = open::order(plan, index, data.train.len());
    let mut wanted = vec![false; data.train.len()];
    for _ in 0..batches.min(order.batches()) {
        order.peek().iter().for_each(|&row| wanted[row] = true);
        order.advance();
    }
    data.train.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(example, _)| example).collect()
}

/// The adapter of a reference that the program trains: a run of its own in the cache, found by what it is made from.
fn trained(engine: &Engine, plan: &Plan, datasets: &[Dataset], observer: &mut dyn Observer) -> Result<Adapter> {
    let (mut reference_plan, source) = plan.reference_run()?;
    let data = engine.dataset(&reference_plan, 0, observer)?;
    let _ = (source, datasets);
    let written = engine.describe(&reference_plan, std::slice::from_ref(&data))?;
    let folder = files::cache_dir().join("references").join(written.hash()?);
    reference_plan.out = folder.clone();
    reference_plan.resume = true;
    files::create_dir(folder.parent().expect("inside the cache"))?;
    let _lock = Lock::wait(&folder.with_extension("lock"))?;
    let adapter = super::adapter_dir(&folder);
    if adapter.join("adapter_config.json").exists() && run_dir::holds_run(&folder) {
        observer.note(&format!("reference: already trained, {}", adapter.display()));
    } else {
        observer.note(&format!("reference: training it in {}", folder.display()));
        let config = toml::to_string(&reference_plan).map_err(|error| Error::failure(error.to_string()))?;
        super::run_with(engine, &reference_plan, &config, vec![data], observer)?;
    }
    Ok(peft::read(&adapter, engine.decoder.config())?.adapter)
}
