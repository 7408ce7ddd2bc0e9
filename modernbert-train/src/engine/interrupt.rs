//! Signals: the first saves the run and ends it after the step, the second ends the process at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::train::Interrupter;

/// Number of training loops running in this process.
static TRAINING: AtomicUsize = AtomicUsize::new(0);

/// Marks a training loop as running until the value is dropped.
pub(super) struct Training;

impl Training {
    pub(super) fn begin() -> Self {
        TRAINING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        TRAINING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns true if this process trains at the moment, so that an interruption has something to save.
pub fn is_training() -> bool {
    TRAINING.load(Ordering::SeqCst) > 0
}

/// Makes SIGINT (Ctrl-C, on the dashboard too), SIGTERM (sent before a preempted machine stops) and SIGHUP (a closed
/// terminal) stop `interrupter`, so that the run is saved after the current step. A second SIGINT or SIGTERM, and any of them while nothing
/// trains, ends the process at once with exit code 130 and restores the terminal; an incomplete checkpoint has a temporary name.
///
/// On systems without these signals (Windows), Ctrl-C ends the process, and the last checkpoint is kept.
///
/// # Errors
/// A system that refuses the handler.
#[cfg(unix)]
pub fn stop_on_signals(interrupter: &Interrupter) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use std::io::Write;

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let interrupter = interrupter.clone();
    std::thread::spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let is_idle = !is_training();
            if is_idle || (stopping && signal != SIGHUP) {
                let message = match is_idle {
                    true => "interrupted outside of the training; nothing is saved now",
                    false => "interrupted a second time; the last checkpoint is kept",
                };
                // Standard error may be closed along with the terminal.
                let _ = writeln!(std::io::stderr(), "{message}");
                super::dashboard::end_process();
            }
            stopping = true;
            interrupter.stop(Some("interrupted"));
            if !super::dashboard::show_event("Saving after this step; Ctrl-C again quits now") {
                // Standard error may be closed along with the terminal.
                let _ = writeln!(
                    std::io::stderr(),
                    "saving after this step; press Ctrl-C again to quit now"
                );
            }
        }
    });
    Ok(())
}

/// As above; this system has no such signals.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn stop_on_signals(_interrupter: &Interrupter) -> std::io::Result<()> {
    Ok(())
}
