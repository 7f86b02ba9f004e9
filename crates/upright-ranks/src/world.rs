//! All ranks, as one of them sees them: what a trainer holds.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use upright_base::{Error, ErrorKind, Result, progress::Stop};

use crate::{Ranks, alone::Alone, header, header::Call, verdict};

/// Longest time between two signs of life of a rank that works alone.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Signs of life that ranks still exchange after one of them has failed.
const ROUNDS_AFTER_FAILURE: usize = 12;

/// What a rank that works alone says of its work.
const RUNNING: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

/// All ranks. Every rank makes the same calls in the same order. Each call starts with a gather of
/// what every rank is about to do, so that ranks which disagree get an error instead of each
/// other's bytes.
///
/// After an error of the transport, or after calls that differ, every later call returns that error.
///
/// Dropping a world is a call too: it waits until the others drop theirs, or tells them that this
/// rank has ended if they call something else. A world that is dropped by a panic, or after an
/// error of the transport, ends all ranks at once, and maybe this process: report the error first.
#[derive(Debug)]
pub struct World {
    ranks: Box<dyn Ranks>,
    hosts: Vec<String>,
    library: String,
    state: Mutex<State>,
    waited_nanoseconds: AtomicU64,
}

/// What changes from call to call. Its lock is held during a call, so that calls of several threads
/// of a rank stay apart.
#[derive(Debug, Default)]
struct State {
    /// Calls so far.
    calls: u64,
    /// Why no more calls are made.
    broken: Option<Error>,
    /// Whether the transport failed, so that the others cannot be told anything.
    has_failed: bool,
    /// Whether every rank has got the error of one of them.
    is_agreed: bool,
}

impl World {
    /// A world of one rank. Its calls do nothing.
    #[must_use]
    pub fn alone() -> Self {
        Self::with(Box::new(Alone), vec![host()])
    }

