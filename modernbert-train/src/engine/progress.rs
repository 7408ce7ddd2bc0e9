//! How progress is shown, and the lines for a person.

use std::io::{IsTerminal, Write};

/// How progress is shown.
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
    /// A standard output that is closed or full is no reason to lose a run: the line is dropped, and the training goes on.
    pub fn note(self, text: &str) {
        if self != Self::Silent {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
}
