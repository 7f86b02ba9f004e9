//! MPI, opened at run time: no header, no link, and a program that starts without it. One of three
//! binary interfaces is chosen when a library is opened. Calls do not block, so that a rank that
//! does not answer is noticed.
#![allow(
    unsafe_code,
    reason = "functions of a library that is opened at run time"
)]

mod abi;
mod find;
mod library;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use upright_base::{Error, Result};

pub use find::{Found, libraries};

use crate::{
    Ranks, block,
    launch::{Environment, Launch, Launcher},
    patience::{DATA, Patience, VOTE},
};
use library::{Library, Pending};

/// Values of a sum in one call. Its staging memory is 32 MiB.
const SLICE: usize = 1 << 22;

/// Bytes of all ranks in one call, below the largest `int`.
const LONG: usize = 1 << 30;

/// Whether MPI was started: a process can start it once.
static STARTED: AtomicBool = AtomicBool::new(false);

/// A rank among processes of MPI.
#[derive(Debug)]
pub struct Mpi {
    library: Library,
    name: String,
    rank: usize,
    size: usize,
    timeout: Duration,
    /// Memory for sums; the lock keeps calls apart.
    staging: Mutex<Vec<i64>>,
    /// Whether a call failed, after which MPI can only be aborted.
    has_failed: AtomicBool,
    has_aborted: AtomicBool,
}

impl Mpi {
    /// Opens a library that suits the launcher and starts MPI. A call fails if nothing happens for
    /// `timeout`.
    ///
    /// # Errors
    /// No library was found, MPI did not start, was started before, or sees another number of ranks
    /// than the launcher.
    pub fn open(launch: Option<&Launch>, timeout: Duration, env: Environment<'_>) -> Result<Self> {
        let launcher = launch.map(|launch| launch.launcher);
        let library = find::open(launcher, env).map_err(|error| match launch {
            Some(launch) if is_foreign(launch.launcher) => {
                let hint = format!("{}; {}", mpirun(launch.size), error.hint);
                error.hint(hint)
            }
            _ => error,
        })?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::failure("MPI was started before in this process"));
        }
        let version = library.version();
        let name = format!("{version} ({})", library.path.display());
        // MPICH would end the process without a word of ours.
        if let Some(launch) = launch
            && launch.launcher == Launcher::OpenMpi
            && !version.starts_with("Open MPI")
        {
            return Err(mismatch(launch, &format!("the library is {name}")));
        }
        library.start()?;
        let (rank, size) = library.rank_and_size()?;
        if let Some(launch) = launch
            && launch.size != size
        {
            library.finish();
            return Err(mismatch(launch, &format!("MPI sees {size}: {name}")));
        }
        Ok(Self {
            library,
            name,
            rank,
            size,
            timeout,
            staging: Mutex::default(),
            has_failed: AtomicBool::new(false),
            has_aborted: AtomicBool::new(false),
        })
    }

    /// Polls a call until it is done.
    fn wait<B>(&self, pending: Result<Pending<B>>, patience: Patience) -> Result<B> {
        let result = pending.and_then(|pending| self.poll(pending, patience));
        if result.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
        }
        result
    }

    fn poll<B>(&self, mut pending: Pending<B>, patience: Patience) -> Result<B> {
        let start = Instant::now();
        while !self.library.is_done(&mut pending)? {
            patience.pause(start.elapsed(), self.timeout)?;
        }
        Ok(pending.into_buffers())
    }
}

