//! `--nproc`: the process that starts the ranks of this machine and waits for them.

use anyhow::Context;
use ranks::spawn::Local;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long ranks have to end after one has failed: they notice at their next step.
const GRACE: Duration = Duration::from_secs(20);

/// Whether this process is a rank already.
fn is_rank() -> bool {
    std::env::var_os("RANK").is_some_and(|rank| !rank.is_empty())
}

/// Starts the same command `nproc` times and returns the code with which the ranks ended; `None` if this process is to do the work itself.
pub(crate) fn supervise(nproc: Option<u16>, folder: &Path) -> anyhow::Result<Option<ExitCode>> {
    let Some(size) = nproc
        .map(usize::from)
        .filter(|&size| size > 1 && !is_rank())
    else {
        return Ok(None);
    };
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Ranks that each start a thread per core would get in each other's way.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / size).max(1).to_string();
    let command = || {
        let mut command = Command::new(&program);
        command.args(&arguments);
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            command.env("RAYON_NUM_THREADS", &threads);
        }
        command
    };
    let logs = logs_of(folder);
    let signals = Signals::watch()?;
    let started = Local::start(size, &logs, command);
    let local = started.with_context(|| format!("{size} ranks could not be started"))?;
    let ended = local.wait(GRACE, |local| signals.forward(local))?;
    if !ended.status.success() && ended.rank > 0 {
        eprintln!(
            "rank {} ended first ({}); its output is in {}",
            ended.rank,
            ended.status,
            logs.join(format!("rank-{}.log", ended.rank)).display()
        );
    }
    // A rank ended by a signal has no code.
    let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(2))))
}

/// `FOLDER-ranks`, beside the run's folder, which holds nothing but the run.
fn logs_of(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push("-ranks");
    folder.with_file_name(name)
}

/// Signals that this process has received.
struct Signals {
    end: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
}

impl Signals {
    fn watch() -> anyhow::Result<Self> {
        let signals = Self {
            end: Arc::default(),
            interrupt: Arc::default(),
        };
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
            for signal in [SIGTERM, SIGHUP] {
                signal_hook::flag::register(signal, signals.end.clone())?;
            }
            signal_hook::flag::register(SIGINT, signals.interrupt.clone())?;
        }
        Ok(signals)
    }

    fn forward(&self, local: &Local) {
        let end = self.end.swap(false, Ordering::Relaxed);
        // A terminal sends Ctrl-C to the ranks as well.
        let interrupt = self.interrupt.swap(false, Ordering::Relaxed);
        if end || (interrupt && !std::io::stdin().is_terminal()) {
            local.terminate();
        }
    }
}
