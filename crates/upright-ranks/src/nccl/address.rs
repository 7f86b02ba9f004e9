//! Where rank 0 of NCCL is found: HOST:PORT, the same on all ranks without a word between them.

use upright_base::{Error, Result};

use crate::{
    launch::{Environment, Launch, Launcher},
    slurm,
};

/// First of the ports that jobs share out by their numbers.
const FIRST_PORT: u32 = 61_440;

/// Number of those ports.
const PORTS: u32 = 4096;

/// The address of rank 0, for `NCCL_COMM_ID`.
///
/// # Errors
/// A variable is no port, or the launcher does not say where rank 0 is.
pub(super) fn of(launch: Option<&Launch>, env: Environment<'_>) -> Result<String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(address) = set("NCCL_COMM_ID") {
        return Ok(address);
    }
    let own_port = match set("UPRIGHT_PORT") {
        Some(text) => Some(port("UPRIGHT_PORT", &text)?),
        None => None,
    };
    // torchrun itself listens on MASTER_PORT.
    for (host, master) in [
        ("MASTER_ADDR", "MASTER_PORT"),
        ("PET_MASTER_ADDR", "PET_MASTER_PORT"),
    ] {
        let Some(host) = set(host) else { continue };
        let port = match (own_port, set(master)) {
            (Some(port), _) => port,
            (None, Some(text)) => port(master, &text)?.wrapping_add(1),
            (None, None) => shared_port(env),
        };
        return Ok(join(&host, port));
    }
    if let Some(address) = set("JAX_COORDINATOR_ADDRESS") {
        let (host, text) = address.rsplit_once(':').unwrap_or((&address, "0"));
        let port = port("JAX_COORDINATOR_ADDRESS", text)?.wrapping_add(1);
        return Ok(join(host, own_port.unwrap_or(port)));
    }
    let port = own_port.unwrap_or_else(|| shared_port(env));
    let is_slurm = launch.is_some_and(|launch| launch.launcher == Launcher::Slurm);
    if is_slurm && let Some(nodes) = set("SLURM_STEP_NODELIST") {
        return Ok(join(&slurm::first_node(&nodes), port));
    }
    match launch {
        Some(launch) if launch.local_size < launch.size => Err(Error::input(format!(
            "{} does not say on which machine rank 0 is",
            launch.launcher.name()
        ))
        .hint("set MASTER_ADDR to the name of that machine on all ranks, or use --ranks mpi")),
        _ => Ok(join("127.0.0.1", port)),
    }
}

/// A port that jobs of one machine do not share: from the number of Slurm's job, or of the launcher's
/// process, which all ranks of a machine have as their parent.
fn shared_port(env: Environment<'_>) -> u16 {
    let job = env("SLURM_JOB_ID").and_then(|id| id.parse().ok());
    let number = job.unwrap_or_else(std::os::unix::process::parent_id);
    u16::try_from(FIRST_PORT + number % PORTS).unwrap_or(u16::MAX)
}

fn port(name: &str, text: &str) -> Result<u16> {
    text.parse().map_err(|_| {
        Error::input(format!("{name}={text} is not a port")).hint("use a number up to 65535")
    })
}

/// HOST:PORT, with brackets around an address of IPv6.
fn join(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address in an environment that is written as "A=1 B=2".
    fn find(text: &str) -> Result<String> {
        let env = |name: &str| {
            let mut words = text.split(' ').filter_map(|word| word.split_once('='));
            let found = words.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        };
        of(Launch::find(&env)?.as_ref(), &env)
    }

    #[test]
    fn launchers_say_where_rank_0_is() {
        for (text, address) in [
            ("NCCL_COMM_ID=a:1 MASTER_ADDR=b MASTER_PORT=2", "a:1"),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_ADDR=b MASTER_PORT=29500",
                "b:29501",
            ),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_ADDR=fe80::1 MASTER_PORT=29500",
                "[fe80::1]:29501",
            ),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_ADDR=b MASTER_PORT=29500 UPRIGHT_PORT=7",
                "b:7",
            ),
            (
                "PET_NNODES=2 PET_NODE_RANK=0 PET_MASTER_ADDR=c PET_MASTER_PORT=1",
                "c:2",
            ),
            (
                "JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 JAX_COORDINATOR_ADDRESS=d:5",
                "d:6",
            ),
            (
                "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=n[1-2] SLURM_JOB_ID=4097",
                "n1:61441",
            ),
            (
                "PMI_RANK=0 PMI_SIZE=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2 UPRIGHT_PORT=9",
                "127.0.0.1:9",
            ),
        ] {
            assert_eq!(find(text).unwrap(), address, "{text}");
        }
        let address = find("PMI_RANK=0 PMI_SIZE=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2").unwrap();
        assert!(address.starts_with("127.0.0.1:6"), "{address}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = find("PMI_RANK=0 PMI_SIZE=4 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2").unwrap_err();
        assert_eq!(
            error.message,
            "MPICH's mpirun does not say on which machine rank 0 is"
        );
        assert!(error.hint.contains("MASTER_ADDR"));
        let error = find("UPRIGHT_PORT=70000").unwrap_err();
        assert_eq!(error.message, "UPRIGHT_PORT=70000 is not a port");
    }
}