impl Ranks for Mpi {
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
        let _calls = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let block = block::encode(mine);
        let (_, blocks) = self.wait(self.library.gather(block, self.size), VOTE)?;
        let (lengths, mut all) = block::decode(&blocks);
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // The rest of all ranks, a part of each at a time.
        let step = LONG / self.size;
        let mut start = block::SHORT;
        while start < longest {
            let part = |length: usize| length.clamp(start, start + step) - start;
            let own = &mine[start.min(mine.len())..];
            let own = own[..part(mine.len())].to_vec();
            let parts: Vec<usize> = lengths.iter().map(|length| part(*length)).collect();
            let pending = self.library.gather_lengths(own, &parts);
            let bytes = self.wait(pending, DATA)?.all;
            let mut rest = bytes.as_slice();
            for (all, length) in all.iter_mut().zip(&parts) {
                let (theirs, others) = rest.split_at(*length);
                all.extend_from_slice(theirs);
                rest = others;
            }
            start += step;
        }
        Ok(all)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let _calls = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let length = (bytes.len() as u64).to_le_bytes().to_vec();
        let length = self.wait(self.library.broadcast(length), VOTE)?;
        bytes.resize(block::length_of(&length), 0);
        for part in bytes.chunks_mut(LONG) {
            let theirs = self.wait(self.library.broadcast(part.to_vec()), DATA)?;
            part.copy_from_slice(&theirs);
        }
        Ok(())
    }

    fn sum(&self, values: &mut [i64]) -> Result<()> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        for part in values.chunks_mut(SLICE) {
            // MPI works on memory of its own, which outlives a call that never ends.
            let mut memory = std::mem::take(&mut *staging);
            memory.clear();
            memory.extend_from_slice(part);
            let sums = self.wait(self.library.sum(memory), DATA)?;
            part.copy_from_slice(&sums);
            *staging = sums;
        }
        Ok(())
    }

    fn abort(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
        if !self.has_aborted.swap(true, Ordering::SeqCst) {
            self.library.abort();
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if self.has_failed.load(Ordering::SeqCst) || std::thread::panicking() {
            self.abort();
        } else {
            self.library.finish();
        }
    }
}

/// Whether a launcher is none of MPI's.
fn is_foreign(launcher: Launcher) -> bool {
    match launcher {
        Launcher::Torchrun | Launcher::Kubeflow | Launcher::Jax => true,
        Launcher::OpenMpi | Launcher::Hydra | Launcher::Slurm => false,
    }
}

/// What to do where no launcher of MPI started the ranks.
fn mpirun(size: usize) -> String {
    format!(
        "on CPUs, start the ranks with MPI: `mpirun -n {size} upright ...`; --ranks alone is for a process that works by itself"
    )
}

/// The error about a launcher and a library that do not know each other: each process is then a
/// world of its own. `problem` says what does not fit.
fn mismatch(launch: &Launch, problem: &str) -> Error {
    let hint = match launch.launcher {
        launcher if is_foreign(launcher) => mpirun(launch.size),
        Launcher::Slurm => "`srun --mpi=list` shows what Slurm speaks: use --mpi=pmi2 for MPICH and --mpi=pmix for Open MPI; UPRIGHT_MPI names another library; in a shell that srun opened, use --ranks alone".to_owned(),
        Launcher::OpenMpi => "the library must be Open MPI's, as the launcher is: UPRIGHT_MPI names it, as in UPRIGHT_MPI=libmpi.so.40".to_owned(),
        _ => "the library must be MPICH's, as the launcher is: UPRIGHT_MPI names it, as in UPRIGHT_MPI=libmpi.so.12".to_owned(),
    };
    Error::input(format!(
        "{} started {} ranks, but {problem}",
        launch.launcher.name(),
        launch.size
    ))
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(launcher: Launcher) -> Launch {
        Launch {
            launcher,
            rank: 1,
            size: 4,
            local_rank: 1,
            local_size: 4,
        }
    }

    #[test]
    fn launchers_and_libraries_that_do_not_fit_are_refused() {
        for (launcher, message, hint) in [
            (
                Launcher::Slurm,
                "srun started 4 ranks, but MPI sees 1: MPICH 5",
                "srun --mpi=list",
            ),
            (
                Launcher::OpenMpi,
                "Open MPI's mpirun started 4 ranks",
                "UPRIGHT_MPI=libmpi.so.40",
            ),
            (
                Launcher::Hydra,
                "MPICH's mpirun started 4 ranks",
                "UPRIGHT_MPI=libmpi.so.12",
            ),
            (
                Launcher::Torchrun,
                "torchrun started 4 ranks",
                "`mpirun -n 4 upright ...`",
            ),
        ] {
            let error = mismatch(&launch(launcher), "MPI sees 1: MPICH 5");
            assert!(error.message.starts_with(message), "{error}");
            assert!(error.hint.contains(hint), "{}", error.hint);
        }
    }

    #[test]
    fn torchrun_without_a_library_is_told_of_mpirun() {
        let env = |name: &str| (name == "UPRIGHT_MPI").then(|| "/nonexistent".to_owned());
        let timeout = Duration::from_secs(1);
        let error = Mpi::open(Some(&launch(Launcher::Torchrun)), timeout, &env).unwrap_err();
        assert!(
            error.hint.contains("`mpirun -n 4 upright ...`"),
            "{}",
            error.hint
        );
        let error = Mpi::open(Some(&launch(Launcher::Hydra)), timeout, &env).unwrap_err();
        assert!(!error.hint.contains("mpirun"), "{}", error.hint);
    }
}
