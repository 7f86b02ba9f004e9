//! Several processes that train as one, on one machine or on many. Each process is a *rank*. The
//! crate moves bytes between ranks and adds up integers over them. It knows nothing of training.
//!
//! | module | purpose |
//! |---|---|
//! | [`World`] | all ranks, as one of them sees them: what a trainer holds |
//! | [`Ranks`] | the trait that a transport implements |
//! | [`threads`](mod@threads) | ranks in one process, with faults on demand, for tests |
//! | [`mpi`] | MPI, opened at run time |
//! | [`nccl`] | NCCL, opened at run time |
//! | [`launch`] | rank and size, from the environment variables of launchers |
//! | [`open`](mod@open) | chooses a transport and opens it |
//!
//! ```
//! use std::time::Duration;
//! use upright_ranks::{World, threads::threads};
//!
//! # fn main() -> upright_base::Result<()> {
//! let all = threads(2, Duration::from_secs(10));
//! let mut running = Vec::new();
//! for ranks in all {
//!     running.push(std::thread::spawn(move || {
//!         let world = World::new(Box::new(ranks))?;
//!         let mut values = [1, i64::try_from(world.rank()).unwrap()];
//!         world.sum(&mut values)?;
//!         Ok::<_, upright_base::Error>(values)
//!     }));
//! }
//! for thread in running {
//!     assert_eq!(thread.join().unwrap()?, [2, 1]);
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files directly")
)]

mod alone;
mod block;
mod functions;
mod header;
pub mod launch;
pub mod mpi;
pub mod nccl;
pub mod open;
mod patience;
mod slurm;
#[cfg(test)]
mod tests;
pub mod threads;
mod verdict;
mod world;

use upright_base::Result;

pub use open::{Choice, open};
pub use world::World;

/// What carries bytes and sums between ranks. Every rank makes the same calls in the same order;
/// [`World`] checks that they do.
pub trait Ranks: Send + Sync + std::fmt::Debug {
    /// Number of this rank, below [`size`](Self::size).
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// The library that carries the calls and its version, for messages.
    fn library(&self) -> String;

    /// Returns the bytes of every rank, in order of rank, on every rank. Lengths may differ and may
    /// be 0.
    ///
    /// # Errors
    /// A rank has ended or did not answer in time, or the library failed.
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Replaces `bytes` on every rank with those of rank 0.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;

    /// Replaces each value by its sum over all ranks. All ranks have equally many values, and the
    /// caller keeps them so small that no sum overflows.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    fn sum(&self, values: &mut [i64]) -> Result<()>;

    /// Ends all ranks at once where the transport can, without a message from them. For after a
    /// panic or an error of the transport. It may end this process too.
    fn abort(&self);
}
