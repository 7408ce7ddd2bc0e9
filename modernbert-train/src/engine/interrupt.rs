//! Signals: the first saves the run and ends it after the step, the second ends the process at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::train::Interrupter;

/// Number of training loops under way in this process.
static TRAINING: AtomicUsize = AtomicUsize::new(0);

/// Marks a training loop as under way until it is dropped.
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

/// Whether this process trains at the moment, so that an interruption has something to save.
pub fn is_training() -> bool {
    TRAINING.load(Ordering::SeqCst) > 0
}

/// Makes SIGINT (Ctrl-C, on the dashboard too), SIGTERM (with which machines that are taken back end processes) and SIGHUP (a closed
/// terminal) stop `interrupter`, so that the run is saved after the present step. A second SIGINT or SIGTERM, and any of them while nothing
/// trains, ends the process at once with exit code 130 and gives the terminal back; a half-written checkpoint has no name yet.
///
/// Where there are no such signals (Windows), Ctrl-C ends the process, and the last checkpoint is left.
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
            if !is_training() || (stopping && signal != SIGHUP) {
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

/// See above: there are no such signals here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn stop_on_signals(_interrupter: &Interrupter) -> std::io::Result<()> {
    Ok(())
}
