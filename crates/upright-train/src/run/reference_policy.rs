//! The reference policy of a run: the base itself, an existing adapter, or an adapter that is
//! trained first and cached for every later run with the same plan.

use std::path::PathBuf;

use upright_base::{Error, Result, files, progress::Progress};
use upright_core::{
    methods::MIX,
    objectives::SFT,
    optimizer::{Average, Iterate},
};
use upright_data::{Dataset, Example, RowKind};
use upright_model::{adapter::Adapter, peft};
use upright_runs::{
    plan::{
        Length, ObjectivePlan, Plan, ReferencePlan, ReferenceRows, Schedule, defaults_of, plain_mix,
    },
    run_dir::adapter_dir,
};

use super::{Model, Purpose, cached, tasks};
use crate::{
    ranks::{on_first, share_values},
    reference::{Policy, Reference, digest},
};

/// Seed of every trained reference, so that runs with different seeds share one, as a study should.
const SEED: u64 = 0;

/// Folder of the trained references in the cache, each under its hash.
const REFERENCES: &str = "references";

/// Rows of each evaluation set that are evaluated before and after a reference is trained.
const EVAL_ROWS: usize = 16;

/// Prepares the reference for every row that the run may draw or evaluate; `None` if no objective
/// needs a reference.
pub(super) fn prepare(
    model: &Model,
    plan: &Plan,
    schedule: &Schedule,
    datasets: &[Dataset],
    to_train: Option<ToTrain>,
    observer: &mut dyn Progress,
) -> Result<Option<Reference>> {
    if !plan.needs_reference() {
        return Ok(None);
    }
    let adapter = match (&plan.reference, to_train) {
        (ReferencePlan::Folder(folder), _) => Some(model.read_adapter(folder, observer)?),
        (ReferencePlan::Train { .. }, Some(to_train)) => Some(to_train.train(model, observer)?.0),
        _ => None,
    };
    let mut reference = match on_first(&model.world, || files::cache("reference-logps"))? {
        Some(folder) => Reference::open(
            &folder,
            &model.decoder,
            &model.fingerprint,
            adapter.as_ref(),
        )?,
        None => Reference::elsewhere(),
    };
    let adapter = adapter
        .map(|adapter| model.decoder.load(adapter))
        .transpose()?;
    let rows = needed_rows(plan, schedule, datasets);
    let policy = Policy {
        decoder: &model.decoder,
        adapter: adapter.as_ref(),
        token_budget: plan.token_budget,
        world: &model.world,
    };
    let computed = reference.prepare(&policy, &rows, observer)?;
    observer.note(&format!(
        "reference log-probabilities of {} rows: {computed} responses scored, {} in the cache",
        rows.len(),
        rows.iter()
            .map(|row| row.responses.len())
            .sum::<usize>()
            .saturating_sub(computed)
    ));
    Ok(Some(reference))
}

/// Rows whose reference log-probabilities a run may need, each once.
pub(super) fn needed_rows<'d>(
    plan: &Plan,
    schedule: &Schedule,
    datasets: &'d [Dataset],
) -> Vec<&'d Example> {
    let mut rows: Vec<&Example> = Vec::new();
    for (index, data) in datasets.iter().enumerate() {
        if plan.objectives[index].loss.reference {
            rows.extend(drawn(plan, schedule, index, data));
            rows.extend(data.eval(plan.eval_rows));
            rows.extend(data.fit(plan.eval_rows));
        }
    }
    // Evaluated rows can be training rows, too.
    let mut seen = std::collections::HashSet::new();
    rows.retain(|row| seen.insert(std::ptr::from_ref(*row)));
    rows
}

/// Trains the reference of a plan, if the plan trains one: a separate run in the cache, where every
/// run with this reference finds it. Returns whether it had to be trained.
pub fn train_reference(plan: &Plan, observer: &mut dyn Progress) -> Result<bool> {
    if !is_trained(plan) {
        return Ok(false);
    }
    let model = Model::of_plan(plan, observer)?;
    let Some(to_train) = ToTrain::new(&model, plan, observer)? else {
        return Ok(false);
    };
    Ok(to_train.train(&model, observer)?.1)
}

/// Whether a plan's reference needs no more training. Writes nothing.
pub fn has_reference(plan: &Plan, observer: &mut dyn Progress) -> Result<bool> {
    if !is_trained(plan) {
        return Ok(true);
    }
    let model = Model::of_plan(plan, observer)?;
    let to_train = ToTrain::new(&model, plan, observer)?;
    Ok(to_train.is_none_or(|to_train| to_train.finished))
}

/// Folder of the adapter that is a run's reference; `None` if the reference is the base model.
/// `recorded` is the digest of the adapter in the run's record. Writes nothing.
///
/// # Errors
/// The folder is missing or holds another adapter than during the run, the reference was trained first and is not in the
/// cache, or the rows it was trained on cannot be read.
pub fn reference_adapter(
    model: &Model,
    plan: &Plan,
    recorded: &str,
    observer: &mut dyn Progress,
) -> Result<Option<PathBuf>> {
    match &plan.reference {
        ReferencePlan::Base => Ok(None),
        ReferencePlan::Folder(folder) => {
            let adapter = model.read_adapter(folder, observer)?;
            if files::hex(&digest(&adapter)) != recorded {
                return Err(Error::input(format!(
                    "{}: the reference adapter has changed since the run",
                    folder.display()
                ))
                .hint("give --reference DIR with the adapter that the run used"));
            }
            Ok(Some(folder.clone()))
        }
        ReferencePlan::Train { .. } => {
            let Some(to_train) = ToTrain::new(model, plan, observer)? else {
                return Ok(None);
            };
            let folder = to_train.plan.out;
            if !to_train.finished {
                return Err(Error::input(format!(
                    "{}: the reference that the run trained is not in the cache, or its rows or this machine's arithmetic \
                     have changed",
                    folder.display()
                ))
                .hint("give --reference DIR, or --reference none for the base model"));
            }
            Ok(Some(adapter_dir(&folder)))
        }
    }
}

