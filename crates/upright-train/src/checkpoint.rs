//! Checkpoints: everything a run needs to resume bit-identically, in a folder that is complete or
//! absent.
//!
//! `checkpoints/step-N/` contains the adapter as a PEFT folder, `optimizer.safetensors` (the moments,
//! and the averaged adapter if the run keeps one) and `state.json`. Permanent checkpoints are
//! written every `--checkpoint-every` steps; the newest few and the best are kept. One rolling
//! checkpoint follows the newest step, so that a run that is killed or fills the disk loses little
//! work.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use upright_model::{
    adapter::{Adapter, LoraConfig},
    config::DecoderConfig,
    peft::{self, BaseModel},
};

use upright_base::{Error, Result, files};
use upright_data::order::OrderState;

/// A rolling checkpoint is written when this many times the cost of the last checkpoint has passed
/// since. Cheap checkpoints are written after every step, and the cost never exceeds a few percent
/// of the time.
const ROLLING_COST: u32 = 25;

/// File of the optimizer's moments and of the average in a checkpoint folder.
const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// The state of a run after `step` steps.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The contents of `state.json`.
    pub state: State,
    /// Adapter parameters.
    pub adapter: Adapter,
    /// First moment.
    pub m: Vec<f32>,
    /// Second moment.
    pub v: Vec<f32>,
    /// Parameters of the averaged adapter, if the run keeps one.
    pub average: Option<Vec<f32>>,
}

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// Updates since the optimizer was last reset.
    pub updates: u64,
    /// State of the method.
    pub method: Vec<f64>,
    /// Position of each objective in its data.
    pub orders: Vec<OrderState>,
    /// Weighted sum of the held-out losses, if they were measured at this step. The best checkpoint
    /// has the lowest.
    pub held_out: Option<f64>,
    /// Whether the next checkpoint of any kind replaces this one.
    pub rolling: bool,
}

