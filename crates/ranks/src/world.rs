//! The rank of a process, and the size of its run.

use std::cell::Cell;
use std::env;

use crate::error::WorldError;

/// Number of a process, number of processes, and the address at which rank 0 listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Number of this rank, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// Number of this rank among the ranks of its host, by which the rank selects its GPU.
    pub local_rank: usize,
    /// Host of rank 0.
    pub address: String,
    /// Port at which rank 0 listens.
    pub port: u16,
}

/// The variables of one launcher.
struct Launcher {
    name: &'static str,
    rank: &'static str,
    size: &'static str,
    local_rank: Option<&'static str>,
    local_size: Option<&'static str>,
}

/// The most specific first: a job of SLURM may start torchrun or mpirun.
const LAUNCHERS: [Launcher; 5] = [
    Launcher {
        name: "torchrun",
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: Some("LOCAL_RANK"),
        local_size: Some("LOCAL_WORLD_SIZE"),
    },
    Launcher {
        name: "OpenMPI's mpirun",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: Some("OMPI_COMM_WORLD_LOCAL_RANK"),
        local_size: Some("OMPI_COMM_WORLD_LOCAL_SIZE"),
    },
    Launcher {
        name: "MPICH's or Intel's mpirun",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: Some("MPI_LOCALRANKID"),
        local_size: Some("MPI_LOCALNRANKS"),
    },
    // The size of the job step, which only `srun` sets: the batch script itself has SLURM_PROCID and SLURM_NTASKS as well.
    Launcher {
        name: "SLURM's srun",
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
        local_rank: Some("SLURM_LOCALID"),
        local_size: None,
    },
    Launcher {
        name: "an indexed job of Kubernetes",
        rank: "JOB_COMPLETION_INDEX",
        size: "WORLD_SIZE",
        local_rank: None,
        local_size: None,
    },
];

/// Default port of rank 0.
const PORT: u16 = 29_500;

impl World {
    /// A run of one process.
    pub fn single() -> Self {
        Self {
            rank: 0,
            size: 1,
            local_rank: 0,
            address: "127.0.0.1".to_string(),
            port: PORT,
        }
    }

    /// The world of this process by its environment variables; [`Self::single`] where no launcher has set any.
    ///
    /// # Errors
    /// Variables that are incomplete, no numbers, or contradict each other.
    pub fn from_environment() -> Result<Self, WorldError> {
        let unreadable = Cell::new(None);
        let world = Self::from_variables(|name| match env::var(name) {
            Err(env::VarError::NotUnicode(_)) => {
                unreadable.set(Some(name.to_owned()));
                None
            }
            value => value.ok(),
        });
        match unreadable.take() {
            Some(name) => Err(WorldError::NotText(name)),
            None => world,
        }
    }

    /// Returns true if a launcher has set the variables of a rank, also those of the only one.
    pub fn is_launched() -> bool {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        LAUNCHERS
            .iter()
            .any(|launcher| is_set(launcher.rank) && is_set(launcher.size))
    }

    /// As [`Self::from_environment`], with the variables from a function; an empty one counts as not set.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, WorldError> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let number = |name: &'static str| match get(name) {
            None => Ok(None),
            Some(value) => match value.trim().parse::<u16>() {
                Ok(number) => Ok(Some(usize::from(number))),
                Err(_) => Err(WorldError::Number { name, value }),
            },
        };
        let is_complete = |one: &&Launcher| get(one.rank).is_some() && get(one.size).is_some();
        let Some(launcher) = LAUNCHERS.iter().find(is_complete) else {
            // SLURM sets its rank, and people WORLD_SIZE, where there are no ranks at all. Only RANK alone must be a mistake.
            return match get("RANK") {
                Some(_) => Err(WorldError::Missing {
                    launcher: LAUNCHERS[0].name,
                    present: "RANK",
                    missing: "WORLD_SIZE",
                }),
                None => Ok(Self::single()),
            };
        };
        let rank = number(launcher.rank)?.unwrap_or(0);
        let size = number(launcher.size)?.unwrap_or(1);
        if rank >= size {
            return Err(WorldError::Range { rank, size });
        }
        let local_rank = launcher.local_rank.map_or(Ok(None), number)?;
        let local_size = launcher.local_size.map_or(Ok(None), number)?;
        if let (Some(local_rank), Some(local_size)) = (local_rank, local_size)
            && (local_rank >= local_size || local_size > size)
        {
            let names = [launcher.local_rank, launcher.local_size]
                .into_iter()
                .flatten();
            return Err(WorldError::Local {
                local_rank,
                local_size,
                size,
                names: names.collect::<Vec<_>>().join(" and "),
            });
        }
        // Ranks of one host find each other without an address.
        let alone = size == 1 || local_size == Some(size) || one_host(&get);
        let address = get("MASTER_ADDR")
            .or_else(|| alone.then(|| "127.0.0.1".to_string()))
            .or_else(|| get("SLURM_LAUNCH_NODE_IPADDR"))
            .or_else(|| get("SLURM_STEP_NODELIST").map(|list| first_host(&list)))
            .ok_or(WorldError::Address { size })?;
        let port = match number("MASTER_PORT")? {
            // The system would choose a port that the other ranks don't know.
            Some(0) if size > 1 => return Err(WorldError::Port),
            Some(port) => port as u16,
            None => get("SLURM_JOB_ID").map_or(PORT, |job| port_of_job(&job)),
        };
        Ok(Self {
            rank,
            size,
            local_rank: local_rank.unwrap_or(if alone { rank } else { 0 }),
            address,
            port,
        })
    }
}

