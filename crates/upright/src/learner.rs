//! The model as a [`Learner`]: the one place where engine, data and objectives meet.

use upright_engine::{
    adapter::Adapter,
    decoder::{Activations, Decoder, Forward, Scores, Slopes},
    pack::Pack,
};

use crate::{
    Error, Result,
    data::{
        Example,
        order::Order,
        pack::{PackedRows, pack},
    },
    objectives::{Objective, Response, RowLoss, Totals},
    optim::{adamw::AdamW, clip::clip, learning_rate::LearningRate},
    reference::Reference,
    train::{Learner, ObjectiveId},
};

/// An objective with its data: what the plan names and a method weighs.
#[derive(Debug)]
pub struct Task<'a> {
    /// Name in the plan.
    pub name: String,
    /// The loss.
    pub objective: Objective,
    /// Training rows.
    pub train: Vec<Example>,
    /// Held-out rows that are scored.
    pub held_out: Vec<Example>,
    /// A sample of the training rows, scored with them.
    pub fit: Vec<Example>,
    /// Which rows come next.
    pub order: Order,
    /// The reference policy, where the loss needs one.
    pub reference: Option<&'a Reference>,
}

/// A loss over some rows, with the sums the objective reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// Values of [`crate::objectives::Form::metrics`].
    pub metrics: Vec<f64>,
    /// Tokens of the rows, a prompt that responses share once.
    pub tokens: usize,
}

/// What a step leaves behind for those who record it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Tokens that were descended.
    pub tokens: usize,
    /// Metrics of every objective that was descended.
    pub metrics: Vec<Option<Vec<f64>>>,
}

/// The language model in training: a frozen decoder, an adapter, and an optimiser.
#[derive(Debug)]
pub struct ModelLearner<'a> {
    /// The frozen base.
    pub decoder: &'a Decoder,
    /// What is trained.
    pub adapter: Adapter,
    /// The optimiser and its state.
    pub optimiser: AdamW,
    /// Rate of every update since the optimiser last started afresh.
    pub learning_rate: LearningRate,
    /// Largest gradient norm.
    pub clip: f64,
    /// Rows of a pack.
    pub token_budget: usize,
    /// The objectives.
    pub tasks: Vec<Task<'a>>,
    /// What the last update was like.
    pub report: StepReport,
    gradient: Vec<f32>,
    /// Forward passes, one a pack, of the batches whose losses were looked at in this step.
    looked_at: Vec<Option<Vec<(Scores, Activations)>>>,
    descended: Vec<bool>,
}

/// The end of a run whose numbers left the finite range; what is on the disk is from before.
fn diverged(message: String) -> Error {
    Error::failure(message).hint(
        "lower --learning-rate or --clip in a new run; --init-adapter RUN/checkpoints/step-N starts it where this was good",
    )
}

