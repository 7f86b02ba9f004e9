//! The model as a [`Learner`]: the one place where engine, data and objectives meet.

use upright_base::{Error, Result};
use upright_core::{
    objectives::{Objective, Response, RowLoss, Totals},
    optimizer::{AdamW, Average, LearningRate, clip_coefficient, newest_weight},
    train::{Learner, ObjectiveId},
};
use upright_data::{Example, order::Order};
use upright_engine::{
    Activations, Decoder, DeviceAdapter, OutOfRange, Scores, Slopes, Sum, Vector,
};
use upright_model::{adapter::Adapter, pack::Pack};

use crate::{
    not_finite::not_finite,
    packing::{PackedRows, Segment, pack, tokens},
    reference::Reference,
};

/// An objective with its data, as named by the plan and weighted by a method.
#[derive(Debug)]
pub struct Task<'a> {
    /// Name in the plan.
    pub name: String,
    /// The loss.
    pub objective: Objective,
    /// Training rows.
    pub train: Vec<Example>,
    /// Held-out rows to evaluate.
    pub held_out: Vec<Example>,
    /// A sample of the training rows to evaluate.
    pub fit: Vec<Example>,
    /// Order of the training rows.
    pub order: Order,
    /// The reference policy, if the loss needs one.
    pub reference: Option<&'a Reference>,
}

/// A loss over some rows, with the metrics that the objective reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// Values of [`upright_core::objectives::LossSpec::metrics`].
    pub metrics: Vec<f64>,
    /// Tokens of the rows; a prompt that responses share counts once.
    pub tokens: usize,
}

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
    pub tasks: Vec<Task<'a>>,
    /// Measurements of the last step.
    pub report: StepReport,
    /// Gradient of one pack, then of the step.
    gradient: Vector,
    /// Sum of the gradients of the step's packs.
    sum: Sum,
    /// The forward passes of the batches that were probed in this step.
    probed: Vec<Option<Vec<Pass>>>,
    trained: Vec<bool>,
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

/// A pack with its forward pass.
#[derive(Debug)]
struct Pass {
    packed: PackedRows,
    scores: Scores,
    activations: Activations,
}

/// What passes run on.
#[derive(Clone, Copy)]
struct Place<'l> {
    decoder: &'l Decoder,
    adapter: &'l DeviceAdapter,
    token_budget: usize,
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

/// The error of a run whose values are no longer finite; the files on disk are from before.
fn diverged(message: String) -> Error {
    Error::failure(message).hint(
        "lower --learning-rate or --clip in a new run; --init-adapter RUN/checkpoints/step-N starts it from a good checkpoint",
    )
}

impl Task<'_> {
    /// Totals of some rows, by which every pack's share of the loss is normalized.
    fn totals(examples: &[&Example]) -> Totals {
        let mut tokens = 0;
        for example in examples {
            for response in 0..example.responses.len() {
                tokens += example.scored(response);
            }
        }
        Totals {
            rows: examples.len(),
            tokens,
        }
    }

    /// Loss, slopes and metrics of every row of a pack, with the row's segments.
    fn rows<'p>(
        &self,
        packed: &'p PackedRows,
        examples: &[&Example],
        scores: &Scores,
        totals: Totals,
    ) -> Vec<(&'p [Segment], RowLoss)> {
        let mut rows = Vec::new();
        for segments in packed.segments.chunk_by(|a, b| a.example == b.example) {
            let reference = self
                .reference
                .map(|reference| reference.sums(examples[segments[0].example]));
            let mut responses = Vec::with_capacity(segments.len());
            for segment in segments {
                responses.push(Response {
                    policy: scores.logp[segment.targets.clone()].iter().sum(),
                    reference: reference.as_ref().map(|sums| sums[segment.response]),
                    tokens: segment.targets.len(),
                });
            }
            rows.push((segments, self.objective.row(&responses, totals)));
        }
        rows
    }

    fn not_finite(
        &self,
        loss: f64,
        decoder: &Decoder,
        pack: &Pack,
        adapter: &DeviceAdapter,
    ) -> Error {
        let loss = format!("the loss of {}, {loss},", self.name);
        diverged(not_finite(loss, decoder, pack, Some(adapter)).message)
    }

    /// Loss and metrics of some rows, without a gradient. `progress` gets the number of rows done;
    /// its error ends the measurement.
    ///
    /// # Errors
    /// The error of `progress`, or a loss is not finite.
    pub fn measure(
        &self,
        decoder: &Decoder,
        adapter: &DeviceAdapter,
        examples: &[&Example],
        token_budget: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Measured> {
        let totals = Self::totals(examples);
        let mut measured = self.empty(examples);
        let mut done = 0;
        for packed in &pack(examples, token_budget) {
            let scores = decoder.score(&packed.pack, Some(adapter))?;
            for (_, row) in self.rows(packed, examples, &scores, totals) {
                measured.add(&row);
                done += 1;
            }
            if !measured.loss.is_finite() {
                return Err(self.not_finite(measured.loss, decoder, &packed.pack, adapter));
            }
            progress(done)?;
        }
        Ok(measured)
    }

    /// Runs forward and backward pass of the next batch, pack by pack. `each` gets the gradient of
    /// every pack, multiplied by `weight`, in `gradient`. `probed` are the batch's forward passes,
    /// if the batch was probed.
    fn gradients(
        &self,
        place: &Place<'_>,
        probed: Option<Vec<Pass>>,
        weight: f64,
        gradient: &mut Vector,
        each: &mut dyn FnMut(usize, &Vector) -> Result<()>,
    ) -> Result<Measured> {
        let Place {
            decoder, adapter, ..
        } = *place;
        let examples = self.next_batch();
        let totals = Self::totals(&examples);
        let mut measured = self.empty(&examples);
        let mut probed = probed.map(Vec::into_iter);
        for (index, packed) in pack(&examples, place.token_budget).into_iter().enumerate() {
            let Pass {
                packed,
                scores,
                activations,
            } = match probed.as_mut().and_then(Iterator::next) {
                Some(pass) => pass,
                None => {
                    let (scores, activations) = decoder.forward(&packed.pack, adapter)?;
                    Pass {
                        packed,
                        scores,
                        activations,
                    }
                }
            };
            let mut slopes = vec![0.0; packed.pack.targets.len()];
            for (segments, row) in self.rows(&packed, &examples, &scores, totals) {
                for segment in segments {
                    slopes[segment.targets.clone()].fill(weight * row.slopes[segment.response]);
                }
                measured.add(&row);
            }
            if !measured.loss.is_finite() {
                return Err(self.not_finite(measured.loss, decoder, &packed.pack, adapter));
            }
            let slopes = Slopes { logp: slopes };
            decoder.backward(&packed.pack, adapter, activations, &slopes, gradient)?;
            each(index, gradient)?;
        }
        Ok(measured)
    }

    fn empty(&self, examples: &[&Example]) -> Measured {
        Measured {
            loss: 0.0,
            metrics: vec![0.0; self.objective.kind.spec().metrics.len()],
            tokens: tokens(examples.iter().copied()),
        }
    }

    fn next_batch(&self) -> Vec<&Example> {
        self.order
            .peek()
            .iter()
            .map(|&row| &self.train[row])
            .collect()
    }
}

