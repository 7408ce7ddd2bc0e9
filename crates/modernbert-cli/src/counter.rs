//! Progress of a countable piece of work on standard error: one line that is rewritten on a terminal, a line every ten seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::text::human_seconds;

/// Pause between two updates of a terminal.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
/// Pause between two lines elsewhere.
const LINE_PAUSE: Duration = Duration::from_secs(10);

/// Progress display of a countable piece of work.
pub struct Counter {
    label: String,
    total: usize,
    started: Instant,
    shown: Instant,
    is_terminal: bool,
    is_drawn: bool,
}

impl Counter {
    /// Begins to count up to `total`; nothing is shown yet.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        Self {
            label: label.into(),
            total,
            started: Instant::now(),
            shown: Instant::now(),
            is_terminal: std::io::stderr().is_terminal(),
            is_drawn: false,
        }
    }

    /// Notes that `done` of the total are done, and shows it if the pause since the last update is over.
    pub fn update(&mut self, done: usize) {
        let pause = if self.is_terminal {
            TERMINAL_PAUSE
        } else {
            LINE_PAUSE
        };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let text = self.text(done);
        self.is_drawn = self.is_terminal;
        let (before, after) = if self.is_terminal {
            ("\r", "\x1b[K")
        } else {
            ("", "\n")
        };
        // An error of the progress display must not end the work.
        let _ = write!(std::io::stderr(), "{before}{text}{after}");
        let _ = std::io::stderr().flush();
    }

    fn text(&self, done: usize) -> String {
        let elapsed = self.started.elapsed().as_secs_f64();
        let left = elapsed / done.max(1) as f64 * self.total.saturating_sub(done) as f64;
        format!(
            "{}: {done} of {}, {} left",
            self.label,
            self.total,
            human_seconds(left)
        )
    }
}

impl Drop for Counter {
    /// Clears the line of a terminal.
    fn drop(&mut self) {
        if self.is_drawn {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_done_and_what_is_left() {
        let counter = Counter::new("cola", 10);
        assert_eq!(counter.text(10), "cola: 10 of 10, 0s left");
        assert!(counter.text(0).starts_with("cola: 0 of 10, "));
    }
}
