//! Display of progress, and lines for a person.

use std::io::{IsTerminal, Write};

/// Display of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// burn-train's dashboard.
    Dashboard,
    /// A line every few steps on standard output.
    Lines,
    /// Nothing; for tests and for programs that read the log.
    Silent,
}

impl Progress {
    /// The dashboard on a terminal, lines otherwise.
    pub fn detect() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Dashboard
        } else {
            Self::Lines
        }
    }

    /// Prints a line of a training loop, unless the dashboard owns the screen or nothing is to be shown.
    pub fn line(self, text: &str) {
        if self == Self::Lines {
            self.note(text);
        }
    }

    /// Prints a line before or after a training loop, where there is no dashboard to disturb.
    ///
    /// A closed or full standard output does not end a run: the line is dropped, and training continues.
    pub fn note(self, text: &str) {
        if self != Self::Silent {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
}
