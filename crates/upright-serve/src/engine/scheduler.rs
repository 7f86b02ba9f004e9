//! The loop of the engine's thread. In every round some waiting prompts are computed in one pass, and
//! every live sequence gets one token. No bit of an answer depends on what else is in a round.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
};

use tokio::sync::OwnedSemaphorePermit;
use upright_engine::{
    Decoder, Generation,
    generation::{Following, Next, Prompt, SequenceId, Want},
};

use super::{
    BASE, Command, Event, Finish, Generated, Job, Limits,
    prefixes::{Known, Prefix, Prefixes, common},
};
use crate::{metrics::Metrics, protocol::error::ApiError};

/// Tokens of prompts that a pass computes while other sequences wait for their next token.
const BETWEEN_TOKENS: usize = 512;

/// Least tokens of a prompt that is kept.
const KEPT: usize = 32;

/// A sequence in generation.
struct Live {
    job: Job,
    sequence: SequenceId,
    /// Its next-token prediction.
    next: Next,
    /// The token that was chosen from it; `None` if the answer has ended.
    token: Option<u32>,
    /// Tokens of the answer so far.
    generated: usize,
    /// What follows each token of the prompt but the last, if the prompt was scored.
    following: Vec<Following>,
    /// Bytes that the sequence may grow to.
    reserved: usize,
}

/// A prompt that is about to be computed.
struct Admitted {
    job: Job,
    known: Option<Known>,
    /// Bytes that its sequence may grow to; 0 if the answer has at most one token.
    reserved: usize,
}

/// The base or an adapter, with its sequences.
struct Loaded<'a> {
    generation: Generation<'a>,
    /// The room that an adapter takes.
    _room: Option<OwnedSemaphorePermit>,
}

struct Scheduler<'a> {
    decoder: &'a Decoder,
    /// All models by their numbers.
    models: BTreeMap<u64, Loaded<'a>>,
    waiting: VecDeque<Job>,
    live: Vec<Live>,
    prefixes: Prefixes,
    limits: Limits,
    metrics: &'a Metrics,
}

