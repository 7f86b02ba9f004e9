//! An objective with its data: losses of rows, and gradients of packs. Each rank computes some of the packs.

use upright_base::{Error, Result};
use upright_core::objectives::{Objective, Response, RowLoss, Totals};
use upright_data::{Example, order::Order};
use upright_engine::{Activations, Decoder, DeviceAdapter, Scores, Slopes, Vector};
use upright_model::pack::Pack;
use upright_ranks::World;

use super::{
    rows::{self, Reader, readers},
    shares::{FORWARD, Shares},
};
use crate::{
    not_finite::not_finite,
    packing::{PackedRows, Segment, pack, tokens},
    reference::Reference,
};

/// An objective with its data, as named by the plan and weighted by a method.
#[derive(Debug)]
pub struct Task {
    /// Name in the plan.
    pub name: String,
    /// The loss.
    pub objective: Objective,
    /// Training rows.
    pub train: Vec<TaskRow>,
    /// Held-out rows to evaluate.
    pub held_out: Vec<TaskRow>,
    /// A sample of the training rows to evaluate.
    pub fit: Vec<TaskRow>,
    /// Order of the training rows.
    pub order: Order,
}

/// A row, and what its loss is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// Its tokens.
    pub example: Example,
    /// Log-probability of each response under the reference model, in nats, summed over the tokens in the loss. `None` if the loss
    /// needs no reference, or if the run neither draws nor evaluates the row.
    pub reference_logps: Option<Vec<f64>>,
}

impl TaskRow {
    /// Rows with the log-probabilities that `reference` has, if there is a reference.
    pub fn list(examples: Vec<Example>, reference: Option<&Reference>) -> Vec<Self> {
        let mut rows = Vec::with_capacity(examples.len());
        for example in examples {
            let reference_logps = reference.and_then(|reference| reference.logps(&example));
            rows.push(Self {
                example,
                reference_logps,
            });
        }
        rows
    }
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

/// What passes run on.
#[derive(Clone, Copy)]
pub struct Place<'l> {
    /// The frozen base.
    pub decoder: &'l Decoder,
    /// The adapter.
    pub adapter: &'l DeviceAdapter,
    /// Maximum rows of a pack.
    pub token_budget: usize,
    /// The ranks that share the packs.
    pub world: &'l World,
}

/// A forward pass, whose backward pass may follow.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) scores: Scores,
    pub(super) activations: Activations,
}

/// A pack of a batch.
#[derive(Debug)]
pub(super) struct BatchPack {
    pub(super) packed: PackedRows,
    /// The rank that computes it.
    pub(super) owner: usize,
    /// The forward pass, if the batch was probed and this rank is the owner.
    pub(super) pass: Option<Pass>,
}

/// The packs of a batch, divided among the ranks.
#[derive(Debug)]
pub(super) struct Divided {
    pub(super) packs: Vec<BatchPack>,
}

impl Divided {
    /// Divides the packs of some rows. `passes` is the cost of a pack, in forward passes.
    pub(super) fn new(
        rows: &[&TaskRow],
        token_budget: usize,
        shares: &mut Shares,
        passes: u64,
    ) -> Self {
        let examples: Vec<&Example> = rows.iter().map(|row| &row.example).collect();
        let all = pack(&examples, token_budget);
        let owners = shares.assign(&all, passes);
        let mut packs = Vec::with_capacity(all.len());
        for (packed, owner) in all.into_iter().zip(owners) {
            packs.push(BatchPack {
                packed,
                owner,
                pass: None,
            });
        }
        Self { packs }
    }

    /// The packs of a rank, with their indices.
    pub(super) fn of(&mut self, rank: usize) -> impl Iterator<Item = (usize, &mut BatchPack)> {
        let all = self.packs.iter_mut().enumerate();
        all.filter(move |(_, pack)| pack.owner == rank)
    }
}

/// The error of a run whose values are no longer finite; the files on disk are from before.
pub(super) fn diverged(message: String) -> Error {
    Error::failure(message).hint(
        "lower --learning-rate or --clip in a new run; --init-adapter RUN/checkpoints/step-N starts it from a good checkpoint",
    )
}

impl Task {
    /// Totals of some rows, by which every pack's share of the loss is normalized.
    pub(super) fn totals(rows: &[&TaskRow]) -> Totals {
        let mut tokens = 0;
        for row in rows {
            tokens += row.example.loss_tokens();
        }
        Totals {
            rows: rows.len(),
            tokens,
        }
    }

