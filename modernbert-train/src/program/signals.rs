//! Signals of a process that waits for others, which it has started and which save their work.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Delay before a signal is passed on: a launcher or a terminal may have sent it to the processes as well, and those signals must arrive
/// first.
const DELAY: Duration = Duration::from_millis(200);

/// Signals that this process has received. They are passed on as SIGHUP, which saves a run and never counts as the second signal, the one
/// that ends a process at once.
pub(super) struct Signals {
    /// Signals to pass on.
    received: Arc<AtomicBool>,
    /// Ctrl-C of a terminal, which sends it to the processes itself; this process only must not end before them.
    interrupted: Arc<AtomicBool>,
    since: Option<Instant>,
    is_stopping: bool,
}

impl Signals {
    pub(super) fn watch() -> std::io::Result<Self> {
        let received = Arc::new(AtomicBool::new(false));
        let interrupted = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
            for signal in [SIGTERM, SIGHUP] {
                signal_hook::flag::register(signal, received.clone())?;
            }
            let flag = match std::io::stdin().is_terminal() {
                true => &interrupted,
                false => &received,
            };
            signal_hook::flag::register(SIGINT, flag.clone())?;
        }
        Ok(Self {
            received,
            interrupted,
            since: None,
            is_stopping: false,
        })
    }

    /// Returns true once for each signal that is to be passed on now.
    pub(super) fn is_due(&mut self) -> bool {
        if self.received.swap(false, Ordering::Relaxed) {
            self.is_stopping = true;
            self.since.get_or_insert_with(Instant::now);
        }
        let is_due = self.since.is_some_and(|since| since.elapsed() >= DELAY);
        if is_due {
            self.since = None;
        }
        is_due
    }

    /// Returns true once any signal has been received.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
            || self.received.load(Ordering::Relaxed)
            || self.interrupted.load(Ordering::Relaxed)
    }
}
