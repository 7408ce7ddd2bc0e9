//! Progress of a program: a bar on a terminal, a line every ten seconds elsewhere, a closing line always. All of it goes to standard
//! error, so that standard output has the results alone.

use indicatif::{ProgressBar, ProgressStyle};
use modernbert::inference::StreamProgress;
use modernbert_cli::tell;
use modernbert_cli::text::counted;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows the number of texts and tokens processed so far.
pub struct Meter {
    program: &'static str,
    start: Instant,
    last_line: Instant,
    now: StreamProgress,
    truncated: usize,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// Creates a meter for `program`.
    pub fn new(program: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            let style =
                ProgressStyle::with_template("{spinner} {bar:30} {pos} of {len} texts  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            program,
            start: Instant::now(),
            last_line: Instant::now(),
            now: StreamProgress::default(),
            truncated: 0,
            bar,
        }
    }

    fn rate(&self) -> f64 {
        self.now.tokens as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Shows the progress so far.
    pub fn update(&mut self, now: StreamProgress) {
        self.now = now;
        match &self.bar {
            Some(bar) => {
                bar.set_length(now.total as u64);
                bar.set_position(now.done as u64);
                bar.set_message(format!("{:.0} tok/s", self.rate()));
            }
            None if self.last_line.elapsed() >= PAUSE => {
                self.last_line = Instant::now();
                self.line("so far");
            }
            None => {}
        }
    }

    /// The progress so far.
    pub fn now(&self) -> StreamProgress {
        self.now
    }

    /// Counts a text that was truncated.
    pub fn count_truncated(&mut self, truncated: bool) {
        self.truncated += usize::from(truncated);
    }

    /// Prints the closing line, which counts the texts that were truncated to `max_length` tokens; `device` as in `flex f32`.
    pub fn finish(&self, device: &str, max_length: usize) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.line(device);
        if self.truncated > 0 {
            let were = if self.truncated == 1 { "was" } else { "were" };
            self.print(&format!(
                "{} of {} {were} truncated to {max_length} tokens; see --max-length",
                self.truncated,
                counted(self.now.done, "text", "texts")
            ));
        }
    }

    fn line(&self, end: &str) {
        self.print(&format!(
            "{}, {} in {:.1} s, {:.0} tok/s, {end}",
            counted(self.now.done, "text", "texts"),
            counted(self.now.tokens, "token", "tokens"),
            self.start.elapsed().as_secs_f64(),
            self.rate()
        ));
    }

    /// Prints a line; ignores errors, since a closed standard error must not end the program.
    fn print(&self, line: &str) {
        tell(&format!("{}: {line}", self.program));
    }
}
