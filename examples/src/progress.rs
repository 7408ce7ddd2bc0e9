//! How far a program has come: a bar on a terminal, now and then a line elsewhere, a closing line always. All of it goes
//! to standard error, so that results on standard output stay clean.

use indicatif::{ProgressBar, ProgressStyle};
use modernbert::inference::Progress;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows how many texts and tokens are done.
pub struct Meter {
    program: &'static str,
    start: Instant,
    last_line: Instant,
    now: Progress,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// A meter for `program`.
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
            now: Progress::default(),
            bar,
        }
    }

    fn rate(&self) -> f64 {
        self.now.tokens as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Takes note of where things stand.
    pub fn update(&mut self, now: Progress) {
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

    /// Where things stand.
    pub fn now(&self) -> Progress {
        self.now
    }

    /// As [`Self::update`], `now` being counted from where things stood at `before`.
    pub fn update_after(&mut self, before: Progress, now: Progress) {
        self.update(Progress {
            done: before.done + now.done,
            total: before.done + now.total,
            tokens: before.tokens + now.tokens,
        });
    }

    /// The closing line; `device` as in `flex f32`.
    pub fn finish(&self, device: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.line(device);
    }

    #[allow(clippy::print_stderr)] // a program's progress
    fn line(&self, end: &str) {
        eprintln!(
            "{}: {} texts, {} tokens in {:.1} s, {:.0} tok/s, {end}",
            self.program,
            self.now.done,
            self.now.tokens,
            self.start.elapsed().as_secs_f64(),
            self.rate()
        );
    }
}