/// Returns whether SLURM's step is on one host.
fn one_host(get: &impl Fn(&str) -> Option<String>) -> bool {
    get("SLURM_STEP_NUM_NODES").is_some_and(|nodes| nodes.trim() == "1")
}

/// The first host of SLURM's list, such as `gpu[03-05,9],login`.
fn first_host(list: &str) -> String {
    let Some((prefix, rest)) = list.split_once('[') else {
        return list.split(',').next().unwrap_or(list).to_string();
    };
    if let Some((host, _)) = prefix.split_once(',') {
        return host.to_string();
    }
    let first = rest.split([',', '-', ']']).next().unwrap_or_default();
    let suffix = rest.split_once(']').map_or("", |(_, suffix)| suffix);
    let suffix = suffix.split(',').next().unwrap_or_default();
    format!("{prefix}{first}{suffix}")
}

/// A port for each job, so that two jobs on one host don't meet.
fn port_of_job(job: &str) -> u16 {
    let number: u64 = job.trim().parse().unwrap_or(0);
    20_000 + (number % 20_000) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &[(&str, &str)]) -> Result<World, WorldError> {
        World::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    fn place(variables: &[(&str, &str)]) -> (usize, usize, usize, String, u16) {
        let world = world(variables).unwrap();
        (
            world.rank,
            world.size,
            world.local_rank,
            world.address,
            world.port,
        )
    }

    #[test]
    fn every_launcher_is_understood() {
        let local =
            |rank, size, local_rank| (rank, size, local_rank, "127.0.0.1".to_string(), PORT);
        assert_eq!(place(&[]), local(0, 1, 0));
        let torchrun = [
            ("RANK", "5"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "4"),
            ("MASTER_ADDR", "node-a"),
            ("MASTER_PORT", "1234"),
        ];
        assert_eq!(place(&torchrun), (5, 8, 1, "node-a".to_string(), 1234));
        let openmpi = [
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
        ];
        assert_eq!(place(&openmpi), local(2, 4, 2));
        let mpich = [
            ("PMI_RANK", "1"),
            ("PMI_SIZE", "2"),
            ("MPI_LOCALRANKID", "1"),
            ("MPI_LOCALNRANKS", "2"),
        ];
        assert_eq!(place(&mpich), local(1, 2, 1));
        let slurm = [
            ("SLURM_PROCID", "9"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_STEP_NUM_TASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "gpu[03-04]"),
            ("SLURM_JOB_ID", "123456"),
        ];
        assert_eq!(place(&slurm), (9, 16, 1, "gpu03".to_string(), 23_456));
        let kubernetes = [
            ("JOB_COMPLETION_INDEX", "3"),
            ("WORLD_SIZE", "4"),
            ("MASTER_ADDR", "train-0.train"),
        ];
        assert_eq!(
            place(&kubernetes),
            (3, 4, 0, "train-0.train".to_string(), PORT)
        );
    }

    #[test]
    fn a_batch_script_of_slurm_is_no_rank() {
        let script = [
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_JOB_ID", "7"),
        ];
        assert_eq!(world(&script), Ok(World::single()));
        assert_eq!(world(&[("WORLD_SIZE", "4")]), Ok(World::single()));
        assert_eq!(
            world(&[("RANK", ""), ("WORLD_SIZE", " ")]),
            Ok(World::single())
        );
    }

    #[test]
    fn mistakes_are_named() {
        let text = |variables: &[(&str, &str)]| world(variables).unwrap_err().to_string();
        assert!(text(&[("RANK", "0")]).starts_with("torchrun sets WORLD_SIZE together with RANK"));
        assert_eq!(
            text(&[("RANK", "4"), ("WORLD_SIZE", "4")]),
            "rank 4 of 4 ranks: ranks are counted from 0; correct the number of the rank or of the ranks"
        );
        assert!(text(&[("RANK", "-1"), ("WORLD_SIZE", "4")]).contains("RANK is `-1`"));
        assert!(
            text(&[
                ("RANK", "1"),
                ("WORLD_SIZE", "4"),
                ("MASTER_PORT", "70000"),
                ("MASTER_ADDR", "a")
            ])
            .contains("MASTER_PORT")
        );
        assert!(text(&[("PMI_RANK", "1"), ("PMI_SIZE", "4")]).contains("MASTER_ADDR is not set"));
        let two = [
            ("RANK", "0"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "a"),
            ("MASTER_PORT", "0"),
        ];
        assert!(text(&two).contains("MASTER_PORT is 0"));
        for (local_rank, local_size) in [("7", "1"), ("0", "4")] {
            let wrong = [
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("LOCAL_RANK", local_rank),
                ("LOCAL_WORLD_SIZE", local_size),
            ];
            assert!(text(&wrong).contains("LOCAL_RANK and LOCAL_WORLD_SIZE"));
        }
        let alone = [("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_PORT", "0")];
        assert_eq!(world(&alone).unwrap().size, 1);
    }

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in [
            ("a,b", "a"),
            ("node7", "node7"),
            ("gpu[03-05,9],login", "gpu03"),
            ("n[1,4]x", "n1x"),
            ("login,gpu[1-2]", "login"),
        ] {
            assert_eq!(first_host(list), first);
        }
    }
}
