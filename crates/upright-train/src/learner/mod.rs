//! The model as a [`Learner`]: the one place where engine, data and objectives meet.
//!
//! On several ranks, every rank holds the same adapter, moments and orders, and computes some of the packs of every batch. Ranks
//! exchange the losses of rows and add up their sums of gradients. Both are exact, so all ranks take the same update, with the bits of
//! a single rank.

mod rows;
mod shares;
mod task;

use std::sync::Arc;

use upright_base::{Error, Result};
use upright_core::{
    optimizer::{AdamW, Average, LearningRate, clip_coefficient, newest_weight},
    train::{Learner, ObjectiveId},
};
use upright_engine::{Decoder, DeviceAdapter, OutOfRange, Sum, Vector};
use upright_math::random::splitmix;
use upright_model::adapter::Adapter;
use upright_ranks::World;

use self::{
    rows::{Reader, readers},
    shares::{BACKWARD, FORWARD, Shares},
    task::{BatchPack, Divided, Pass, diverged},
};
use crate::packing::tokens;

pub use task::{Measured, Place, Task, TaskRow};

/// Measurements of a step, for the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Tokens that were trained on.
    pub tokens: usize,
    /// Tokens of batches that were probed and not trained on.
    pub probed_tokens: usize,
    /// Metrics of every objective that was trained on.
    pub metrics: Vec<Option<Vec<f64>>>,
}

/// The language model in training: a frozen decoder, an adapter, and an optimizer.
#[derive(Debug)]
pub struct ModelLearner<'a> {
    /// The frozen base.
    pub decoder: &'a Decoder,
    /// The trained adapter.
    pub adapter: DeviceAdapter,
    /// The average of the adapters since the optimizer was last reset, if the run keeps one. Before
    /// the first update, it is the initial adapter.
    pub average: Option<DeviceAdapter>,
    /// The optimizer's scalars.
    pub optimizer: AdamW,
    /// The optimizer's moments.
    pub moments: Moments,
    /// Learning rate of every update since the optimizer was last reset.
    pub learning_rate: LearningRate,
    /// Maximum norm of the gradient.
    pub clip: f64,
    /// Maximum rows of a pack.
    pub token_budget: usize,
    /// The objectives.
    pub tasks: Vec<Task>,
    /// Measurements of the last step.
    pub report: StepReport,
    /// Gradient of one pack, then of the step.
    gradient: Vector,
    /// Sum of the gradients of the step's packs.
    sum: Sum,
    /// The batches that were probed in this step. This rank's packs have their forward passes.
    probed: Vec<Option<Divided>>,
    trained: Vec<bool>,
    /// All ranks.
    world: Arc<World>,
    /// The work of each rank in this step.
    shares: Shares,
}

/// AdamW's moments, in the adapter's layout.
#[derive(Debug)]
pub struct Moments {
    /// First moment.
    pub m: Vector,
    /// Second moment.
    pub v: Vector,
}

impl Moments {
    /// Moments before the first update.
    fn zeros(decoder: &Decoder, len: usize) -> Result<Self> {
        Ok(Self {
            m: decoder.vector(vec![0.0; len])?,
            v: decoder.vector(vec![0.0; len])?,
        })
    }
}

/// How a learner optimizes.
#[derive(Clone, Copy, Debug)]
pub struct Optimization {
    /// The optimizer before its first update.
    pub optimizer: AdamW,
    /// Learning rate of every update.
    pub learning_rate: LearningRate,
    /// Maximum norm of the gradient; 0 disables clipping.
    pub clip: f64,
    /// The unit of the gradient's sum is two to this power.
    pub gradient_exponent: i32,
    /// Whether an average of the adapters is kept.
    pub average: Average,
}

impl<'a> ModelLearner<'a> {
    /// A learner at the start of a run, on one rank.
    ///
    /// # Errors
    /// The device has too little memory for the adapter, its gradient and its moments.
    pub fn new(
        decoder: &'a Decoder,
        adapter: Adapter,
        optimization: Optimization,
        token_budget: usize,
        tasks: Vec<Task>,
    ) -> Result<Self> {
        let len = adapter.parameters.len();
        let count = tasks.len();
        let adapter = decoder.load(adapter)?;
        Ok(Self {
            decoder,
            average: match optimization.average {
                Average::None => None,
                Average::Polynomial => Some(adapter.copy()?),
            },
            adapter,
            optimizer: optimization.optimizer,
            moments: Moments::zeros(decoder, len)?,
            learning_rate: optimization.learning_rate,
            clip: optimization.clip,
            token_budget,
            report: StepReport {
                metrics: vec![None; count],
                ..StepReport::default()
            },
            gradient: decoder.vector(vec![0.0; len])?,
            sum: decoder.sum(len, optimization.gradient_exponent)?,
            probed: (0..count).map(|_| None).collect(),
            trained: vec![false; count],
            tasks,
            world: Arc::new(World::alone()),
            shares: Shares::new(1),
        })
    }

