//! Ranks in one process, for tests: each is a handle that one thread holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use upright_base::{Error, Result};

use crate::Ranks;

/// What a rank does wrong on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call returns an error, and the rank takes part in no more calls.
    Error,
    /// The call panics.
    Panic,
    /// The call does not answer until all other ranks have ended.
    Silence,
}

/// A rank among threads. Dropping it makes the calls of the others fail.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
    /// Calls so far.
    calls: Mutex<usize>,
    fault: Option<(usize, Fault)>,
}

/// What all ranks share.
#[derive(Debug)]
struct Shared {
    size: usize,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Calls that not all ranks have returned from, by their number.
    rounds: BTreeMap<usize, Round>,
    /// Whether each rank has ended.
    ended: Vec<bool>,
}

/// One call of all ranks.
#[derive(Debug)]
struct Round {
    /// The bytes of each rank that has called.
    parts: Vec<Option<Vec<u8>>>,
    /// Ranks that have returned.
    returned: usize,
}

/// Opens `size` ranks. A call fails if a rank does not make it within `timeout`.
#[must_use]
pub fn threads(size: usize, timeout: Duration) -> Vec<Threads> {
    let shared = Arc::new(Shared {
        size,
        timeout,
        state: Mutex::new(State {
            rounds: BTreeMap::new(),
            ended: vec![false; size],
        }),
        changed: Condvar::new(),
    });
    let mut all = Vec::new();
    for rank in 0..size {
        all.push(Threads {
            rank,
            shared: Arc::clone(&shared),
            calls: Mutex::new(0),
            fault: None,
        });
    }
    all
}

impl Threads {
    /// Makes a call go wrong. Calls are counted from 0 and are those of the transport:
    /// [`World::new`](crate::World::new) makes one, a gather one, a broadcast and a sum two each.
    pub fn fail_at(&mut self, call: usize, fault: Fault) {
        self.fault = Some((call, fault));
    }

    /// Gives this rank's bytes to a call and returns those of all. A rank whose call fails has ended
    /// for the others.
    fn exchange(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let result = self.try_exchange(mine);
        if result.is_err() {
            self.abort();
        }
        result
    }

    fn try_exchange(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *calls;
        *calls += 1;
        if let Some((call, fault)) = self.fault
            && call == number
        {
            self.fail(number, fault)?;
        }
        let size = self.shared.size;
        let mut state = self.shared.lock();
        let round = state.rounds.entry(number).or_insert_with(|| Round {
            parts: vec![None; size],
            returned: 0,
        });
        round.parts[self.rank] = Some(mine.to_vec());
        self.shared.changed.notify_all();
        let deadline = Instant::now() + self.shared.timeout;
        loop {
            let missing = state.missing(number);
            if missing.is_empty() {
                return Ok(state.take(number, size));
            }
            if let Some(rank) = missing.iter().find(|rank| state.ended[**rank]) {
                return Err(Error::failure(format!(
                    "rank {rank} has ended before call {number}"
                )));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out(&missing, number));
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Does what was asked for. Returns if the call goes on.
    fn fail(&self, number: usize, fault: Fault) -> Result<()> {
        match fault {
            Fault::Error => {}
            Fault::Panic => panic!("rank {} panics at call {number}, as asked", self.rank),
            Fault::Silence => {
                let mut state = self.shared.lock();
                while state.other_is_there(self.rank) {
                    state = self.shared.wait(state, self.shared.timeout);
                }
            }
        }
        Err(Error::failure(format!(
            "rank {} fails at call {number}, as asked",
            self.rank
        )))
    }

    fn timed_out(&self, missing: &[usize], number: usize) -> Error {
        let names: Vec<String> = missing.iter().map(usize::to_string).collect();
        let seconds = self.shared.timeout.as_secs_f64();
        Error::failure(format!(
            "no answer in call {number} for {seconds} s from: rank {}",
            names.join(", rank ")
        ))
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn library(&self) -> String {
        "threads of one process".to_owned()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.exchange(mine)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let mine: &[u8] = if self.rank == 0 { bytes } else { &[] };
        let mut all = self.exchange(mine)?;
        *bytes = all.swap_remove(0);
        Ok(())
    }

    fn sum(&self, values: &mut [i64]) -> Result<()> {
        let all = self.exchange(bytemuck::cast_slice(values))?;
        values.fill(0);
        for bytes in &all {
            let (theirs, _) = bytes.as_chunks();
            for (value, their) in values.iter_mut().zip(theirs) {
                *value += i64::from_ne_bytes(*their);
            }
        }
        Ok(())
    }

    fn abort(&self) {
        self.shared.lock().ended[self.rank] = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, or for a time.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    /// The ranks that have not made a call.
    fn missing(&self, number: usize) -> Vec<usize> {
        let mut missing = Vec::new();
        for (rank, part) in self.rounds[&number].parts.iter().enumerate() {
            if part.is_none() {
                missing.push(rank);
            }
        }
        missing
    }

    /// The bytes of a call that all ranks have made. The last rank that takes them removes it.
    fn take(&mut self, number: usize, size: usize) -> Vec<Vec<u8>> {
        let Some(round) = self.rounds.get_mut(&number) else {
            return Vec::new();
        };
        round.returned += 1;
        let all = round.parts.iter().flatten().cloned().collect();
        if round.returned == size {
            self.rounds.remove(&number);
        }
        all
    }

    /// Whether another rank has not ended.
    fn other_is_there(&self, rank: usize) -> bool {
        let mut others = self.ended.iter().enumerate();
        others.any(|(other, has_ended)| other != rank && !has_ended)
    }
}
