//! `--nproc`: the process that starts the ranks of this machine and waits for them.

use anyhow::Context;
use modernbert_cli::BAD_INPUT;
use modernbert_train::run_dir::METRICS_FILE;
use ranks::World;
use ranks::spawn::Local;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, SystemTime};

use super::signals::Signals;

/// Set in the environment of the ranks that this process starts.
const STARTED: &str = "MODERNBERT_NPROC_RANK";

/// Time that ranks have to end after one has failed: they notice at their next step.
const GRACE: Duration = Duration::from_secs(20);

/// Starts the same command `nproc` times and returns the code with which the ranks ended; `None` if this process is to do the work itself.
pub(crate) fn supervise(nproc: Option<u16>, folder: &Path) -> anyhow::Result<Option<ExitCode>> {
    let Some(size) = nproc.map(usize::from).filter(|&size| size > 1) else {
        return Ok(None);
    };
    // A rank has the same arguments.
    if std::env::var_os(STARTED).is_some() {
        return Ok(None);
    }
    let world = World::from_environment()?;
    anyhow::ensure!(
        world.size == 1,
        "--nproc {size}: a launcher such as torchrun, srun or mpirun has started this process as rank {} of {}; leave --nproc out, or unset the \
         launcher's variables",
        world.rank,
        world.size
    );
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Ranks that each start a thread per core would compete for the cores.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / size).max(1).to_string();
    let command = || {
        let mut command = Command::new(&program);
        command.args(&arguments).env(STARTED, "1");
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            command.env("RAYON_NUM_THREADS", &threads);
        }
        command
    };
    let logs = logs_of(folder)?;
    let (had_logs, before) = (logs.exists(), written(folder));
    let mut signals = Signals::watch()?;
    let started = Local::start(size, &logs, command);
    let local = started.with_context(|| format!("{size} ranks could not be started"))?;
    let ended = local.wait(GRACE, |local| {
        if signals.is_due() {
            local.hang_up();
        }
    })?;
    let is_refused = ended.is_alike && ended.status.code() == Some(i32::from(BAD_INPUT));
    if is_refused && !had_logs && before == written(folder) {
        // Every rank has refused the same before its first step, and rank 0 has said it.
        discard(&logs, size);
    } else if !ended.status.success() && ended.rank > 0 {
        let log = logs.join(format!("rank-{}.log", ended.rank));
        // Standard error may be closed; the exit code is left.
        let _ = writeln!(
            std::io::stderr(),
            "rank {} ended first ({}); its output is in {}",
            ended.rank,
            ended.status,
            log.display()
        );
    }
    // A rank ended by a signal has no code.
    let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(2))))
}

/// `FOLDER-ranks`, beside the run's folder, which holds nothing but the run.
fn logs_of(folder: &Path) -> anyhow::Result<PathBuf> {
    let name = folder.file_name().with_context(|| {
        format!(
            "{}: with --nproc the run's folder needs a name, since the ranks' logs are in NAME-ranks; give another --out",
            folder.display()
        )
    })?;
    let mut name = name.to_os_string();
    name.push("-ranks");
    Ok(folder.with_file_name(name))
}

/// Length and time of a run's log; they change with its first step.
fn written(folder: &Path) -> Option<(u64, SystemTime)> {
    let found = std::fs::metadata(folder.join(METRICS_FILE)).ok()?;
    Some((found.len(), found.modified().ok()?))
}

/// Removes the logs of ranks that this process has made. What else is in the folder keeps it.
fn discard(logs: &Path, size: usize) {
    for rank in 1..size {
        // A file that is left is no loss.
        let _ = std::fs::remove_file(logs.join(format!("rank-{rank}.log")));
    }
    let _ = std::fs::remove_dir(logs);
}