    /// Loss, slopes and metrics of every row of a pack, with the row's segments.
    pub(super) fn losses<'p>(
        &self,
        packed: &'p PackedRows,
        rows: &[&TaskRow],
        scores: &Scores,
        totals: Totals,
    ) -> Vec<(&'p [Segment], RowLoss)> {
        let mut losses = Vec::new();
        for segments in rows_of(packed) {
            let reference = rows[segments[0].example].reference_logps.as_ref();
            let mut responses = Vec::with_capacity(segments.len());
            for segment in segments {
                responses.push(Response {
                    policy: scores.logp[segment.targets.clone()].iter().sum(),
                    reference: reference.map(|logps| logps[segment.response]),
                    tokens: segment.targets.len(),
                });
            }
            losses.push((segments, self.objective.row(&responses, totals)));
        }
        losses
    }

    fn not_finite(&self, loss: f64, place: &Place<'_>, pack: &Pack) -> Error {
        let loss = format!("the loss of {}, {loss},", self.name);
        diverged(not_finite(loss, place.decoder, pack, Some(place.adapter)).message)
    }

    /// Adds the rows of a pack of this rank to `sum` and to the bytes for the other ranks.
    ///
    /// # Errors
    /// The sum of this rank's losses is not finite.
    pub(super) fn add_rows(
        &self,
        rows: &[(&[Segment], RowLoss)],
        place: &Place<'_>,
        pack: &Pack,
        sum: &mut f64,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        for (_, row) in rows {
            *sum += row.loss;
            rows::write(row, bytes);
        }
        if sum.is_finite() {
            Ok(())
        } else {
            Err(self.not_finite(*sum, place, pack))
        }
    }

    /// Adds up the rows of all ranks, in the order of packs.
    ///
    /// # Errors
    /// The loss is not finite, although that of every rank is.
    pub(super) fn folded(
        &self,
        divided: &Divided,
        rows: &[&TaskRow],
        readers: &mut [Reader<'_>],
    ) -> Result<Measured> {
        let metrics = self.objective.loss.metrics.len();
        let mut measured = Measured {
            loss: 0.0,
            metrics: vec![0.0; metrics],
            tokens: tokens(rows.iter().map(|row| &row.example)),
        };
        for BatchPack { packed, owner, .. } in &divided.packs {
            for _ in rows_of(packed) {
                measured.add(&readers[*owner].row(metrics)?);
            }
        }
        if !measured.loss.is_finite() {
            let Measured { loss, .. } = measured;
            return Err(diverged(format!("the loss of {} is {loss}", self.name)));
        }
        Ok(measured)
    }

    /// Loss and metrics of some rows, without a gradient. `progress` gets the number of rows done;
    /// its error ends the measurement.
    ///
    /// # Errors
    /// The error of `progress`, a loss is not finite, or a rank failed.
    pub fn measure(
        &self,
        place: &Place<'_>,
        rows: &[&TaskRow],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Measured> {
        let world = place.world;
        let mut shares = Shares::new(world.size());
        let divided = Divided::new(rows, place.token_budget, &mut shares, FORWARD);
        let mine = self.scored(place, &divided, rows, progress);
        let all = world.agree(mine)?;
        self.folded(&divided, rows, &mut readers(&all))
    }

    /// The losses of the rows in this rank's packs, as bytes.
    fn scored(
        &self,
        place: &Place<'_>,
        divided: &Divided,
        rows: &[&TaskRow],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let totals = Self::totals(rows);
        let (mut bytes, mut sum, mut done) = (Vec::new(), 0.0, 0);
        for BatchPack { packed, owner, .. } in &divided.packs {
            done += rows_of(packed).count();
            if *owner != place.world.rank() {
                continue;
            }
            let scores = place.decoder.score(&packed.pack, Some(place.adapter))?;
            let losses = self.losses(packed, rows, &scores, totals);
            self.add_rows(&losses, place, &packed.pack, &mut sum, &mut bytes)?;
            progress(done)?;
        }
        Ok(bytes)
    }

    /// Runs forward and backward pass of this rank's packs of the next batch. `each` gets the gradient of every pack, multiplied by
    /// `weight`, in `gradient`. Packs of a probed batch already have their forward passes, which are used up. Returns the losses of
    /// the rows, as bytes.
    pub(super) fn gradients(
        &self,
        place: &Place<'_>,
        divided: &mut Divided,
        weight: f64,
        gradient: &mut Vector,
        each: &mut dyn FnMut(usize, &Vector) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let Place {
            decoder, adapter, ..
        } = *place;
        let rows = self.next_batch();
        let totals = Self::totals(&rows);
        let (mut bytes, mut sum) = (Vec::new(), 0.0);
        for (index, BatchPack { packed, pass, .. }) in divided.of(place.world.rank()) {
            let pass = match pass.take() {
                Some(pass) => pass,
                None => {
                    let (scores, activations) = decoder.forward(&packed.pack, adapter)?;
                    Pass {
                        scores,
                        activations,
                    }
                }
            };
            let losses = self.losses(packed, &rows, &pass.scores, totals);
            self.add_rows(&losses, place, &packed.pack, &mut sum, &mut bytes)?;
            let mut slopes = vec![0.0; packed.pack.targets.len()];
            for (segments, row) in &losses {
                for segment in *segments {
                    slopes[segment.targets.clone()].fill(weight * row.slopes[segment.response]);
                }
            }
            let slopes = Slopes { logp: slopes };
            decoder.backward(&packed.pack, adapter, pass.activations, &slopes, gradient)?;
            each(index, gradient)?;
        }
        Ok(bytes)
    }

    pub(super) fn next_batch(&self) -> Vec<&TaskRow> {
        self.order
            .peek()
            .iter()
            .map(|&row| &self.train[row])
            .collect()
    }
}

/// The segments of every row of a pack.
fn rows_of(packed: &PackedRows) -> impl Iterator<Item = &[Segment]> {
    packed.segments.chunk_by(|a, b| a.example == b.example)
}

impl Measured {
    fn add(&mut self, row: &RowLoss) {
        self.loss += row.loss;
        for (sum, value) in self.metrics.iter_mut().zip(&row.metrics) {
            *sum += value;
        }
    }
}