    /// A world over a transport. Every rank calls this; it gathers the names of the hosts.
    ///
    /// # Errors
    /// A rank has ended or did not answer in time, or ranks do not agree on what they call.
    pub fn new(ranks: Box<dyn Ranks>) -> Result<Self> {
        let mut world = Self::with(ranks, Vec::new());
        let all = match world.exchange(Call::Hosts, host().as_bytes()) {
            Ok(all) => all,
            Err(error) => {
                // Dropping it could end the process before the error is reported.
                std::mem::forget(world);
                return Err(error);
            }
        };
        let mut hosts = Vec::new();
        for bytes in all {
            hosts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        world.hosts = hosts;
        Ok(world)
    }

    fn with(ranks: Box<dyn Ranks>, hosts: Vec<String>) -> Self {
        Self {
            library: ranks.library(),
            ranks,
            hosts,
            state: Mutex::default(),
            waited_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Number of this rank, below [`size`](Self::size).
    #[must_use]
    pub fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// Number of ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.ranks.size()
    }

    /// Whether this is rank 0, the one that prints and writes files.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Name of the machine that a rank runs on.
    #[must_use]
    pub fn host(&self, rank: usize) -> &str {
        self.hosts.get(rank).map_or("", String::as_str)
    }

    /// Number of ranks on this machine, by the name of the host.
    #[must_use]
    pub fn ranks_here(&self) -> usize {
        let here = self.host(self.rank());
        let same = self.hosts.iter().filter(|host| *host == here);
        same.count().max(1)
    }

    /// The library that carries the calls and its version.
    #[must_use]
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Seconds this rank has spent in calls so far, waiting for others and moving bytes.
    #[must_use]
    pub fn waited_seconds(&self) -> f64 {
        self.waited_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// Returns the bytes of every rank, in order of rank, on every rank. Lengths may differ.
    ///
    /// # Errors
    /// A rank has ended, did not answer in time, or called something else.
    pub fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.exchange(Call::Gather, mine)
    }

    /// Replaces `bytes` on every rank with those of rank 0.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    pub fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut state = self.state();
        self.exchange_in(&mut state, Call::Broadcast, &[])?;
        self.timed(&mut state, || self.ranks.broadcast(bytes))
    }

    /// Replaces each value by its sum over all ranks. The caller keeps values so small that no sum
    /// overflows.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather), or ranks have different numbers of values.
    pub fn sum(&self, values: &mut [i64]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut state = self.state();
        let call = Call::Sum(values.len() as u64);
        self.exchange_in(&mut state, call, &[])?;
        self.timed(&mut state, || self.ranks.sum(values))
    }

    /// Tells every rank whether all succeeded. If they did, returns their payloads in order of
    /// rank. Otherwise every rank gets the same error: that of the lowest rank that failed. It
    /// keeps its kind and hint, and its message says which rank failed and on which host, unless a
    /// stop was requested.
    ///
    /// # Errors
    /// A rank failed, or as for [`gather`](Self::gather).
    pub fn agree(&self, mine: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        if self.size() == 1 {
            return Ok(vec![mine?]);
        }
        let mut bytes = Vec::new();
        verdict::encode(&mine, &mut bytes);
        let all = match (self.exchange(Call::Agree, &bytes), mine) {
            (Ok(all), _) => all,
            // The others cannot be told. This rank's own error is closer to the cause.
            (Err(_), Err(mine)) => return Err(self.placed(self.rank(), mine)),
            (Err(error), Ok(_)) => return Err(error),
        };
        let mut payloads = Vec::new();
        let mut errors = Vec::new();
        for (rank, bytes) in all.iter().enumerate() {
            match verdict::decode(bytes) {
                Some(Ok(payload)) => payloads.push(payload),
                Some(Err(error)) => errors.push((rank, error)),
                None => errors.push((rank, Error::failure("its answer cannot be read"))),
            }
        }
        self.state().is_agreed = !errors.is_empty();
        let Some((rank, first)) = errors.first() else {
            return Ok(payloads);
        };
        // What every rank finds, such as a file that is missing everywhere, is no matter of a rank.
        let is_first = |(_, error): &(usize, Error)| error.message == first.message;
        if errors.len() == self.size() && errors.iter().all(is_first) {
            return Err(first.clone());
        }
        Err(self.placed(*rank, first.clone()))
    }

    /// The bytes that rank 0 computes, on every rank.
    ///
    /// # Errors
    /// Those of the work, or as for [`agree`](Self::agree).
    pub fn first(&self, work: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mine = if self.is_first() {
            work()
        } else {
            Ok(Vec::new())
        };
        Ok(self.agree(mine)?.swap_remove(0))
    }

    /// Ends a piece of work that every rank did: tells the others of an error that this rank alone has. They get it in the call that
    /// they make next, whichever it is.
    ///
    /// # Errors
    /// This rank or another one failed.
    pub fn settle<T>(&self, result: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return result;
        }
        let is_known = {
            let state = self.state();
            state.is_agreed || state.broken.is_some()
        };
        match result {
            Err(error) if is_known => Err(error),
            Err(error) => {
                self.agree(Err(error.clone()))?;
                Err(error)
            }
            Ok(value) => {
                self.agree(Ok(Vec::new()))?;
                Ok(value)
            }
        }
    }

    /// Does work that may take longer than ranks wait for an answer, such as a download: they tell each other that they are still at it.
    /// Returns when every rank is done. The work gets a request to stop, which is made when another rank has failed.
    ///
    /// # Errors
    /// The work failed on a rank, or as for [`gather`](Self::gather).
    ///
    /// # Panics
    /// If the work panics.
    pub fn slowly<T: Send>(&self, work: impl FnOnce(&Stop) -> Result<T> + Send) -> Result<T> {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Stop::flag(&is_over);
        if self.size() == 1 {
            return work(&stop);
        }
        std::thread::scope(|scope| {
            let mut running = Some(scope.spawn(|| work(&stop)));
            let mut done = None;
            let mut pause = Duration::from_millis(1);
            let mut failed_rounds = 0;
            loop {
                if let Some(thread) = running.take_if(|thread| thread.is_finished()) {
                    let result = thread.join();
                    done = Some(result.unwrap_or_else(|panic| resume_unwind(panic)));
                }
                let flag = match &done {
                    None => RUNNING,
                    Some(Ok(_)) => DONE,
                    Some(Err(_)) => FAILED,
                };
                let flags = self.agree(Ok(vec![flag])).inspect_err(|_| {
                    is_over.store(true, Ordering::Relaxed);
                })?;
                let has = |flag: u8| flags.iter().any(|flags| flags == &[flag]);
                // Ranks that are about to fail alike get the time to do so.
                failed_rounds += usize::from(has(FAILED));
                if !has(RUNNING) || failed_rounds > ROUNDS_AFTER_FAILURE {
                    break;
                }
                std::thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
            is_over.store(true, Ordering::Relaxed);
            match done {
                Some(result) => self.settle(result),
                // Another rank has failed, and tells its error now.
                None => {
                    self.agree(Ok(Vec::new()))?;
                    Err(Error::failure("another rank failed"))
                }
            }
        })
    }

    /// Whether every rank has got the error of one of them, in the last [`agree`](Self::agree).
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        self.state().is_agreed
    }

