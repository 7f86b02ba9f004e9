//! Losses of a study's models on more rows. A run without steps, which begins with the model's
//! adapter, evaluates them.

use std::path::PathBuf;

use upright_base::{
    Error, Result, files,
    progress::{Progress, Quiet},
};
use upright_core::{methods::MIX, optimizer::Iterate};
use upright_runs::{
    plan::{Length, Plan},
    records::{EvalSet, loss_key},
    run_dir,
    settings::{Config, Number},
    trackers::Trackers,
};
use upright_train::run;

use super::{Candidate, FOLDER, RowSet, Taken, hash_of, scores::Scores};
use crate::experiment::{Experiment, Setup, builder::weighted};

impl RowSet {
    /// Index of its objective.
    ///
    /// # Errors
    /// The setup has no such objective.
    pub(super) fn objective_in(&self, setup: &Setup) -> Result<usize> {
        let mut known = Vec::new();
        for (index, name) in setup.objectives().enumerate() {
            if name == self.objective {
                return Ok(index);
            }
            known.push(name.to_owned());
        }
        Err(Error::input(format!(
            "[evaluate] sets.{}: there is no objective `{}`",
            self.name, self.objective
        ))
        .hint(format!("objectives: {}", known.join(", "))))
    }
}

impl Experiment {
    /// Evaluates a set under every candidate.
    pub(super) fn take_set(
        &self,
        set: &RowSet,
        candidates: &[Candidate<'_>],
        observer: &mut dyn Progress,
    ) -> Result<Taken> {
        let mut scores = Vec::with_capacity(candidates.len());
        observer.begin(&format!("set {}", set.name), candidates.len());
        for (index, candidate) in candidates.iter().enumerate() {
            observer.advance(index, &candidate.name);
            match self.loss_on(set, candidate, &mut Quiet(observer)) {
                Ok(own) => scores.push(Some(own)),
                Err(error) => {
                    observer.end();
                    return Err(error);
                }
            }
        }
        observer.end();
        Ok(Taken {
            name: set.name.clone(),
            title: format!("{}, {} loss", set.name, set.objective),
            unit: "",
            is_higher_better: false,
            about: format!("Mean loss of {} on {}.", set.objective, set.data.display()),
            scores,
            lacking: None,
        })
    }

    /// The folder of the run that evaluates a set under a candidate.
    pub(super) fn set_folder(&self, set: &RowSet, candidate: &Candidate<'_>) -> Result<PathBuf> {
        let rows = files::sha256(&set.data)?;
        let hash = hash_of(&[&candidate.hash, &rows, &set.objective]);
        Ok(self.out.join(FOLDER).join(&set.name).join(hash))
    }

    /// The mean loss of a candidate. The evaluation has no loss per row, so there is one score.
    fn loss_on(
        &self,
        set: &RowSet,
        candidate: &Candidate<'_>,
        observer: &mut dyn Progress,
    ) -> Result<Scores> {
        let settings = &candidate.setup.settings;
        let index = set.objective_in(candidate.setup)?;
        let even = vec![1.0 / settings.objective.len() as f64; settings.objective.len()];
        let mut config = Config {
            init_adapter: self.adapter_of(candidate),
            steps: Some(Number::from("1")),
            epochs: None,
            ..weighted(settings, &even, &MIX)
        };
        config.objective[index].eval = Some(set.data.clone());
        let folder = self.set_folder(set, candidate)?;
        config.out = Some(folder.clone());
        if !run_dir::is_finished(&folder) {
            let mut plan = Plan::from_config(&config)?;
            // A user may take no step only from an adapter, but this is a measurement of a base too.
            plan.length = Some(Length::Steps(0));
            let mut trackers = Trackers::none();
            run::run(&plan, &config.to_toml()?, true, &mut trackers, observer)?;
        }
        let evaluations = run_dir::read_evaluations(&folder)?;
        let last = evaluations.last().map(|record| &record.last.held_out);
        let loss = last.and_then(|held_out| held_out.loss(&set.objective));
        let loss = loss.ok_or_else(|| {
            let key = loss_key(Iterate::Last, EvalSet::HeldOut, &set.objective);
            Error::failure(format!("{}: the evaluation lacks {key}", folder.display()))
                .hint("remove the folder to evaluate again")
        })?;
        Ok(Scores {
            groups: vec![vec![Some(loss)]],
            range: [loss, loss],
        })
    }
}
