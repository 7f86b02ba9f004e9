//! Rank and size of this process, from the environment variables of the program that started it.

use upright_base::{Error, Result};

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

    /// Reads the variables of one launcher. `None`: neither rank nor size is set.
    fn of(variables: &Variables, env: Environment<'_>) -> Result<Option<Self>> {
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
        if let Some(count) = tasks_of_node(&tasks, node) {
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

/// The number of tasks of a node, from Slurm's list: "2(x3),1" is 2, 2, 2, 1.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut first = 0;
    for part in list.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        first += times;
        if node < first {
            return count.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the launch in an environment that is written as "A=1 B=2".
    fn find(text: &str) -> Result<Option<Launch>> {
        let env = |name: &str| {
            let mut words = text.split(' ').filter_map(|word| word.split_once('='));
            let found = words.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        };
        Launch::find(&env)
    }

    #[test]
    fn launchers_are_found() {
        use Launcher::{Hydra, Jax, Kubeflow, OpenMpi, Slurm, Torchrun};
        for (text, launcher, [rank, size, local_rank, local_size]) in [
            (
                "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=a",
                Torchrun,
                [5, 8, 1, 4],
            ),
            ("RANK=0 WORLD_SIZE=2", Torchrun, [0, 2, 0, 1]),
            (
                "PET_NNODES=2 PET_NODE_RANK=1 PET_NPROC_PER_NODE=gpu",
                Kubeflow,
                [1, 2, 0, 1],
            ),
            // torchrun inside Kubeflow, and inside srun with one task per node.
            (
                "PET_NNODES=2 PET_NODE_RANK=1 PET_NPROC_PER_NODE=2 RANK=3 WORLD_SIZE=4 LOCAL_RANK=1",
                Torchrun,
                [3, 4, 1, 2],
            ),
            (
                "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 RANK=8 WORLD_SIZE=16 LOCAL_RANK=0",
                Torchrun,
                [8, 16, 0, 1],
            ),
            ("JAX_NUM_PROCESSES=3 JAX_PROCESS_ID=2", Jax, [2, 3, 0, 1]),
            (
                "SLURM_PROCID=6 SLURM_STEP_NUM_TASKS=7 SLURM_LOCALID=0 SLURM_NODEID=3 SLURM_STEP_TASKS_PER_NODE=2(x3),1",
                Slurm,
                [6, 7, 0, 1],
            ),
            (
                "SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=7 SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_STEP_TASKS_PER_NODE=2(x3),1",
                Slurm,
                [3, 7, 1, 2],
            ),
            // srun --mpi=pmi2 sets both; srun that starts hydra's proxies sets others.
            (
                "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 PMI_RANK=1 PMI_SIZE=2",
                Slurm,
                [1, 2, 0, 1],
            ),
            (
                "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 PMI_RANK=5 PMI_SIZE=8",
                Hydra,
                [5, 8, 0, 1],
            ),
            (
                "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2",
                Hydra,
                [1, 2, 1, 2],
            ),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                OpenMpi,
                [1, 4, 1, 2],
            ),
            // A script that gives torch's names to ranks of Open MPI.
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 RANK=1 WORLD_SIZE=4",
                OpenMpi,
                [1, 4, 0, 1],
            ),
        ] {
            let expected = Launch {
                launcher,
                rank,
                size,
                local_rank,
                local_size,
            };
            assert_eq!(find(text).unwrap(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_process_by_itself_has_no_launch() {
        for text in [
            "",
            "MASTER_ADDR=a MASTER_PORT=1",
            "RANK= WORLD_SIZE=",
            // A batch script of Slurm without srun.
            "SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0",
        ] {
            assert_eq!(find(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn variables_that_do_not_fit_are_named() {
        for (text, message) in [
            ("RANK=x WORLD_SIZE=2", "RANK=x is not a number"),
            ("RANK=-1 WORLD_SIZE=2", "RANK=-1 is not a number"),
            ("RANK=1", "RANK=1 is set, but WORLD_SIZE is not"),
            ("PMI_SIZE=2", "PMI_SIZE=2 is set, but PMI_RANK is not"),
            ("RANK=2 WORLD_SIZE=2", "RANK=2 is not below WORLD_SIZE=2"),
            ("RANK=0 WORLD_SIZE=0", "RANK=0 is not below WORLD_SIZE=0"),
            (
                "RANK=1 WORLD_SIZE=2 LOCAL_RANK=3 LOCAL_WORLD_SIZE=2",
                "LOCAL_RANK=3 is not below LOCAL_WORLD_SIZE=2",
            ),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 RANK=0 WORLD_SIZE=2",
                "OMPI_COMM_WORLD_RANK=1 and OMPI_COMM_WORLD_SIZE=4, but RANK=0 and WORLD_SIZE=2",
            ),
            (
                "SLURM_STEP_NUM_TASKS=2",
                "SLURM_STEP_NUM_TASKS=2 is set, but SLURM_PROCID is not",
            ),
            (
                "PET_NNODES=1:4 PET_NODE_RANK=0",
                "PET_NNODES=1:4 is not a number",
            ),
            (
                "PET_NNODES=2 PET_NODE_RANK=0 PET_NPROC_PER_NODE=8",
                "PET_NPROC_PER_NODE=8 asks for 8 processes on each node, but one was started",
            ),
        ] {
            let error = find(text).unwrap_err();
            assert_eq!(error.message, message, "{text}");
            assert!(!error.hint.is_empty(), "{text}");
        }
    }

    #[test]
    fn each_process_has_its_card() {
        let launch = find("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4").unwrap();
        let launch = launch.unwrap();
        assert_eq!([0, 1, 4].map(|visible| launch.card(visible)), [0, 0, 1]);
    }

    #[test]
    fn lists_of_tasks_are_read() {
        let read = |list| [0, 1, 2, 3].map(|node| tasks_of_node(list, node));
        assert_eq!(read("2(x3),1"), [Some(2), Some(2), Some(2), Some(1)]);
        assert_eq!(read("4,3"), [Some(4), Some(3), None, None]);
        assert_eq!(read(""), [None; 4]);
    }
}
