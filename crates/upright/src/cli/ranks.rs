//! Flags of commands that may run on several ranks, and the world that this process belongs to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use upright_base::Result;
use upright_model::Device;
use upright_ranks::World;
use upright_runs::settings::{Number, checks::count};

use super::terminal;

/// Seconds without an answer from another rank after which a rank gives up.
const TIMEOUT: usize = 600;

/// Time for a launcher to read the last error of this process.
const TO_BE_READ: Duration = Duration::from_millis(500);

/// The world of this process, from its opening to the end of the command.
static OPENED: Mutex<Option<Arc<World>>> = Mutex::new(None);

/// Flags of a command that may run on several ranks.
#[derive(Args, Debug)]
pub(super) struct RankFlags {
    /// How several processes that a launcher started work together: auto, mpi, nccl, or alone (each
    /// works by itself) [default: auto, which is alone without a launcher]
    #[arg(long, value_name = "HOW", help_heading = "Ranks")]
    ranks: Option<String>,
    /// Give up if another rank does not answer for this many seconds [default: 600]
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "Ranks",
        allow_hyphen_values = true
    )]
    rank_timeout: Option<Number>,
}

impl RankFlags {
    /// Opens the world that this process belongs to. It stays open until [`Closing`] is dropped.
    ///
    /// # Errors
    /// Those of [`upright_ranks::open()`].
    pub(super) fn open(&self, device: Device) -> Result<Arc<World>> {
        let choice = self.ranks.as_deref().unwrap_or("auto").parse()?;
        let seconds = count("rank-timeout", self.rank_timeout.as_ref(), TIMEOUT)?;
        let env = |name: &str| std::env::var(name).ok();
        let timeout = Duration::from_secs(seconds as u64);
        let is_cuda = matches!(device, Device::Cuda(_));
        let world = Arc::new(upright_ranks::open(choice, timeout, is_cuda, &env)?);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        *opened = Some(Arc::clone(&world));
        if !world.is_first() {
            terminal::hush();
        }
        Ok(world)
    }
}

/// Ends the world of this process when it is dropped, after the last output or by a panic. A rank that panics, or whose transport
/// failed, ends all others, and maybe itself.
pub(super) struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.as_ref().is_some_and(|world| world.is_broken()) {
            // A launcher that is told to end all ranks may drop what it has not read yet.
            std::thread::sleep(TO_BE_READ);
        }
        drop(opened.take());
    }
}

/// Checks that all ranks were started with the same command. Each may have a device and a number of threads of its own.
///
/// # Errors
/// A rank has another command; the error names it.
pub(super) fn check_command(world: &World) -> Result<()> {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    world.same("command", command(words).as_bytes())
}

/// A command without its device and its threads.
fn command(words: impl Iterator<Item = String>) -> String {
    let own = ["--device", "--threads"];
    let mut kept = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        if own.contains(&word.as_str()) {
            words.next();
        } else if !own.iter().any(|flag| word.starts_with(&format!("{flag}="))) {
            kept.push(word);
        }
    }
    kept.join("\0")
}

/// Whether rank 0 tells the error of this process, which all ranks have.
pub(super) fn is_told_elsewhere() -> bool {
    let opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(world) = &*opened else {
        return false;
    };
    !world.is_first() && world.is_agreed()
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn ranks_may_have_devices_and_threads_of_their_own() {
        let of = |text: &str| command(text.split(' ').map(str::to_owned));
        let plain = of("train --model m --out r");
        assert_eq!(
            of("train --device cuda:1 --model m --out r --threads 4"),
            plain
        );
        assert_eq!(
            of("train --device=cuda:1 --model m --threads=4 --out r"),
            plain
        );
        assert_ne!(of("train --model m --out r --seed 1"), plain);
    }
}