/// What all checkpoints of a run have in common.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Rank, alpha, targets, for `adapter_config.json`.
    pub lora: LoraConfig,
    /// The base model, for an adapter's folder.
    pub base: BaseModel,
}

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    identity: Identity,
    keep: usize,
    /// When the last checkpoint was written, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl Checkpoints {
    /// The checkpoints in `dir`, of which the newest `keep` and the best are kept.
    pub fn new(dir: PathBuf, identity: Identity, keep: usize) -> Self {
        Self {
            dir,
            identity,
            keep,
            last: None,
        }
    }

    /// Steps of the checkpoints in `dir`, ascending.
    fn steps(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let step = |entry: fs::DirEntry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("step-")?
                .parse()
                .ok()
        };
        let mut steps: Vec<usize> = entries.filter_map(step).collect();
        steps.sort_unstable();
        steps
    }

    fn folder(&self, step: usize) -> PathBuf {
        self.dir.join(format!("step-{step}"))
    }

    fn state(&self, step: usize) -> Result<State> {
        let path = self.folder(step).join("state.json");
        let text = files::read_text(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| Error::failure(format!("{}: {error}", path.display())))
    }

    /// The newest checkpoint that can be read. `skipped` gets a note for every newer one.
    pub fn newest(
        &self,
        config: &DecoderConfig,
        mut skipped: impl FnMut(String),
    ) -> Option<Snapshot> {
        for step in self.steps().into_iter().rev() {
            match self.read(step, config) {
                Ok(snapshot) => return Some(snapshot),
                Err(error) => skipped(format!("skipped an unreadable checkpoint: {error}")),
            }
        }
        None
    }

    fn read(&self, step: usize, config: &DecoderConfig) -> Result<Snapshot> {
        let folder = self.folder(step);
        let state = self.state(step)?;
        let adapter = peft::read(&folder, config)?.adapter;
        let mut path = folder.join(OPTIMIZER_FILE);
        if !path.exists() {
            // The file name of earlier builds.
            path = folder.join("optimiser.safetensors");
        }
        let bytes = files::read(&path).map_err(|error| Error::io(&path, "read", error))?;
        let broken = |what: String| Error::failure(format!("{}: {what}", path.display()));
        let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let tensor = |name: &str| -> Result<Vec<f32>> {
            let tensor = file
                .tensor(name)
                .map_err(|error| broken(error.to_string()))?;
            if tensor.dtype() != Dtype::F32 || tensor.data().len() != 4 * adapter.parameters.len() {
                return Err(broken(format!(
                    "tensor `{name}` does not match the adapter"
                )));
            }
            Ok(tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        let has_average = file.names().contains(&"average");
        let average = has_average.then(|| tensor("average")).transpose()?;
        let (m, v) = (tensor("m")?, tensor("v")?);
        Ok(Snapshot {
            state,
            adapter,
            m,
            v,
            average,
        })
    }

    /// Whether a rolling checkpoint is worth its cost now.
    pub fn rolling_is_due(&self) -> bool {
        self.last
            .is_none_or(|(at, cost)| at.elapsed() >= cost * ROLLING_COST)
    }

    /// Writes a checkpoint, then removes checkpoints that are no longer needed.
    pub fn write(&mut self, snapshot: &Snapshot) -> Result<()> {
        let started = Instant::now();
        files::create_dir(&self.dir)?;
        let partial = self.dir.join(".partial");
        let folder = self.folder(snapshot.state.step);
        let _ = fs::remove_dir_all(&partial);
        let written = self.write_files(&partial, snapshot).and_then(|()| {
            self.remove(&folder);
            files::rename(&partial, &folder)
        });
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&partial);
            let hint =
                "free disk space and continue with --resume: the newest checkpoint is complete";
            return Err(if error.hint.is_empty() {
                error.hint(hint)
            } else {
                error
            });
        }
        self.prune();
        self.last = Some((Instant::now(), started.elapsed()));
        Ok(())
    }

    fn write_files(&self, dir: &Path, snapshot: &Snapshot) -> Result<()> {
        files::create_dir(dir)?;
        let Identity { lora, base } = &self.identity;
        peft::check_finite(&snapshot.adapter)
            .map_err(|error| error.hint("lower --learning-rate or --clip"))?;
        peft::write(dir, &snapshot.adapter, lora, base)?;
        let bytes = |values: &[f32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let (m, v) = (bytes(&snapshot.m), bytes(&snapshot.v));
        let average = snapshot.average.as_deref().map(bytes);
        let view = |data| {
            TensorView::new(Dtype::F32, vec![snapshot.adapter.parameters.len()], data)
                .expect("its length")
        };
        let mut tensors = vec![("m", view(&m)), ("v", view(&v))];
        if let Some(average) = &average {
            tensors.push(("average", view(average)));
        }
        let file = safetensors::serialize(tensors, None).expect("plain tensors");
        files::write_atomic(&dir.join(OPTIMIZER_FILE), &file)?;
        write_state(dir, &snapshot.state)
    }

    /// Replaces the state of a checkpoint, as if the run had not been stopped there: what is due makes a
    /// rolling checkpoint permanent, and a run that was extended a permanent one rolling.
    pub fn settle(&self, state: &State) -> Result<()> {
        write_state(&self.folder(state.step), state)?;
        self.prune();
        Ok(())
    }

    /// Removes a checkpoint. It is renamed first, so that a kill leaves no partial checkpoint under
    /// its name.
    fn remove(&self, folder: &Path) {
        let removed = self.dir.join(".removed");
        let _ = fs::remove_dir_all(&removed);
        let _ = files::rename(folder, &removed);
        let _ = fs::remove_dir_all(&removed);
    }

    /// Keeps the newest `keep` permanent checkpoints, the best of all, and a rolling checkpoint
    /// only if no other is newer. Removes what a kill left behind.
    pub fn prune(&self) {
        for left in [".partial", ".removed"] {
            let _ = fs::remove_dir_all(self.dir.join(left));
        }
        let states: Vec<State> = self
            .steps()
            .into_iter()
            .filter_map(|step| self.state(step).ok())
            .collect();
        let staying: Vec<&State> = states.iter().filter(|state| !state.rolling).collect();
        let best = staying
            .iter()
            .filter(|state| state.held_out.is_some())
            .min_by(|a, b| {
                let (a, b) = (
                    a.held_out.unwrap_or(f64::INFINITY),
                    b.held_out.unwrap_or(f64::INFINITY),
                );
                a.total_cmp(&b)
            });
        let newest: Vec<usize> = staying
            .iter()
            .rev()
            .take(self.keep)
            .map(|state| state.step)
            .collect();
        for state in &states {
            let kept = if state.rolling {
                states.last().is_some_and(|last| last.step == state.step)
            } else {
                newest.contains(&state.step) || best.is_some_and(|best| best.step == state.step)
            };
            if !kept {
                self.remove(&self.folder(state.step));
            }
        }
    }
}

fn write_state(dir: &Path, state: &State) -> Result<()> {
    let text = serde_json::to_string_pretty(state).expect("plain data");
    files::write_atomic(&dir.join("state.json"), text.as_bytes())
}
