//! Launches by environment.

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

/// Scripts use these names for something else, or set one of them for programs that they start later.
#[test]
fn general_names_count_only_as_a_pair_of_numbers() {
    for text in [
        "RANK=gold",
        "WORLD_SIZE=4",
        "RANK=1",
        "RANK=x WORLD_SIZE=2",
        "JAX_PROCESS_ID=1",
    ] {
        assert_eq!(find(text).unwrap(), None, "{text}");
    }
    let text = "WORLD_SIZE=4 PMI_RANK=1 PMI_SIZE=2";
    assert_eq!(find(text).unwrap().unwrap().size, 2);
}

#[test]
fn variables_that_do_not_fit_are_named() {
    for (text, message) in [
        ("PMI_RANK=x PMI_SIZE=2", "PMI_RANK=x is not a number"),
        ("PMI_RANK=-1 PMI_SIZE=2", "PMI_RANK=-1 is not a number"),
        ("PMI_RANK=1", "PMI_RANK=1 is set, but PMI_SIZE is not"),
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
