//! Errors of a run of several processes.

/// Errors of the environment variables that describe a process's rank.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// One variable of a set is missing.
    #[error(
        "{launcher} sets {missing} together with {present}, but only {present} is set; set {missing} too, or unset {present}"
    )]
    Missing {
        /// The launcher that sets these variables.
        launcher: &'static str,
        /// The variable that is set.
        present: &'static str,
        /// The variable that is not set.
        missing: &'static str,
    },
    /// Not a number.
    #[error(
        "the environment variable {name} is `{value}`, which is not a number from 0 to 65535; correct it, or unset the launcher's variables"
    )]
    Number {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Port 0, which the system replaces by any free one.
    #[error(
        "the environment variable MASTER_PORT is 0, and the ranks would not know the port of rank 0; set it to a free port there"
    )]
    Port,
    /// A rank outside its run.
    #[error(
        "rank {rank} of {size} ranks: ranks are counted from 0; correct the number of the rank or of the ranks"
    )]
    Range {
        /// The rank.
        rank: usize,
        /// The number of ranks.
        size: usize,
    },
    /// Numbers of a host that contradict each other or the run.
    #[error(
        "rank {local_rank} of {local_size} ranks of this host, in a run of {size}: ranks are counted from 0, and a host has at most all of them; correct {names}"
    )]
    Local {
        /// The rank on its host.
        local_rank: usize,
        /// The number of ranks of its host.
        local_size: usize,
        /// The number of ranks.
        size: usize,
        /// The variables.
        names: String,
    },
    /// A variable that is not text.
    #[error("the environment variable {0} is not UTF-8; correct it, or leave it out")]
    NotText(String),
    /// No address of rank 0.
    #[error(
        "{size} ranks on several hosts, but MASTER_ADDR is not set: set it to the address of rank 0's host, and MASTER_PORT to a free port there"
    )]
    Address {
        /// The number of ranks.
        size: usize,
    },
}

/// A collective operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// Rank 0 can't listen.
    #[error("rank 0 can't listen at {address}: {source}; set MASTER_PORT to a free port")]
    Listen {
        /// The address.
        address: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Rank 0 was not reached.
    #[error(
        "rank {rank} could not reach rank 0 at {address} in {seconds} s: {source}; MASTER_ADDR and MASTER_PORT must be those of rank 0's host"
    )]
    Connect {
        /// This rank.
        rank: usize,
        /// The address.
        address: String,
        /// Duration of the attempts, in seconds.
        seconds: u64,
        /// The last error of the system.
        source: std::io::Error,
    },
    /// Ranks that did not come.
    #[error(
        "{missing} did not connect in {seconds} s; see their output, and start every rank with the same MASTER_ADDR and MASTER_PORT (--rank-timeout waits longer)"
    )]
    Absent {
        /// The ranks, in words.
        missing: String,
        /// Duration of rank 0's wait, in seconds.
        seconds: u64,
    },
    /// A process that does not belong to the run.
    #[error(
        "a process that connected to rank 0 {reason}; start each rank once, with the same program, or set MASTER_PORT to a port of this run alone"
    )]
    Stranger {
        /// The reason why the process is refused.
        reason: String,
    },
    /// Ranks that were started differently.
    #[error(
        "ranks disagree on {name}: rank 0 has `{first}`, rank {rank} has `{other}`; start all ranks with the same program and arguments"
    )]
    Disagree {
        /// The setting that differs.
        name: String,
        /// Rank 0's value.
        first: String,
        /// The other rank.
        rank: usize,
        /// Its value.
        other: String,
    },
    /// A rank that ended with a reason.
    #[error("rank {rank} failed: {reason}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its reason.
        reason: String,
    },
    /// A rank whose process ended without a reason.
    #[error(
        "rank {rank} ended without a message: it was killed, perhaps for lack of memory, or the connection to its host was lost; see its output and the \
         system's log, then `resume` the run"
    )]
    Lost {
        /// The rank.
        rank: usize,
    },
    /// Ranks that are late.
    #[error(
        "{missing} did not answer in {seconds} s; see their output, then `resume` the run, with a longer --rank-timeout if they were only slow"
    )]
    Silent {
        /// The ranks, in words.
        missing: String,
        /// Duration of the operation's wait, in seconds.
        seconds: u64,
    },
    /// Ranks that are in different operations.
    #[error(
        "rank {rank} is in another operation than rank 0: the ranks did not do the same work; start all with the same program, arguments and data"
    )]
    Order {
        /// The rank.
        rank: usize,
    },
    /// An error that rank 0 found and sent to this rank.
    #[error("{reason}")]
    Told {
        /// Rank 0's error.
        reason: String,
    },
    /// A message of the wrong length.
    #[error(
        "rank {rank} sent a message of another length: its model or its data differ; give all ranks the same files"
    )]
    Length {
        /// The rank.
        rank: usize,
    },
}
