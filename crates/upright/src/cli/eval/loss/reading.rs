//! How the rows of `upright eval loss` are read. Each setting comes from the flags, else from the
//! run of the adapter, else from the default.

use std::path::Path;

use upright_base::{Error, Result, progress::Progress};
use upright_data::{ColumnMap, DataFile, DataSpec, Dataset, HeldOut, RowKind, Truncation, Turns};
use upright_hub::Hub;
use upright_runs::{
    origin::OriginRows,
    plan::{
        self,
        checks::{Choice, choice, count, threads, truncation},
    },
    settings::{Number, number_of},
};
use upright_train::fetch::data_file;

use super::Loss;
use crate::cli::terminal::Terminal;

/// Which rows of a dataset to score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// All rows.
    All,
    /// The rows that a run trains on.
    Train,
    /// The rows that a run holds out.
    HeldOut,
}

impl Choice for Split {
    const ALL: &'static [Self] = &[Self::All, Self::Train, Self::HeldOut];

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "train",
            Self::HeldOut => "held-out",
        }
    }
}

/// How to read the rows. Each setting comes from the flags, else from the run of the adapter, else
/// from the default.
pub(super) struct Reading {
    pub(super) spec: DataSpec,
    pub(super) split: Split,
    /// Score only this many rows, the first of the split.
    pub(super) limit: Option<usize>,
    /// Settings taken from the run, with their values.
    from_run: Vec<String>,
}

impl Loss {
    /// The file to score and the kind of its rows. Downloads Hub datasets.
    pub(super) fn rows(&self, hub: &Hub, terminal: &mut Terminal) -> Result<(DataFile, RowKind)> {
        match (&self.sft, &self.dpo) {
            (Some(path), _) => Ok((data_file(hub, "sft", path, terminal)?, RowKind::Instruction)),
            (None, Some(path)) => Ok((data_file(hub, "dpo", path, terminal)?, RowKind::Preference)),
            (None, None) => {
                Err(Error::input("no rows are given").hint("give --sft FILE or --dpo FILE"))
            }
        }
    }

    /// The truncation settings. The default of min-prompt depends on max-length, so the run's
    /// min-prompt is used only with the run's max-length.
    fn truncation(
        &self,
        run: Option<&OriginRows<'_>>,
        from_run: &mut Vec<String>,
    ) -> Result<Truncation> {
        let mut max_length = self.max_length.clone();
        let mut min_prompt = self.min_prompt.clone();
        let mut too_long = self.too_long.clone();
        if let Some(run) = run {
            let mut take = |key: &str, setting: &mut Option<Number>, value: usize| {
                if setting.is_none() {
                    from_run.push(format!("--{key} {value}"));
                    *setting = Some(Number::from(value));
                }
            };
            if max_length.is_none() {
                take("min-prompt", &mut min_prompt, run.plan.min_prompt);
            }
            take("max-length", &mut max_length, run.plan.max_length);
            if too_long.is_none() {
                let rule = run.plan.too_long.name().to_owned();
                from_run.push(format!("--too-long {rule}"));
                too_long = Some(rule);
            }
        }
        truncation(
            max_length.as_ref(),
            min_prompt.as_ref(),
            too_long.as_deref(),
        )
    }

    pub(super) fn reading(
        &self,
        file: DataFile,
        kind: RowKind,
        run: Option<&OriginRows<'_>>,
    ) -> Result<Reading> {
        let mut from_run = Vec::new();
        let template = match (&self.template, run) {
            (Some(name), _) => Some(plan::template("template", name)?),
            (None, Some(run)) => {
                from_run.push(format!("--template {}", run.data.template));
                Some(run.template()?)
            }
            (None, None) => None,
        };
        let turns = match run {
            Some(run) if self.turns.is_none() && !run.objective.turns.is_last() => {
                from_run.push("--turns all".into());
                run.objective.turns
            }
            _ => choice("turns", self.turns.as_deref(), Turns::Last)?,
        };
        let map = match (&self.map, run) {
            (Some(map), _) => map.parse().map_err(|error: Error| error.at("map"))?,
            (None, Some(run)) if !run.objective.map.is_empty() => {
                from_run.push(format!("--map {}", run.objective.map));
                run.objective.map.clone()
            }
            (None, _) => ColumnMap::default(),
        };
        let cut = self.truncation(run, &mut from_run)?;
        let split = choice("split", self.split.as_deref(), Split::All)?;
        if let (Split::All, Some(share)) = (split, &self.held_out) {
            return Err(Error::input(format!(
                "held-out {share} has no effect: all rows are scored"
            ))
            .hint("give --split held-out or --split train, or leave --held-out out"));
        }
        let limit = self
            .limit
            .as_ref()
            .map(|limit| count("limit", Some(limit), 0))
            .transpose()?;
        let mut eval = HeldOut::Fraction(0.0);
        let mut rows = limit;
        if split != Split::All {
            let given = self.held_out.as_ref();
            let fraction = match (given, run) {
                (None, Some(run)) => run.plan.held_out,
                (given, _) => number_of("held-out", given)?,
            };
            let held_file = run
                .and_then(|run| run.objective.eval_data.clone())
                .filter(|_| given.is_none());
            // The rows of the run, before the held-out rows are split off.
            rows = run.and_then(|run| run.objective.rows);
            from_run.extend(rows.map(|rows| format!("the first {rows} rows")));
            eval = match held_file {
                Some(file) => {
                    from_run.push(format!("held-out rows in {}", file.name()));
                    HeldOut::File(file)
                }
                None => {
                    if run.is_some() && given.is_none() {
                        from_run.push(format!("--held-out {fraction}"));
                    }
                    HeldOut::Fraction(fraction)
                }
            };
        }
        let Truncation {
            max_length,
            min_prompt,
            rule: too_long,
        } = cut;
        let threads = threads(self.machine.threads.as_ref())?;
        let files = vec![file];
        let spec = DataSpec {
            files,
            kind,
            map,
            template,
            template_setting: "--template".into(),
            turns,
            rows,
            max_length,
            min_prompt,
            too_long,
            threads,
            eval,
        };
        Ok(Reading {
            spec,
            split,
            limit,
            from_run,
        })
    }
}

/// Notes which settings are taken from the run, and what may make the numbers differ from those of
/// the run.
pub(super) fn note_origin(
    run: &OriginRows<'_>,
    folder: &Path,
    reading: &Reading,
    data: &Dataset,
    terminal: &mut Terminal,
) {
    let folder = folder.display();
    if !reading.from_run.is_empty() {
        terminal.note(&format!(
            "settings of {} in the run {folder}: {}",
            run.objective.name,
            reading.from_run.join(", ")
        ));
    }
    let facts = run.data;
    let is_same_file = data.sha256 == facts.sha256;
    let is_same_template = data.template.to_string() == facts.template;
    if is_same_template && data.template.sha256().unwrap_or_default() != facts.template_sha256 {
        terminal.note(&format!(
            "warning: the template {} has changed since the run {folder}",
            facts.template
        ));
    }
    if is_same_file
        && reading.split == Split::All
        && facts.eval_rows > 0
        && facts.eval_sha256.is_empty()
    {
        terminal.note(&format!(
            "the run trained on {} of these rows and held out {}; --split held-out scores only the \
             held-out rows",
            facts.train_rows, facts.eval_rows
        ));
    }
    if !is_same_file && reading.split != Split::All {
        terminal.note(
            "warning: these are not the rows of the run; --split divides them by the same rule",
        );
    }
}
