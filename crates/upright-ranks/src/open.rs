//! Chooses what carries the ranks of a world, and opens it.

use std::{str::FromStr, time::Duration};

use upright_base::{Error, Result};

use crate::{
    World,
    launch::{Environment, Launch},
    mpi::Mpi,
    nccl::{self, Nccl},
};

/// What carries the ranks: the value of `--ranks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What the launcher and the device ask for.
    #[default]
    Auto,
    /// One process, whoever started it.
    Alone,
    /// MPI.
    Mpi,
    /// NCCL.
    Nccl,
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "alone" => Ok(Self::Alone),
            "mpi" => Ok(Self::Mpi),
            "nccl" => Ok(Self::Nccl),
            _ => Err(Error::input(format!("--ranks {text}: unknown"))
                .hint("use auto, alone, mpi or nccl")),
        }
    }
}

/// Opens the world that this process belongs to. `is_cuda`: it trains on an NVIDIA card. A call
/// fails if nothing happens for `timeout`.
///
/// # Errors
/// The launcher's variables do not fit together, a library is missing or does not fit the launcher,
/// or a rank did not answer.
pub fn open(
    choice: Choice,
    timeout: Duration,
    is_cuda: bool,
    env: Environment<'_>,
) -> Result<World> {
    if choice == Choice::Alone {
        return Ok(World::alone());
    }
    let launch = Launch::find(env)?;
    let is_nccl = match (choice, &launch) {
        (Choice::Auto, Some(launch)) if launch.size > 1 => {
            is_cuda && has_own_card(launch, nccl::visible(), env) && nccl::library(env).is_ok()
        }
        (Choice::Auto, _) => return Ok(World::alone()),
        (choice, _) => choice == Choice::Nccl,
    };
    if is_nccl {
        World::new(Box::new(Nccl::open(launch.as_ref(), timeout, env)?))
    } else {
        let mpi = Mpi::open(launch.as_ref(), timeout, env).map_err(|error| {
            if !is_cuda {
                return error;
            }
            let hint = format!(
                "{}; for one GPU per rank, NCCL serves too: `pip install nvidia-nccl-cu13`",
                error.hint
            );
            error.hint(hint)
        })?;
        World::new(Box::new(mpi))
    }
}

/// Whether each process of this machine has a card of its own: it sees as many as there are
/// processes, or was given one.
fn has_own_card(launch: &Launch, visible: usize, env: Environment<'_>) -> bool {
    let given = env("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let was_given_one = visible == 1 && !given.is_empty();
    visible >= launch.local_size || was_given_one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Launcher;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn choices_are_read() {
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("alone", Choice::Alone),
            ("mpi", Choice::Mpi),
            ("nccl", Choice::Nccl),
        ] {
            assert_eq!(text.parse::<Choice>().unwrap(), choice);
        }
        assert!("gloo".parse::<Choice>().unwrap_err().hint.contains("mpi"));
    }

    #[test]
    fn a_process_by_itself_is_alone() {
        let one = |name: &str| match name {
            "PMI_RANK" => Some("0".to_owned()),
            "PMI_SIZE" => Some("1".to_owned()),
            _ => None,
        };
        for env in [&(|_: &str| None) as Environment<'_>, &one] {
            let world = open(Choice::Auto, TIMEOUT, false, env).unwrap();
            assert_eq!((world.rank(), world.size()), (0, 1));
        }
    }

    #[test]
    fn processes_with_cards_of_their_own_are_told_from_others() {
        let none = |_: &str| None;
        let given = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "2".to_owned());
        let launch = Launch {
            launcher: Launcher::Torchrun,
            rank: 1,
            size: 4,
            local_rank: 1,
            local_size: 2,
        };
        for (visible, env, is_own) in [
            (0, &none as Environment<'_>, false),
            (1, &none, false),
            (1, &given, true),
            (0, &given, false),
            (2, &none, true),
            (8, &none, true),
        ] {
            assert_eq!(has_own_card(&launch, visible, env), is_own, "{visible}");
        }
    }

    #[test]
    fn a_launcher_of_several_is_ignored_only_on_demand() {
        let two = |name: &str| match name {
            "PMI_RANK" => Some("1".to_owned()),
            "PMI_SIZE" => Some("2".to_owned()),
            "UPRIGHT_MPI" => Some("/nonexistent".to_owned()),
            _ => None,
        };
        assert_eq!(open(Choice::Alone, TIMEOUT, false, &two).unwrap().size(), 1);
        let error = open(Choice::Mpi, TIMEOUT, true, &two).unwrap_err();
        assert!(error.hint.contains("nvidia-nccl"), "{}", error.hint);
        for choice in [Choice::Auto, Choice::Mpi] {
            let error = open(choice, TIMEOUT, false, &two).unwrap_err();
            assert!(
                error.message.contains("UPRIGHT_MPI=/nonexistent"),
                "{error}"
            );
        }
    }
}
