//! The terminal of the dashboard: keys that raise signals in raw mode, and restoring the terminal when the process ends at once.

/// Leaves mouse reporting and the alternate screen, shows the cursor: undoes what burn-train's dashboard writes at its start.
#[cfg(unix)]
const LEAVE: &str = "\x1b[?1006l\x1b[?1015l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?1049l\x1b[?25h";

#[cfg(unix)]
pub(super) use unix::{Terminal, is_drawable, outlive_a_hangup};

#[cfg(unix)]
mod unix {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::stdio::{dup2_stderr, dup2_stdout};
    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
        tcsetattr,
    };
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;
    use std::time::{Duration, Instant};

    /// Longest wait for the dashboard's thread to put the terminal into raw mode.
    const RAW_MODE_WITHIN: Duration = Duration::from_secs(2);

    /// The value of a control character that is switched off (`_POSIX_VDISABLE`).
    const NO_KEY: u8 = if cfg!(any(target_os = "linux", target_os = "android")) {
        0
    } else {
        0xff
    };

    /// Most cells of a terminal for the dashboard, which keeps a buffer of all of them: more than any screen has.
    const MOST_CELLS: u32 = 1 << 20;

    /// Returns whether the dashboard can draw on standard output: its memory grows with the size that the terminal claims.
    pub(in crate::engine) fn is_drawable() -> bool {
        tcgetwinsize(std::io::stdout())
            .is_ok_and(|size| u32::from(size.ws_row) * u32::from(size.ws_col) <= MOST_CELLS)
    }

    /// Keeps the process alive when its terminal is closed while the dashboard shows.
    ///
    /// The dashboard's thread then fails to draw and panics, and while it unwinds, the terminal library reports to standard error, which fails
    /// too: a panic inside a panic aborts the process before the run is saved. A panic hook runs before the unwinding. If standard error
    /// is gone, this one connects it and standard output to `/dev/null` and prints nothing. Call it before the dashboard adds its own hook.
    pub(in crate::engine) fn outlive_a_hangup() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let previous = take_hook();
            set_hook(Box::new(move |panic| {
                if !is_gone(std::io::stderr().as_fd()) || discard_output().is_err() {
                    previous(panic);
                }
            }));
        });
    }

    /// Returns whether no process reads the other end any more: a closed terminal, a pipe without readers.
    pub(super) fn is_gone(file: BorrowedFd<'_>) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(file, PollFlags::empty())];
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        poll(&mut polled, Some(&Timespec::default())).is_ok()
            && polled[0].revents().intersects(gone)
    }

    fn discard_output() -> std::io::Result<()> {
        let null = File::options().write(true).open("/dev/null")?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        Ok(())
    }

    /// The controlling terminal and its modes before the dashboard.
    pub(in crate::engine) struct Terminal {
        tty: Option<File>,
        modes: Termios,
    }

    impl Terminal {
        /// Reads the terminal's modes; `None` if there is no terminal.
        pub(in crate::engine) fn remember() -> Option<Self> {
            // The same choice as the dashboard's terminal library.
            let tty = match isatty(std::io::stdin()) {
                true => None,
                false => Some(
                    File::options()
                        .read(true)
                        .write(true)
                        .open("/dev/tty")
                        .ok()?,
                ),
            };
            let modes = match &tty {
                Some(tty) => tcgetattr(tty).ok()?,
                None => tcgetattr(std::io::stdin()).ok()?,
            };
            Some(Self { tty, modes })
        }

        fn with<R>(&self, act: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
            match &self.tty {
                Some(tty) => act(tty.as_fd()),
                None => act(std::io::stdin().as_fd()),
            }
        }

        /// Waits until the terminal is in raw mode, then lets Ctrl-C raise SIGINT again: in raw mode it would be an ordinary key,
        /// which the dashboard ignores. Ctrl-Z and Ctrl-\ stay keys, because a stopped dashboard would leave the terminal unusable.
        pub(in crate::engine) fn raise_signals(&self) {
            let started = Instant::now();
            while started.elapsed() < RAW_MODE_WITHIN {
                let Ok(mut modes) = self.with(|tty| tcgetattr(tty)) else {
                    return;
                };
                if modes.local_modes.contains(LocalModes::ICANON) {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                modes.local_modes.insert(LocalModes::ISIG);
                modes.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
                modes.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
                let _ = self.with(|tty| tcsetattr(tty, OptionalActions::Now, &modes));
                return;
            }
        }

        /// Restores the terminal to its state before the dashboard, for a process that is about to end.
        pub(in crate::engine) fn restore(&self) {
            let _ = self.with(|tty| tcsetattr(tty, OptionalActions::Now, &self.modes));
            let mut out = std::io::stdout();
            let _ = out.write_all(super::LEAVE.as_bytes());
            let _ = out.flush();
        }
    }
}

/// Sizes are not checked on this system.
#[cfg(not(unix))]
pub(super) fn is_drawable() -> bool {
    true
}

/// This system has no such terminals.
#[cfg(not(unix))]
pub(super) fn outlive_a_hangup() {}

#[cfg(not(unix))]
pub(super) struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    pub(super) fn remember() -> Option<Self> {
        None
    }

    pub(super) fn raise_signals(&self) {}

    pub(super) fn restore(&self) {}
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsFd;

    use super::unix::is_gone;

    #[test]
    fn a_pipe_is_gone_when_its_reader_is() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_gone(writer.as_fd()));
        drop(reader);
        assert!(is_gone(writer.as_fd()));
        assert!(!is_gone(tempfile::tempfile().unwrap().as_fd()));
    }
}
