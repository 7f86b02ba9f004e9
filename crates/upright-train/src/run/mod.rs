//! A run, from its plan to its adapter, in stages.
//!
//! | module | stage |
//! |---|---|
//! | `start` | opens the model and the rows, on one rank or on several |
//! | `opened` | compares the run with its folder; prepares the adapter, the reference and the optima |
//! | `prepared` | loads the learner, and resumes or evaluates it |
//! | `training` | takes the steps; `steps` says what happens after each |
//! | `finished` | writes the adapters |

pub mod adapters;
mod cached;
mod extend;
mod finished;
pub mod model;
mod opened;
mod optima;
pub mod outline;
mod preflight;
mod prepared;
mod rank_report;
mod record;
mod reference_policy;
mod start;
mod steps;
pub mod tasks;
mod training;
mod warnings;

use upright_base::{Result, progress::Progress};
use upright_data::Dataset;
use upright_runs::{
    plan::{Plan, Schedule},
    trackers::Trackers,
};

pub use model::Model;
pub use outline::Outline;
pub use preflight::Preflight;
pub use reference_policy::{first_batches, has_reference, reference_adapter, train_reference};
pub use start::{run, run_among};

use self::{opened::Opened, reference_policy::ToTrain};

/// What a run of this plan would do, and about how long it would take here. Writes nothing.
///
/// # Errors
/// Whatever would prevent the run from starting, except for its output folder.
pub fn outline(plan: &Plan, observer: &mut dyn Progress) -> Result<Outline> {
    let model = Model::of_plan(plan, observer)?;
    let datasets = model.datasets(plan, observer)?;
    warnings::note(plan, &datasets, observer);
    let rows: Vec<usize> = datasets.iter().map(|data| data.train.len()).collect();
    let schedule = Schedule::new(plan, &rows)?;
    let (adapter, lora) = model.adapter(plan, observer)?;
    model.check_finite(&datasets, &adapter)?;
    let to_train = ToTrain::new(&model, plan, observer)?;
    let alone = optima::runs(&model, plan, &schedule, &datasets)?;
    Outline::new(
        &model,
        plan,
        &schedule,
        &datasets,
        (&adapter, &lora),
        to_train.as_ref(),
        &alone,
    )
}

/// Why a run is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose<'p> {
    /// It is the run that was asked for.
    Run,
    /// It trains the reference of another run.
    Reference,
    /// It trains the objective of this name alone, for its optimum in another run.
    Optimum(&'p str),
}

impl Purpose<'_> {
    /// What its steps are called in progress bars and messages.
    fn steps(self) -> String {
        match self {
            Self::Run => "training".to_owned(),
            Self::Reference => "training the reference".to_owned(),
            Self::Optimum(name) => format!("training {name} alone for its optimum"),
        }
    }
}

/// A run whose model is open.
#[derive(Clone, Copy)]
struct Work<'w> {
    model: &'w Model,
    plan: &'w Plan,
    /// The config as written.
    config: &'w str,
    /// Whether a run in the output folder is continued.
    resume: bool,
    purpose: Purpose<'w>,
}

/// Takes the steps of a run whose rows are open; none if the run in its folder is finished. Every stage is a struct with one
/// function to the next.
fn run_with(
    work: Work<'_>,
    datasets: Vec<Dataset>,
    trackers: &mut Trackers,
    observer: &mut dyn Progress,
) -> Result<()> {
    let opened = Opened::new(work, datasets)?;
    if opened.is_finished() {
        return opened.note_finished(observer);
    }
    let prepared = opened.prepare(observer)?;
    let training = prepared.start(trackers, observer)?;
    let finished = training.take_steps()?;
    finished.export()
}