    /// The same learner as one of several ranks.
    #[must_use]
    pub fn among(mut self, world: &Arc<World>) -> Self {
        self.world = Arc::clone(world);
        self.shares = Shares::new(world.size());
        self
    }

    /// All ranks.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Resets the optimizer, as at a stage boundary of Sequential. The average stays until the next
    /// update, which begins it anew.
    ///
    /// # Errors
    /// The device failed.
    pub fn reset_optimizer(&mut self, learning_rate: LearningRate) -> Result<()> {
        self.optimizer = AdamW::new(self.optimizer.config);
        self.moments.m.clear()?;
        self.moments.v.clear()?;
        self.learning_rate = learning_rate;
        Ok(())
    }

    /// The objectives that this step trains on, for messages.
    fn trained_now(&self) -> String {
        let mut names = Vec::new();
        for (task, trained) in self.tasks.iter().zip(&self.trained) {
            if *trained {
                names.push(&task.name[..]);
            }
        }
        names.join(" and ")
    }

    /// Identifies a batch and where the run is, so that ranks that differ are found. Depends on the number of updates, the objective,
    /// its weight and the rows.
    fn batch_key(&self, id: ObjectiveId, weight: f64) -> u64 {
        let mut key = splitmix(self.optimizer.updates);
        let mut mix = |number: u64| key = splitmix(key ^ number);
        mix(id.0 as u64);
        mix(weight.to_bits());
        for row in self.tasks[id.0].order.peek() {
            mix(*row as u64);
        }
        key
    }

    /// Probes the next batch: its loss, and the forward passes of this rank's packs, which may have no backward pass.
    fn probe(&mut self, id: ObjectiveId) -> Result<(f64, Divided)> {
        let task = &self.tasks[id.0];
        let rows = task.next_batch();
        let mut divided = Divided::new(&rows, self.token_budget, &mut self.shares, FORWARD);
        let place = Place {
            decoder: self.decoder,
            adapter: &self.adapter,
            token_budget: self.token_budget,
            world: &self.world,
        };
        let totals = Task::totals(&rows);
        let (mut bytes, mut sum) = (Vec::new(), 0.0);
        let mut run = || -> Result<()> {
            for (_, BatchPack { packed, pass, .. }) in divided.of(self.world.rank()) {
                let (scores, activations) = self.decoder.probe(&packed.pack, &self.adapter)?;
                let losses = task.losses(packed, &rows, &scores, totals);
                task.add_rows(&losses, &place, &packed.pack, &mut sum, &mut bytes)?;
                *pass = Some(Pass {
                    scores,
                    activations,
                });
            }
            Ok(())
        };
        let done = run();
        let all = self.exchanged(id, 0.0, done.map(|()| bytes))?;
        let measured = task.folded(&divided, &rows, &mut readers(&all))?;
        Ok((measured.loss, divided))
    }

