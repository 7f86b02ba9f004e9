//! NCCL, opened at run time. Bytes and values of the host travel through memory of the card. Calls
//! do not block, so that a rank that does not answer is noticed.
#![allow(
    unsafe_code,
    reason = "functions of a library that is opened at run time"
)]

mod address;
mod card;
mod find;
mod library;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use upright_base::Result;

use self::{
    card::Card,
    library::{Communicator, Operation},
};
use crate::{
    Ranks, block,
    launch::{Environment, Launch},
    patience::{DATA, Patience, VOTE},
};

pub(crate) use card::visible;
pub use find::library;

/// Bytes of all ranks in one operation: the memory that is taken from the card.
const LONG: usize = 1 << 25;

/// A rank among processes that each have a card of their own.
#[derive(Debug)]
pub struct Nccl {
    communicator: Communicator,
    name: String,
    rank: usize,
    size: usize,
    timeout: Duration,
    /// The lock keeps calls apart.
    card: Mutex<Card>,
    /// Whether a call failed, after which NCCL can only be aborted.
    has_failed: AtomicBool,
}

impl Nccl {
    /// Opens the library and connects the ranks. Without a launch there is one rank. A call fails if
    /// nothing happens for `timeout`.
    ///
    /// Sets `NCCL_COMM_ID` if it is not set, so no other thread may read the environment meanwhile
    /// except through the standard library.
    ///
    /// # Errors
    /// NCCL or the card is missing, the launcher does not say where rank 0 is, or a rank did not
    /// answer in time.
    pub fn open(launch: Option<&Launch>, timeout: Duration, env: Environment<'_>) -> Result<Self> {
        let library = find::open(env)?;
        let name = format!("NCCL {} ({})", library.version()?, library.path.display());
        let (rank, size) = launch.map_or((0, 1), |launch| (launch.rank, launch.size));
        let address = address::of(launch, env)?;
        let card = Card::open(launch.map_or(0, |launch| launch.card(visible())))?;
        // SAFETY: worlds are opened before the program starts threads that read the environment.
        unsafe { std::env::set_var("NCCL_COMM_ID", &address) };
        card.bind()?;
        let nccl = Self {
            communicator: Communicator::begin(library, rank, size)?,
            name,
            rank,
            size,
            timeout,
            card: Mutex::new(card),
            has_failed: AtomicBool::new(false),
        };
        let connected = nccl.until(VOTE, || nccl.communicator.is_settled());
        connected.map_err(|error| {
            nccl.has_failed.store(true, Ordering::SeqCst);
            error.at(format!("connecting {size} ranks at {address}"))
        })?;
        Ok(nccl)
    }

    /// Makes an operation on bytes of the host. Does nothing more after an error.
    fn operate(&self, bytes: &mut [u8], operation: Operation, patience: Patience) -> Result<()> {
        let mut card = self.card.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.try_operate(&mut card, bytes, operation, patience);
        if result.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
            self.communicator.abort();
            card.leak();
        }
        result
    }

    fn try_operate(
        &self,
        card: &mut Card,
        bytes: &mut [u8],
        operation: Operation,
        patience: Patience,
    ) -> Result<()> {
        card.bind()?;
        let memory = card.write(bytes)?;
        // SAFETY: the memory has the bytes of the operation, and is leaked if it does not end.
        unsafe {
            self.communicator
                .start(operation, self.rank, memory, card.stream())?;
        }
        // The operation reaches the stream only once it is settled.
        self.until(patience, || self.communicator.is_settled())?;
        self.until(patience, || {
            self.communicator.is_settled()?;
            card.is_done()
        })?;
        card.read(bytes)
    }

    /// Asks until the answer is yes.
    fn until(&self, patience: Patience, is_done: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !is_done()? {
            patience.pause(start.elapsed(), self.timeout)?;
        }
        Ok(())
    }

    /// Gathers equally many bytes of each rank.
    fn gather_equal(&self, mine: &[u8], patience: Patience) -> Result<Vec<u8>> {
        let mut all = vec![0; mine.len() * self.size];
        all[self.rank * mine.len()..][..mine.len()].copy_from_slice(mine);
        let operation = Operation::Gather { bytes: mine.len() };
        self.operate(&mut all, operation, patience)?;
        Ok(all)
    }
}

impl Ranks for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn library(&self) -> String {
        self.name.clone()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let blocks = self.gather_equal(&block::encode(mine), VOTE)?;
        let (lengths, mut all) = block::decode(&blocks);
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // The rest of all ranks, a part of each at a time, as long as the longest.
        let mut start = block::SHORT;
        while start < longest {
            let step = (LONG / self.size).min(longest - start);
            let part = |length: usize| length.clamp(start, start + step) - start;
            let mut own = mine[start.min(mine.len())..][..part(mine.len())].to_vec();
            own.resize(step, 0);
            let parts = self.gather_equal(&own, DATA)?;
            for (rank, theirs) in parts.chunks_exact(step).enumerate() {
                all[rank].extend_from_slice(&theirs[..part(lengths[rank])]);
            }
            start += step;
        }
        Ok(all)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_le_bytes();
        let operation = Operation::Broadcast { bytes: 8 };
        self.operate(&mut length, operation, VOTE)?;
        bytes.resize(block::length_of(&length), 0);
        for part in bytes.chunks_mut(LONG) {
            let operation = Operation::Broadcast { bytes: part.len() };
            self.operate(part, operation, DATA)?;
        }
        Ok(())
    }

    fn sum(&self, values: &mut [i64]) -> Result<()> {
        for part in values.chunks_mut(LONG / 8) {
            let operation = Operation::Sum { values: part.len() };
            self.operate(bytemuck::cast_slice_mut(part), operation, DATA)?;
        }
        Ok(())
    }

    fn abort(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
        self.communicator.abort();
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let is_finished = !self.has_failed.load(Ordering::SeqCst)
            && self.communicator.finish().is_ok()
            && self.until(VOTE, || self.communicator.is_settled()).is_ok();
        match is_finished {
            true => self.communicator.destroy(),
            false => self.communicator.abort(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    /// NCCL loads and makes ids without a card.
    #[test]
    fn ids_are_the_same_at_the_same_address() {
        let library = match find::open(&env) {
            Ok(library) => library,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let version = library.version().unwrap();
        assert!(version.starts_with("2."), "{version}");
        // SAFETY: the other tests read the environment through the standard library.
        unsafe { std::env::set_var("NCCL_COMM_ID", "127.0.0.1:61441") };
        let ids = [(); 2].map(|()| library.unique_id().unwrap());
        assert_eq!(ids[0], ids[1]);
        // SAFETY: as above.
        unsafe { std::env::set_var("NCCL_COMM_ID", "127.0.0.1:61442") };
        assert_ne!(library.unique_id().unwrap(), ids[0]);
    }

    #[test]
    fn a_machine_without_a_card_is_refused() {
        if visible() > 0 || find::open(&env).is_err() {
            return;
        }
        let error = Nccl::open(None, Duration::from_secs(1), &env).unwrap_err();
        assert_eq!(
            error.message,
            "--ranks nccl: this process sees 0 GPUs and needs GPU 0"
        );
        assert!(error.hint.contains("--ranks mpi"));
    }
}
