//! The engine's thread: it owns the sequences, and answers jobs that connections send.
//!
//! | module | purpose |
//! |---|---|
//! | `scheduler` | which prompts are computed next, and one token for every live sequence |
//! | `prefixes` | prompts whose keys and values are kept |

mod prefixes;
mod scheduler;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc,
};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedSender};
use upright_base::{Error, Result};
use upright_engine::{
    DeviceAdapter,
    generation::{Candidate, Following},
};
use upright_train::{generate::Sampling, run::Model};

use crate::{metrics::Metrics, protocol::error::ApiError};

/// The number of the base.
const BASE: u64 = 0;

/// A model of the engine's thread. Whoever may still send a job for the model holds its handle, and so
/// does every job. The thread frees an adapter, with the prompts that it keeps of it, when the last
/// holder has dropped the handle.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Identifies the model. No adapter gets the number of an earlier one, whatever its name.
    number: u64,
    commands: mpsc::Sender<Command>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A thread that has ended has freed everything.
        let _ = self.commands.send(Command::Remove(self.number));
    }
}

/// What the engine's thread is told.
enum Command {
    /// Answer these jobs.
    Answer(Vec<Job>),
    /// Add an adapter. No job for it was sent yet.
    Add {
        number: u64,
        adapter: DeviceAdapter,
        /// Given back when the adapter is freed.
        room: OwnedSemaphorePermit,
    },
    /// Remove a model. No job for it is left, and none will be sent.
    Remove(u64),
}

/// One answer to one prompt.
#[derive(Debug)]
pub(crate) struct Job {
    /// The base or an adapter.
    pub(crate) model: Arc<Handle>,
    /// The prompt, at least one token.
    pub(crate) prompt: Arc<[u32]>,
    /// Candidates per token of the prompt, if its log-probabilities are requested.
    pub(crate) score: Option<usize>,
    /// How tokens are chosen, and how many.
    pub(crate) sampling: Sampling,
    /// Number of the answer among the answers to its prompt.
    pub(crate) answer: usize,
    /// Tokens that end the answer.
    pub(crate) ends: Arc<[u32]>,
    /// Candidates per token of the answer, if its log-probabilities are requested.
    pub(crate) candidates: Option<usize>,
    /// Where events go. The job ends when the receiver is dropped.
    pub(crate) events: UnboundedSender<Event>,
}

impl Job {
    /// The number of the model.
    fn number(&self) -> u64 {
        self.model.number
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Event {
    /// What follows each token of the prompt but the last.
    Prompt(Vec<Following>),
    /// A token of the answer.
    Token(Generated),
    /// The answer is complete.
    Done(Finish),
    /// The answer cannot be completed.
    Failed(ApiError),
}

/// A token of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    /// Token id.
    pub(crate) token: u32,
    /// Log-probability in nats, before the temperature.
    pub(crate) logp: f64,
    /// As many of the most likely tokens as were requested.
    pub(crate) best: Vec<Candidate>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// An end token, which was the last token, or a stop text.
    Stop,
    /// The maximum number of tokens.
    Length,
}

impl Finish {
    /// The name in answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Limits of the engine's thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of all key-value caches.
    pub(crate) memory: usize,
    /// Tokens of prompts that one pass computes.
    pub(crate) token_budget: usize,
    /// Prompts that wait.
    pub(crate) queue: usize,
}

/// The sending side of the engine's thread.
#[derive(Debug)]
pub(crate) struct Engine {
    commands: mpsc::Sender<Command>,
    base: Arc<Handle>,
    /// Number of the next adapter.
    next: AtomicU64,
    /// Jobs that were sent and have not started.
    waiting: Arc<AtomicUsize>,
    limits: Limits,
    /// Bytes of a sequence's cache, per token.
    bytes_per_token: usize,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Sends jobs, all or none.
    ///
    /// # Errors
    /// The queue is full, or the thread has ended.
    pub(crate) fn send(&self, jobs: Vec<Job>) -> std::result::Result<(), ApiError> {
        let count = jobs.len();
        let limit = self.limits.queue;
        let admit = |waiting: usize| {
            let total = waiting + count;
            (total <= limit).then_some(total)
        };
        if self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_err()
        {
            return Err(ApiError::busy(limit));
        }
        let command = Command::Answer(jobs);
        self.commands.send(command).map_err(|_| stopped())
    }

    /// The base.
    pub(crate) fn base(&self) -> Arc<Handle> {
        Arc::clone(&self.base)
    }

    /// Adds an adapter. `room` is given back when it is freed.
    pub(crate) fn add(&self, adapter: DeviceAdapter, room: OwnedSemaphorePermit) -> Arc<Handle> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Jobs for a thread that has ended fail when they are sent.
        let _ = self.commands.send(Command::Add {
            number,
            adapter,
            room,
        });
        Arc::new(Handle {
            number,
            commands: self.commands.clone(),
        })
    }

    /// Whether the thread still runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Prompts that a request may have.
    pub(crate) fn most_jobs(&self) -> usize {
        self.limits.queue
    }

    /// Tokens that a sequence may have within the limit of memory.
    pub(crate) fn most_tokens(&self) -> usize {
        self.limits.memory / self.bytes_per_token.max(1)
    }
}

/// The error of a thread that has ended.
pub(crate) fn stopped() -> ApiError {
    ApiError::failure("the engine has stopped; restart the server")
}

/// Starts the engine's thread.
///
/// # Errors
/// The system cannot start the thread.
pub(crate) fn start(model: Arc<Model>, limits: Limits, metrics: Arc<Metrics>) -> Result<Engine> {
    let (commands, received) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let tokens = 1024;
    let bytes_per_token = model.decoder.generation(None, None).bytes_of(tokens) / tokens;
    let started = Arc::clone(&waiting);
    let thread = std::thread::Builder::new()
        .name("scheduler".into())
        .spawn(move || {
            scheduler::run(&model.decoder, limits, &received, &started, &metrics);
        })
        .map_err(|error| Error::failure(format!("cannot start a thread: {error}")))?;
    let base = Arc::new(Handle {
        number: BASE,
        commands: commands.clone(),
    });
    Ok(Engine {
        commands,
        base,
        next: AtomicU64::new(BASE + 1),
        waiting,
        limits,
        bytes_per_token,
        thread,
    })
}