impl Task<'_> {
    /// Totals of some rows, which every pack's share of the loss is measured by.
    fn totals(examples: &[&Example]) -> Totals {
        let scored = |example: &&Example| {
            (0..example.responses.len())
                .map(|i| example.scored(i))
                .sum::<usize>()
        };
        let tokens = examples.iter().map(scored).sum();
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
    ) -> Vec<(&'p [crate::data::pack::Segment], RowLoss)> {
        let same_row =
            |a: &crate::data::pack::Segment, b: &crate::data::pack::Segment| a.example == b.example;
        let rows = packed.segments.chunk_by(same_row).map(|segments| {
            let reference = self
                .reference
                .map(|reference| reference.sums(examples[segments[0].example]));
            let responses: Vec<Response> = segments
                .iter()
                .map(|segment| Response {
                    policy: scores.logp[segment.targets.clone()].iter().sum(),
                    reference: reference.as_ref().map(|sums| sums[segment.response]),
                    tokens: segment.targets.len(),
                })
                .collect();
            (segments, self.objective.row(&responses, totals))
        });
        rows.collect()
    }

    fn not_finite(&self, loss: f64, decoder: &Decoder, pack: &Pack, adapter: &Adapter) -> Error {
        let loss = format!("the loss of {}, {loss},", self.name);
        diverged(Error::not_finite(loss, decoder, pack, Some(adapter)).message)
    }

    /// Loss and metrics of some rows, without a gradient; `progress` hears how many are done, and its error ends it.
    pub fn measure(
        &self,
        decoder: &Decoder,
        adapter: &Adapter,
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

    fn empty(&self, examples: &[&Example]) -> Measured {
        let metrics = vec![0.0; self.objective.kind.form().metrics.len()];
        Measured {
            loss: 0.0,
            metrics,
            tokens: examples.iter().map(|example| example.tokens()).sum(),
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
        self.metrics
            .iter_mut()
            .zip(&row.metrics)
            .for_each(|(sum, value)| *sum += value);
    }
}

impl<'a> ModelLearner<'a> {
    /// A learner at the start of a run.
    pub fn new(
        decoder: &'a Decoder,
        adapter: Adapter,
        optimiser: AdamW,
        learning_rate: LearningRate,
        clip: f64,
        token_budget: usize,
        tasks: Vec<Task<'a>>,
    ) -> Self {
        let (len, count) = (adapter.parameters.len(), tasks.len());
        Self {
            decoder,
            adapter,
            optimiser,
            learning_rate,
            clip,
            token_budget,
            report: StepReport {
                metrics: vec![None; count],
                ..StepReport::default()
            },
            gradient: vec![0.0; len],
            looked_at: (0..count).map(|_| None).collect(),
            descended: vec![false; count],
            tasks,
        }
    }

    /// The objectives that this step descends, for messages.
    fn now(&self) -> String {
        let descended = self
            .tasks
            .iter()
            .zip(&self.descended)
            .filter(|(_, descended)| **descended);
        descended
            .map(|(task, _)| &task.name[..])
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// Forward and backward of the next batch, pack by pack. A batch that was looked at has gone forward already.
    fn descend(&mut self, id: ObjectiveId, weight: f64) -> Result<Measured> {
        let mut looked_at = self.looked_at[id.0].take().into_iter().flatten();
        let task = &self.tasks[id.0];
        let examples = task.next_batch();
        let totals = Task::totals(&examples);
        let mut measured = task.empty(&examples);
        for packed in &pack(&examples, self.token_budget) {
            let forward = match looked_at.next() {
                Some((scores, activations)) => {
                    Forward::attach(scores, activations, &packed.pack, &self.adapter)
                }
                None => self.decoder.forward(&packed.pack, &self.adapter)?,
            };
            let mut slopes = vec![0.0; packed.pack.targets.len()];
            for (segments, row) in task.rows(packed, &examples, &forward.scores, totals) {
                for segment in segments {
                    slopes[segment.targets.clone()].fill(weight * row.slopes[segment.response]);
                }
                measured.add(&row);
            }
            if !measured.loss.is_finite() {
                return Err(task.not_finite(
                    measured.loss,
                    self.decoder,
                    &packed.pack,
                    &self.adapter,
                ));
            }
            self.decoder
                .backward(forward, &Slopes { logp: slopes }, &mut self.gradient)?;
        }
        Ok(measured)
    }
}

impl Learner for ModelLearner<'_> {
    fn objectives(&self) -> usize {
        self.tasks.len()
    }

    fn loss(&mut self, id: ObjectiveId) -> Result<f64> {
        let task = &self.tasks[id.0];
        let examples = task.next_batch();
        let totals = Task::totals(&examples);
        let mut measured = task.empty(&examples);
        let mut looked_at = Vec::new();
        for packed in &pack(&examples, self.token_budget) {
            let forward = self.decoder.look(&packed.pack, &self.adapter)?;
            for (_, row) in task.rows(packed, &examples, &forward.scores, totals) {
                measured.add(&row);
            }
            if !measured.loss.is_finite() {
                return Err(task.not_finite(
                    measured.loss,
                    self.decoder,
                    &packed.pack,
                    &self.adapter,
                ));
            }
            looked_at.push(forward.detach());
        }
        self.looked_at[id.0] = Some(looked_at);
        Ok(measured.loss)
    }

    fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64> {
        if self.descended.iter().all(|descended| !descended) {
            self.report.tokens = 0;
            self.report.metrics.fill(None);
        }
        let measured = self.descend(id, weight)?;
        self.descended[id.0] = true;
        self.report.tokens += measured.tokens;
        self.report.metrics[id.0] = Some(measured.metrics);
        Ok(measured.loss)
    }

    fn update(&mut self) -> Result<()> {
        self.report.learning_rate = self.learning_rate.at(self.optimiser.updates as usize);
        self.report.gradient_norm = clip(&mut self.gradient, self.clip);
        if !self.report.gradient_norm.is_finite() {
            let norm = self.report.gradient_norm;
            return Err(diverged(format!(
                "the gradient of {} is not finite: its norm is {norm}",
                self.now()
            )));
        }
        self.optimiser.update(
            &mut self.adapter.parameters,
            &self.gradient,
            self.report.learning_rate,
        );
        if self
            .adapter
            .parameters
            .iter()
            .any(|value| !value.is_finite())
        {
            return Err(diverged(format!(
                "an update by {} made the adapter not finite",
                self.now()
            )));
        }
        self.gradient.fill(0.0);
        for (index, task) in self.tasks.iter_mut().enumerate() {
            match (
                self.descended[index],
                self.looked_at[index].take().is_some(),
            ) {
                (true, _) => task.order.advance(),
                (false, true) => task.order.postpone(),
                (false, false) => {}
            }
        }
        self.descended.fill(false);
        Ok(())
    }
}