    /// Whether the transport failed, or ranks made different calls.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state().broken.is_some()
    }

    /// Number of ranks below this one on this machine, by the name of the host.
    #[must_use]
    pub fn index_here(&self) -> usize {
        let here = self.host(self.rank());
        let before = self.hosts[..self.rank()].iter();
        before.filter(|host| *host == here).count()
    }

    /// Checks that all ranks have the same bytes. `what` names them in the message: "base model".
    ///
    /// # Errors
    /// A rank has other bytes than rank 0; the message names the first. Or as for
    /// [`gather`](Self::gather).
    pub fn same(&self, what: &str, bytes: &[u8]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let all = self.exchange(Call::Same, bytes)?;
        for (rank, bytes) in all.iter().enumerate() {
            if *bytes != all[0] {
                let (here, first) = (self.place(rank), self.place(0));
                return Err(
                    Error::input(format!("{here} has another {what} than {first}"))
                        .hint("start all ranks with the same program, arguments and files"),
                );
            }
        }
        Ok(())
    }

    /// Gathers bytes, after a check that every rank makes this call.
    fn exchange(&self, call: Call, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.size() == 1 {
            return Ok(vec![mine.to_vec()]);
        }
        self.exchange_in(&mut self.state(), call, mine)
    }

    fn exchange_in(&self, state: &mut State, call: Call, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut bytes = header::encode(call, state.calls);
        bytes.extend_from_slice(mine);
        state.calls += 1;
        let mut all = self.timed(state, || self.ranks.gather(&bytes))?;
        for rank in 0..all.len() {
            if header::of(&all[rank]) != header::of(&all[0]) {
                let told = self.told(&all);
                // Rank 0 tells what all have found, unless it has ended.
                state.is_agreed = told.is_some() || !header::is_end(&all[0]);
                let error = told.unwrap_or_else(|| self.differs(rank, &all));
                state.broken = Some(error.clone());
                return Err(error);
            }
        }
        for bytes in &mut all {
            bytes.drain(..header::LENGTH);
        }
        Ok(all)
    }

    /// Makes a call of the transport. Counts its time, and remembers its error.
    fn timed<T>(&self, state: &mut State, call: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        let start = Instant::now();
        let result = call();
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited_nanoseconds
            .fetch_add(nanoseconds, Ordering::Relaxed);
        if let Err(error) = &result {
            state.broken = Some(error.clone());
            state.has_failed = true;
        }
        result
    }

    /// The error of the first rank that reports one while others call something else.
    fn told(&self, all: &[Vec<u8>]) -> Option<Error> {
        for (rank, bytes) in all.iter().enumerate() {
            if header::is_agree(bytes)
                && let Some(Err(error)) = verdict::decode(&bytes[header::LENGTH..])
            {
                return Some(self.placed(rank, error));
            }
        }
        None
    }

    /// The error about a rank whose call differs from that of rank 0.
    fn differs(&self, rank: usize, all: &[Vec<u8>]) -> Error {
        let [called, first] = [&all[rank], &all[0]].map(|bytes| header::describe(bytes));
        let (here, there) = (self.place(rank), self.place(0));
        Error::failure(format!("{here} {called}, but {there} {first}"))
            .hint("see what that rank says; start all ranks with the same program and arguments")
    }

    /// An error with the rank and host where it happened in front, unless a stop was requested.
    fn placed(&self, rank: usize, error: Error) -> Error {
        match error.kind {
            ErrorKind::Interrupted => error,
            ErrorKind::Input | ErrorKind::Failure => error.at(self.place(rank)),
        }
    }

    /// A rank and its host, for messages: `rank 1 on node7`.
    #[must_use]
    pub fn place(&self, rank: usize) -> String {
        match self.host(rank) {
            "" => format!("rank {rank}"),
            host => format!("rank {rank} on {host}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.size() == 1 {
            return;
        }
        if self.state().broken.is_none() && !std::thread::panicking() {
            // An error is remembered in the state.
            let _ = self.exchange(Call::End, &[]);
        }
        if self.state().has_failed || std::thread::panicking() {
            self.ranks.abort();
        }
    }
}

/// Name of this machine.
fn host() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