fn is_trained(plan: &Plan) -> bool {
    matches!(plan.reference, ReferencePlan::Train { .. })
}

/// Training rows of an objective that the run may draw: exact if the method's choice does not
/// depend on losses.
fn drawn<'d>(
    plan: &Plan,
    schedule: &Schedule,
    index: usize,
    data: &'d Dataset,
) -> Vec<&'d Example> {
    let mut method = plan.method(schedule);
    let decided_by_losses = (0..schedule.steps).any(|step| !method.probes(step).is_empty());
    let batches = if decided_by_losses {
        schedule.steps
    } else {
        (0..schedule.steps)
            .filter(|&step| method.weights(step)[index] > 0.0)
            .count()
    };
    first_batches(plan, index, data, batches)
}

/// Training rows of an objective's first batches.
pub fn first_batches<'d>(
    plan: &Plan,
    index: usize,
    data: &'d Dataset,
    batches: usize,
) -> Vec<&'d Example> {
    let mut order = tasks::order(plan, index, data.train.len());
    let mut wanted = vec![false; data.train.len()];
    for _ in 0..batches.min(order.batches()) {
        order.peek().iter().for_each(|&row| wanted[row] = true);
        order.advance();
    }
    data.train
        .iter()
        .zip(wanted)
        .filter(|(_, wanted)| *wanted)
        .map(|(example, _)| example)
        .collect()
}

/// The plan that trains a reference: SFT only, with the adapter settings of the run that needs it,
/// and its optimizer but for the learning rate.
fn plan_of(plan: &Plan) -> (Plan, RowKind) {
    let ReferencePlan::Train {
        on,
        epochs,
        batch,
        rows,
        learning_rate: _,
    } = plan.reference
    else {
        unreachable!("only a trained reference has a plan")
    };
    let source = plan
        .objectives
        .iter()
        .find(|objective| on.are_of(objective))
        .expect("a plan has such an objective");
    let (name, kind) = match on {
        ReferenceRows::Chosen => ("chosen", RowKind::Chosen),
        ReferenceRows::Sft => ("sft", RowKind::Instruction),
    };
    let objective = ObjectivePlan {
        name: name.into(),
        loss: &SFT,
        weight: 1.0,
        rows: rows.or(source.rows),
        batch,
        settings: defaults_of(&SFT),
        optimum: None,
        optimum_eval: None,
        tie_rank: 0,
        ..source.clone()
    };
    let plan = Plan {
        init_adapter: None,
        method: &MIX,
        length: Some(Length::Epochs(epochs)),
        method_settings: plain_mix(),
        finds_optima: false,
        average: Average::None,
        export_iterate: Iterate::Last,
        eval_every: 0,
        eval_rows: EVAL_ROWS,
        checkpoint_every: 0,
        keep: 1,
        reference: ReferencePlan::Base,
        optimizer: plan.reference_optimizer(),
        seed: SEED,
        objectives: vec![objective],
        stages: Vec::new(),
        stop: None,
        ..plan.clone()
    };
    (plan, kind)
}

/// A reference that a plan trains first: a separate run in the cache.
pub(super) struct ToTrain {
    /// The plan of the separate run; `out` is its folder in the cache.
    pub(super) plan: Plan,
    /// Its rows.
    pub(super) data: Dataset,
    /// Whether the cache has it, with nothing left to train.
    pub(super) finished: bool,
}

impl ToTrain {
    /// The reference of a plan; `None` if the plan does not train one. Writes nothing.
    pub(super) fn new(
        model: &Model,
        plan: &Plan,
        observer: &mut dyn Progress,
    ) -> Result<Option<Self>> {
        if !is_trained(plan) {
            return Ok(None);
        }
        let (mut plan, kind) = plan_of(plan);
        let data = model.dataset(&plan, 0, kind, observer)?;
        let datasets = std::slice::from_ref(&data);
        let finished = cached::place(model, &mut plan, datasets, REFERENCES)?;
        Ok(Some(Self {
            plan,
            data,
            finished,
        }))
    }

    /// Number of steps that train it.
    pub(super) fn steps(&self) -> Result<usize> {
        Ok(Schedule::new(&self.plan, &[self.data.train.len()])?.steps)
    }

    /// Its adapter, trained now if the cache does not have it, and whether it was trained now.
    fn train(self, model: &Model, observer: &mut dyn Progress) -> Result<(Adapter, bool)> {
        on_first(&model.world, || files::cache(REFERENCES))?;
        let adapter = adapter_dir(&self.plan.out);
        let trained = cached::train(
            model,
            &self.plan,
            vec![self.data],
            (Purpose::Reference, "reference: training it"),
            observer,
        )?;
        if !trained {
            observer.note(&format!("reference: trained before, {}", adapter.display()));
        }
        // The other ranks know the layout, and get the parameters from rank 0.
        let read = on_first(&model.world, || {
            Ok(peft::read(&adapter, model.decoder.config())?.adapter)
        })?;
        let mut adapter = match read {
            Some(adapter) => adapter,
            None => model.adapter(&self.plan, observer)?.0,
        };
        share_values(&model.world, &mut adapter.parameters)?;
        Ok((adapter, trained))
    }
}