    /// Gives this rank's losses to all ranks, if all are at the same batch.
    ///
    /// # Errors
    /// A rank failed, or is at another batch.
    fn exchanged(
        &self,
        id: ObjectiveId,
        weight: f64,
        mine: Result<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>> {
        if self.world.size() == 1 {
            return Ok(vec![mine?]);
        }
        let key = self.batch_key(id, weight);
        let with_key = mine.map(|bytes| [&key.to_le_bytes()[..], &bytes].concat());
        let mut all = self.world.agree(with_key)?;
        for rank in 0..all.len() {
            if all[rank].get(..8) != all[0].get(..8) {
                let (here, first) = (self.world.place(rank), self.world.place(0));
                let (name, update) = (&self.tasks[id.0].name, self.optimizer.updates);
                return Err(Error::failure(format!(
                    "{here} is at another batch than {first}, which is at a batch of {name} after {update} updates"
                ))
                .hint("the ranks' programs, files or memory differ; check the machine, then continue with --resume"));
            }
        }
        for bytes in &mut all {
            bytes.drain(..8);
        }
        Ok(all)
    }

    /// The gradient of every pack of an objective's next batch, for measurements on one rank: nothing is added up or updated.
    ///
    /// # Errors
    /// The error of `each`, or a loss is not finite.
    pub fn gradients(
        &mut self,
        id: ObjectiveId,
        each: &mut dyn FnMut(usize, &Vector) -> Result<()>,
    ) -> Result<Measured> {
        let task = &self.tasks[id.0];
        let world = World::alone();
        let place = Place {
            decoder: self.decoder,
            adapter: &self.adapter,
            token_budget: self.token_budget,
            world: &world,
        };
        let rows = task.next_batch();
        let mut divided = Divided::new(&rows, self.token_budget, &mut Shares::new(1), FORWARD);
        let bytes = task.gradients(&place, &mut divided, 1.0, &mut self.gradient, each)?;
        task.folded(&divided, &rows, &mut [Reader::new(&bytes)])
    }

    /// Adds the gradient of this rank's packs of the next batch to the sum of the step. A probed batch already has
    /// its forward passes.
    fn train_on(&mut self, id: ObjectiveId, weight: f64) -> Result<Measured> {
        let task = &self.tasks[id.0];
        let rows = task.next_batch();
        let mut divided = match self.probed[id.0].take() {
            Some(probed) => {
                for pack in &probed.packs {
                    self.shares.add(pack.owner, &pack.packed, BACKWARD);
                }
                probed
            }
            None => {
                let passes = FORWARD + BACKWARD;
                Divided::new(&rows, self.token_budget, &mut self.shares, passes)
            }
        };
        let place = Place {
            decoder: self.decoder,
            adapter: &self.adapter,
            token_budget: self.token_budget,
            world: &self.world,
        };
        let sum = &mut self.sum;
        let mut each = |pack: usize, gradient: &Vector| {
            let Some(OutOfRange { index, value }) = sum.add(gradient)? else {
                return Ok(());
            };
            let tensor = place.adapter.layout.tensor_at(index);
            Err(diverged(format!(
                "the gradient of {}, pack {pack}, is out of range: {value} in {tensor}",
                task.name
            )))
        };
        let gradient = &mut self.gradient;
        let mine = task.gradients(&place, &mut divided, weight, gradient, &mut each);
        if self.world.size() == 1 {
            return task.folded(&divided, &rows, &mut [Reader::new(&mine?)]);
        }
        // The ranks' sums have to fit together, too.
        let bound = self.sum.bound();
        let mine = mine.and_then(|bytes| Ok([&bound?.to_le_bytes()[..], &bytes].concat()));
        let all = self.exchanged(id, weight, mine)?;
        let mut readers = readers(&all);
        let mut bound = 0u128;
        for reader in &mut readers {
            bound += u128::from(reader.number()?);
        }
        if bound > i64::MAX as u128 {
            return Err(diverged(format!(
                "the gradient of {} is out of range: the packs of all ranks add up to more than the sum can hold",
                task.name
            )));
        }
        task.folded(&divided, &rows, &mut readers)
    }
}

impl Learner for ModelLearner<'_> {
    type Error = Error;

    fn objectives(&self) -> usize {
        self.tasks.len()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64> {
        let (loss, probed) = self.probe(id)?;
        self.probed[id.0] = Some(probed);
        Ok(loss)
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64> {
        if self.trained.iter().all(|trained| !trained) {
            self.report.tokens = 0;
            self.report.metrics.fill(None);
        }
        let measured = self.train_on(id, weight)?;
        self.trained[id.0] = true;
        self.report.tokens += measured.tokens;
        self.report.metrics[id.0] = Some(measured.metrics);
        Ok(measured.loss)
    }

    fn update(&mut self) -> Result<()> {
        let learning_rate = self.learning_rate.at(self.optimizer.updates as usize);
        if self.world.size() > 1 {
            let world = &self.world;
            self.sum.exchange(&mut |values| world.sum(values))?;
        }
        self.sum.write_to(&mut self.gradient)?;
        let norm = self.gradient.norm()?;
        self.report.learning_rate = learning_rate;
        self.report.gradient_norm = norm;
        if let Some(coefficient) = clip_coefficient(norm, self.clip) {
            self.gradient.scale(coefficient)?;
        }
        let Moments { m, v } = &mut self.moments;
        let step = self.optimizer.next(learning_rate);
        self.adapter.parameters.adamw(&self.gradient, m, v, &step)?;
        if !self.adapter.parameters.is_finite()? {
            let trained = self.trained_now();
            return Err(diverged(format!(
                "an update by {trained} made the adapter not finite"
            )));
        }
        if let Some(average) = &mut self.average {
            let share = newest_weight(self.optimizer.updates);
            let newest = &self.adapter.parameters;
            average.parameters.move_towards(newest, share)?;
        }
        self.sum.clear()?;
        self.report.probed_tokens = 0;
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let was_probed = self.probed[index].take().is_some();
            if self.trained[index] {
                task.order.advance();
            } else if was_probed {
                let rows = task.next_batch();
                self.report.probed_tokens += tokens(rows.iter().map(|row| &row.example));
                task.order.postpone();
            }
        }
        self.trained.fill(false);
        self.shares.clear();
        Ok(())
    }
}