impl Measured {
    fn add(&mut self, row: &RowLoss) {
        self.loss += row.loss;
        for (sum, value) in self.metrics.iter_mut().zip(&row.metrics) {
            *sum += value;
        }
    }
}

impl<'a> ModelLearner<'a> {
    /// A learner at the start of a run.
    ///
    /// # Errors
    /// The device has too little memory for the adapter, its gradient and its moments.
    pub fn new(
        decoder: &'a Decoder,
        adapter: Adapter,
        optimization: Optimization,
        token_budget: usize,
        tasks: Vec<Task<'a>>,
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
        })
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

    /// Probes the next batch: its loss, and its forward passes, which may have no backward pass.
    fn probe(&self, id: ObjectiveId) -> Result<(f64, Vec<Pass>)> {
        let task = &self.tasks[id.0];
        let examples = task.next_batch();
        let totals = Task::totals(&examples);
        let mut measured = task.empty(&examples);
        let mut probed = Vec::new();
        for packed in pack(&examples, self.token_budget) {
            let (scores, activations) = self.decoder.probe(&packed.pack, &self.adapter)?;
            for (_, row) in task.rows(&packed, &examples, &scores, totals) {
                measured.add(&row);
            }
            if !measured.loss.is_finite() {
                let adapter = &self.adapter;
                return Err(task.not_finite(measured.loss, self.decoder, &packed.pack, adapter));
            }
            probed.push(Pass {
                packed,
                scores,
                activations,
            });
        }
        Ok((measured.loss, probed))
    }

    /// The gradient of every pack of an objective's next batch, for measurements: nothing is added up or updated.
    ///
    /// # Errors
    /// The error of `each`, or a loss is not finite.
    pub fn gradients(
        &mut self,
        id: ObjectiveId,
        each: &mut dyn FnMut(usize, &Vector) -> Result<()>,
    ) -> Result<Measured> {
        let place = Place {
            decoder: self.decoder,
            adapter: &self.adapter,
            token_budget: self.token_budget,
        };
        self.tasks[id.0].gradients(&place, None, 1.0, &mut self.gradient, each)
    }

    /// Adds the gradient of the next batch to the gradient of the step. A probed batch already has
    /// its forward passes.
    fn train_on(&mut self, id: ObjectiveId, weight: f64) -> Result<Measured> {
        let probed = self.probed[id.0].take();
        let task = &self.tasks[id.0];
        let place = Place {
            decoder: self.decoder,
            adapter: &self.adapter,
            token_budget: self.token_budget,
        };
        let sum = &mut self.sum;
        task.gradients(
            &place,
            probed,
            weight,
            &mut self.gradient,
            &mut |pack, gradient| {
                let Some(OutOfRange { index, value }) = sum.add(gradient)? else {
                    return Ok(());
                };
                let tensor = place.adapter.layout.tensor_at(index);
                Err(diverged(format!(
                    "the gradient of {}, pack {pack}, is out of range: {value} in {tensor}",
                    task.name
                )))
            },
        )
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
                self.report.probed_tokens += tokens(task.next_batch());
                task.order.postpone();
            }
        }
        self.trained.fill(false);
        Ok(())
    }
}
