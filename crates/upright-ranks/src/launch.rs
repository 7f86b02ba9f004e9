//! Rank and size of this process, from the environment variables of the program that started it.

use upright_base::{Error, Result};

use crate::slurm;

/// A program that starts several processes of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `torchrun`, and what sets its variables: Volcano, Lightning, accelerate, Ray.
    Torchrun,
    /// Kubeflow's torch policy without `torchrun`: one process on each node.
    Kubeflow,
    /// Kubeflow's jax policy, and what sets JAX's variables.
    Jax,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpirun` of MPICH and of Intel MPI, and what else speaks PMI.
    Hydra,
    /// `srun` of Slurm.
    Slurm,
}

impl Launcher {
    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchrun => "torchrun",
            Self::Kubeflow => "Kubeflow",
            Self::Jax => "the launcher of JAX",
            Self::OpenMpi => "Open MPI's mpirun",
            Self::Hydra => "MPICH's mpirun",
            Self::Slurm => "srun",
        }
    }
}

/// How this process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Who started it.
    pub launcher: Launcher,
    /// Its number among all processes, below `size`.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Its number among the processes of this machine; 0 if the launcher does not say.
    pub local_rank: usize,
    /// Number of processes on this machine; `local_rank + 1` if the launcher does not say.
    pub local_size: usize,
}

/// Names of the variables of a launcher.
struct Variables {
    launcher: Launcher,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: &'static str,
}

/// Launchers whose variables stand for the process itself. If several are set, they must agree, and
/// the first counts.
const LAUNCHERS: [Variables; 4] = [
    Variables {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    Variables {
        launcher: Launcher::Hydra,
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_size: "MPI_LOCALNRANKS",
    },
    Variables {
        launcher: Launcher::Torchrun,
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_size: "LOCAL_WORLD_SIZE",
    },
    Variables {
        launcher: Launcher::Jax,
        rank: "JAX_PROCESS_ID",
        size: "JAX_NUM_PROCESSES",
        local_rank: "",
        local_size: "",
    },
];

/// Variables of Kubeflow's torch policy. They stand for a node; `torchrun` turns them into others.
const KUBEFLOW: Variables = Variables {
    launcher: Launcher::Kubeflow,
    rank: "PET_NODE_RANK",
    size: "PET_NNODES",
    local_rank: "",
    local_size: "",
};

/// Variables of a Slurm step. `SLURM_NTASKS` is not among them: a batch script has it without `srun`.
const SLURM: Variables = Variables {
    launcher: Launcher::Slurm,
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    local_rank: "SLURM_LOCALID",
    local_size: "",
};

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Launch {
    /// Finds how this process was started. `None`: by itself.
    ///
    /// # Errors
    /// A variable has a value that is no number, is missing beside another one, or contradicts
    /// another one.
    pub fn find(env: Environment<'_>) -> Result<Option<Self>> {
        let mut found: Option<(Self, &Variables)> = None;
        for variables in &LAUNCHERS {
            let Some(launch) = Self::of(variables, env)? else {
                continue;
            };
            match &found {
                Some((first, named)) if (first.rank, first.size) != (launch.rank, launch.size) => {
                    return Err(contradiction(first, named, &launch, variables));
                }
                Some(_) => {}
                None => found = Some((launch, variables)),
            }
        }
        // A step of Slurm may hold another launcher, one per node or one for all. So srun's
        // numbers are those of this process only if nothing else is set, or if they are the same.
        let slurm = Self::slurm(env)?;
        match (found, slurm) {
            (Some((launch, _)), Some(slurm))
                if launch.launcher == Launcher::Hydra
                    && (launch.rank, launch.size) == (slurm.rank, slurm.size) =>
            {
                Ok(Some(slurm))
            }
            (Some((launch, _)), _) => Ok(Some(launch)),
            (None, Some(slurm)) if slurm.size > 1 => Ok(Some(slurm)),
            (None, slurm) => Ok(Self::kubeflow(env)?.or(slurm)),
        }
    }

    /// The card of this process among those that it sees: its own if there is one per process of
    /// this machine, or the only one.
    #[must_use]
    pub fn card(&self, visible: usize) -> usize {
        match visible {
            0 | 1 => 0,
            _ => self.local_rank % visible,
        }
    }

    /// Reads the variables of one launcher. `None`: neither rank nor size is set, or their names are so general that scripts use them
    /// for something else, and they are no pair of numbers.
    fn of(variables: &Variables, env: Environment<'_>) -> Result<Option<Self>> {
        let is_general = matches!(variables.launcher, Launcher::Torchrun | Launcher::Jax);
        let is_number = |name: &str| env(name).is_some_and(|value| value.parse::<usize>().is_ok());
        if is_general && !(is_number(variables.rank) && is_number(variables.size)) {
            return Ok(None);
        }
        let (rank, size) = match (number(variables.rank, env)?, number(variables.size, env)?) {
            (Some(rank), Some(size)) => (rank, size),
            (None, None) => return Ok(None),
            (Some(rank), None) => return Err(half(variables.rank, rank, variables.size)),
            (None, Some(size)) => return Err(half(variables.size, size, variables.rank)),
        };
        check(variables.rank, rank, variables.size, size)?;
        let local_rank = number(variables.local_rank, env)?.unwrap_or(0);
        let local_size = match number(variables.local_size, env)? {
            Some(local_size) => {
                check(
                    variables.local_rank,
                    local_rank,
                    variables.local_size,
                    local_size,
                )?;
                local_size
            }
            None => local_rank + 1,
        };
        Ok(Some(Self {
            launcher: variables.launcher,
            rank,
            size,
            local_rank,
            local_size,
        }))
    }

    /// Reads the variables of a Slurm step. `None`: no step, which a batch script is not.
    fn slurm(env: Environment<'_>) -> Result<Option<Self>> {
        if env(SLURM.size).is_none() {
            return Ok(None);
        }
        let Some(mut launch) = Self::of(&SLURM, env)? else {
            return Ok(None);
        };
        let node = number("SLURM_NODEID", env)?.unwrap_or(0);
        let tasks = env("SLURM_STEP_TASKS_PER_NODE").unwrap_or_default();
        if let Some(count) = slurm::tasks_of_node(&tasks, node) {
            launch.local_size = count.max(launch.local_rank + 1);
        }
        Ok(Some(launch))
    }

    /// Reads the variables of Kubeflow's torch policy, for one process on each node.
    fn kubeflow(env: Environment<'_>) -> Result<Option<Self>> {
        let torchrun = "start the program with torchrun: `torchrun --no-python upright train ...`";
        let processes = env("PET_NPROC_PER_NODE").unwrap_or_default();
        let is_several = processes.parse().is_ok_and(|count: usize| count > 1);
        if is_several {
            return Err(Error::input(format!(
                "PET_NPROC_PER_NODE={processes} asks for {processes} processes on each node, but one was started"
            ))
            .hint(torchrun));
        }
        Self::of(&KUBEFLOW, env).map_err(|error| error.hint(torchrun))
    }
}

/// Reads a variable that holds a number. Empty is the same as not set.
fn number(name: &str, env: Environment<'_>) -> Result<Option<usize>> {
    let Some(value) = env(name).filter(|value| !name.is_empty() && !value.is_empty()) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::input(format!("{name}={value} is not a number")).hint(way_out(name))),
    }
}

/// Checks that a rank is below its size.
fn check(rank_name: &str, rank: usize, size_name: &str, size: usize) -> Result<()> {
    if rank < size {
        return Ok(());
    }
    Err(Error::input(format!(
        "{rank_name}={rank} is not below {size_name}={size}"
    ))
    .hint(way_out(rank_name)))
}

/// The error about a variable that is set without the one it belongs to.
fn half(name: &str, value: usize, missing: &str) -> Error {
    Error::input(format!("{name}={value} is set, but {missing} is not")).hint(way_out(name))
}

/// The error about two launchers with different numbers.
fn contradiction(first: &Launch, named: &Variables, other: &Launch, others: &Variables) -> Error {
    Error::input(format!(
        "{}={} and {}={}, but {}={} and {}={}",
        named.rank,
        first.rank,
        named.size,
        first.size,
        others.rank,
        other.rank,
        others.size,
        other.size
    ))
    .hint(way_out(others.rank))
}

fn way_out(name: &str) -> String {
    format!("unset {name} and its like, or use --ranks alone for a process of its own")
}

#[cfg(test)]
mod tests;
