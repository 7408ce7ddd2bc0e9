//! Ctrl-C: once saves the run, twice ends at once.

use burn::train::Interrupter;

/// Makes Ctrl-C (and SIGTERM, with which machines that are taken back end processes) stop the run at the next step. A second time, or
/// where nothing trains yet, it ends the process where it is, which no checkpoint minds: a half-written one has no name yet.
///
/// Where there are no such signals (Windows), Ctrl-C ends the process; the last checkpoint is what is left.
///
/// # Errors
/// A system that refuses the handler.
#[cfg(unix)]
pub(crate) fn stop_on_ctrl_c(interrupter: &Interrupter) -> std::io::Result<()> {
    use modernbert_cli::INTERRUPTED;
    use modernbert_train::pretrain::is_training;
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let interrupter = interrupter.clone();
    std::thread::spawn(move || {
        for (times, _) in signals.forever().enumerate() {
            if times > 0 || !is_training() {
                std::process::exit(INTERRUPTED.into());
            }
            #[allow(clippy::print_stderr)] // the user's terminal, in answer to a key
            {
                eprintln!("stopping after this step to save the run; once more ends it at once");
            }
            interrupter.stop(Some("interrupted"));
        }
    });
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn stop_on_ctrl_c(_interrupter: &Interrupter) -> std::io::Result<()> {
    Ok(())
}