/// Obeys commands until every sender is gone.
pub(super) fn run(
    decoder: &Decoder,
    limits: Limits,
    commands: &Receiver<Command>,
    waiting: &AtomicUsize,
    metrics: &Metrics,
) {
    // The limit of memory holds for all sequences together, so it is enforced here.
    let base = Loaded {
        generation: decoder.generation(None, Some(usize::MAX)),
        _room: None,
    };
    let mut scheduler = Scheduler {
        decoder,
        models: BTreeMap::from([(BASE, base)]),
        waiting: VecDeque::new(),
        live: Vec::new(),
        prefixes: Prefixes::default(),
        limits,
        metrics,
    };
    loop {
        if scheduler.waiting.is_empty() && scheduler.live.is_empty() {
            match commands.recv() {
                Ok(command) => scheduler.obey(command),
                Err(_) => return,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => scheduler.obey(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let before = scheduler.waiting.len();
        scheduler.round();
        let started = before - scheduler.waiting.len();
        waiting.fetch_sub(started, Ordering::Relaxed);
        metrics.queue.set(scheduler.waiting.len() as i64);
        metrics.live.set(scheduler.live.len() as i64);
        metrics.cache_bytes.set(scheduler.used() as i64);
        metrics.adapters.set(scheduler.models.len() as i64 - 1);
    }
}

/// Whether anybody still waits for a job's answer.
fn is_wanted(job: &Job) -> bool {
    !job.events.is_closed()
}

impl<'a> Scheduler<'a> {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Answer(jobs) => self.waiting.extend(jobs),
            Command::Add {
                number,
                adapter,
                room,
            } => {
                let limit = Some(usize::MAX);
                let generation = self.decoder.generation_owning(adapter, limit);
                let loaded = Loaded {
                    generation,
                    _room: Some(room),
                };
                self.models.insert(number, loaded);
            }
            Command::Remove(number) => {
                self.prefixes.forget(number);
                self.models.remove(&number);
            }
        }
    }

    /// The sequences of a model. A model stays while a job or a kept prompt of it does.
    fn generation(&mut self, model: u64) -> &mut Generation<'a> {
        let loaded = self.models.get_mut(&model);
        &mut loaded.expect("a model that was added").generation
    }

    /// Bytes that live sequences may grow to, and those of kept prompts.
    fn used(&self) -> usize {
        let live: usize = self.live.iter().map(|live| live.reserved).sum();
        live + self.prefixes.bytes()
    }

    fn round(&mut self) {
        self.waiting.retain(is_wanted);
        let has_left = |live: &mut Live| !is_wanted(&live.job);
        let left: Vec<Live> = self.live.extract_if(.., has_left).collect();
        for live in left {
            self.retire(live);
        }
        let admitted = self.admit();
        if !admitted.is_empty() {
            self.compute(admitted);
        }
        self.choose();
        self.advance();
    }

    /// Removes the kept prompt that was used longest ago. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let Some(oldest) = self.prefixes.evict() else {
            return false;
        };
        self.generation(oldest.model).leave(oldest.sequence);
        true
    }

    /// Takes the waiting prompts of the next pass: in order, of one model, all scored or none, within
    /// the token budget and the limit of memory.
    fn admit(&mut self) -> Vec<Admitted> {
        let mut admitted: Vec<Admitted> = Vec::new();
        let budget = if self.live.is_empty() {
            self.limits.token_budget
        } else {
            self.limits.token_budget.min(BETWEEN_TOKENS)
        };
        let mut tokens = 0;
        let mut reserved = 0;
        while let Some(job) = self.waiting.front() {
            let is_other = |first: &Admitted| {
                first.job.number() != job.number()
                    || first.job.score.is_some() != job.score.is_some()
            };
            if admitted.first().is_some_and(is_other) {
                break;
            }
            let known = self.prefixes.find(job.number(), &job.prompt, job.score);
            let mut shared = known.as_ref().map_or(0, |known| known.tokens);
            if let Some(previous) = admitted.last() {
                shared = shared.max(common(&previous.job.prompt, &job.prompt));
            }
            let new = job.prompt.len().saturating_sub(shared).max(1);
            if !admitted.is_empty() && tokens + new > budget {
                break;
            }
            let own = if job.sampling.max_tokens > 1 {
                let most = job.prompt.len() + job.sampling.max_tokens;
                self.models[&job.number()].generation.bytes_of(most)
            } else {
                0
            };
            // Kept prompts make room, the one used longest ago first. Those that this pass uses were
            // used last.
            let mut fits = self.used() + reserved + own <= self.limits.memory;
            while !fits {
                let is_used = |sequence: SequenceId| {
                    let others = admitted.iter().filter_map(|one| one.known.as_ref());
                    others.chain(&known).any(|known| known.sequence == sequence)
                };
                if self.prefixes.oldest().is_none_or(is_used) {
                    break;
                }
                self.evict();
                fits = self.used() + reserved + own <= self.limits.memory;
            }
            let is_alone = self.live.is_empty() && admitted.is_empty();
            if !fits && !is_alone {
                break;
            }
            let job = self.waiting.pop_front().expect("the queue has a front");
            tokens += new;
            reserved += own;
            admitted.push(Admitted {
                job,
                known,
                reserved: own,
            });
        }
        admitted
    }

    /// Computes prompts of one model in one pass.
    fn compute(&mut self, admitted: Vec<Admitted>) {
        let model = admitted[0].job.number();
        let mut best = None;
        let mut want = Want::Best(1);
        let last = admitted.len() - 1;
        let mut prompts = Vec::with_capacity(admitted.len());
        let mut computed = 0;
        for (index, Admitted { job, known, .. }) in admitted.iter().enumerate() {
            best = best.max(job.score);
            want = wider(want, wanted(job));
            let tokens = known.as_ref().map_or(0, |known| known.tokens);
            computed += job.prompt.len() - tokens;
            prompts.push(Prompt {
                tokens: &job.prompt,
                after: known.as_ref().map(|known| (known.sequence, tokens)),
                keep: job.sampling.max_tokens > 1 || index == last && job.prompt.len() >= KEPT,
            });
        }
        let readings = match self.generation(model).read(&prompts, best, want) {
            Ok(readings) => readings,
            Err(error) => {
                let error = ApiError::failure(error.to_string());
                for Admitted { job, .. } in admitted {
                    let _ = job.events.send(Event::Failed(error.clone()));
                }
                return;
            }
        };
        self.metrics.computed_tokens.inc_by(computed as u64);
        for (one, reading) in admitted.into_iter().zip(readings) {
            let Admitted {
                job,
                known,
                reserved,
            } = one;
            self.metrics.prompt_tokens.inc_by(job.prompt.len() as u64);
            let mut following = Vec::new();
            let mut is_finite = true;
            if let Some(score) = job.score {
                following = known.map_or_else(Vec::new, |known| known.following);
                following.extend(reading.following);
                for one in &mut following {
                    one.best.truncate(score);
                    is_finite &= !one.logp.is_nan();
                }
                if is_finite {
                    let _ = job.events.send(Event::Prompt(following.clone()));
                }
            }
            if !is_finite {
                let _ = job.events.send(Event::Failed(not_finite()));
                if let Some(sequence) = reading.sequence {
                    self.generation(model).leave(sequence);
                }
                continue;
            }
            if job.sampling.max_tokens == 0 {
                let _ = job.events.send(Event::Done(Finish::Length));
                self.keep(job, reading.sequence, following);
                continue;
            }
            if job.sampling.max_tokens == 1 {
                self.choose_one(&job, &reading.next, 0);
                self.keep(job, reading.sequence, following);
                continue;
            }
            self.live.push(Live {
                job,
                sequence: reading.sequence.expect("kept above"),
                next: reading.next,
                token: None,
                generated: 0,
                following,
                reserved,
            });
        }
    }

    /// Chooses the next token of an answer that has `generated` tokens, and tells the client.
    /// Returns the token if the answer goes on.
    fn choose_one(&self, job: &Job, next: &Next, generated: usize) -> Option<u32> {
        let token = job.sampling.choose(next, job.answer, generated);
        let logp = next.logp(token);
        if logp.is_nan() {
            let _ = job.events.send(Event::Failed(not_finite()));
            return None;
        }
        let generated_token = Generated {
            token,
            logp,
            best: next.candidates(job.candidates.unwrap_or(0)),
        };
        self.metrics.generated_tokens.inc();
        let _ = job.events.send(Event::Token(generated_token));
        let finish = if job.ends.contains(&token) {
            Finish::Stop
        } else if generated + 1 == job.sampling.max_tokens {
            Finish::Length
        } else {
            return Some(token);
        };
        let _ = job.events.send(Event::Done(finish));
        None
    }

    /// Gives every live sequence its next token. Answers that end leave.
    fn choose(&mut self) {
        for index in 0..self.live.len() {
            let live = &self.live[index];
            let token = self.choose_one(&live.job, &live.next, live.generated);
            let live = &mut self.live[index];
            live.token = token;
            live.generated += 1;
        }
        let has_ended = |live: &mut Live| live.token.is_none();
        let ended: Vec<Live> = self.live.extract_if(.., has_ended).collect();
        for live in ended {
            self.retire(live);
        }
    }

    /// Computes the predictions after the tokens that were just chosen, one pass per model.
    fn advance(&mut self) {
        let models: Vec<u64> = self.models.keys().copied().collect();
        for model in models {
            let mut chosen = Vec::new();
            let mut want = Want::Best(1);
            for (index, live) in self.live.iter().enumerate() {
                let Some(token) = live.token.filter(|_| live.job.number() == model) else {
                    continue;
                };
                chosen.push((index, live.sequence, [token]));
                want = wider(want, wanted(&live.job));
            }
            let mut tokens: Vec<(SequenceId, &[u32])> = Vec::with_capacity(chosen.len());
            for (_, sequence, token) in &chosen {
                tokens.push((*sequence, token));
            }
            match self.generation(model).advance(&tokens, want) {
                Ok(next) => {
                    for ((index, _, _), next) in chosen.iter().zip(next) {
                        self.live[*index].next = next;
                    }
                }
                Err(error) => {
                    let error = ApiError::failure(error.to_string());
                    let of_model = |live: &mut Live| live.job.number() == model;
                    let failed: Vec<Live> = self.live.extract_if(.., of_model).collect();
                    for live in failed {
                        let _ = live.job.events.send(Event::Failed(error.clone()));
                        self.generation(model).leave(live.sequence);
                    }
                }
            }
        }
    }

    /// Ends a sequence. Its prompt stays if there is room.
    fn retire(&mut self, live: Live) {
        self.keep(live.job, Some(live.sequence), live.following);
    }

    /// Keeps the prompt of a job, if it has a sequence and fits into half of the memory.
    fn keep(&mut self, job: Job, sequence: Option<SequenceId>, following: Vec<Following>) {
        let Some(sequence) = sequence else {
            return;
        };
        let model = job.number();
        let half = self.limits.memory / 2;
        let generation = self.generation(model);
        let length = generation.length(sequence).unwrap_or(0);
        let bytes = generation.bytes_of(length);
        if job.prompt.len() < KEPT || bytes > half {
            generation.leave(sequence);
            return;
        }
        while self.prefixes.bytes() + bytes > half || self.used() + bytes > self.limits.memory {
            if !self.evict() {
                break;
            }
        }
        if self.used() + bytes > self.limits.memory {
            self.generation(model).leave(sequence);
            return;
        }
        let gone = self.prefixes.keep(Prefix {
            model,
            sequence,
            tokens: job.prompt.to_vec(),
            following,
            score: job.score,
            bytes,
        });
        for prefix in gone {
            self.generation(prefix.model).leave(prefix.sequence);
        }
    }
}

/// What a job needs of a prediction: logits if tokens are drawn or log-probabilities are requested.
fn wanted(job: &Job) -> Want {
    if job.sampling.temperature > 0.0 || job.candidates.is_some() {
        Want::Logits
    } else {
        Want::Best(1)
    }
}

/// A prediction that serves both.
fn wider(a: Want, b: Want) -> Want {
    if a == b { a } else { Want::Logits }
}

fn not_finite() -> ApiError {
    ApiError::failure("a log-probability is not finite; check the model and the adapter")
}
