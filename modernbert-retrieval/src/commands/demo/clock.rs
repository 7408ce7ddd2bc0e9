//! The time of the demo, divided among its stages.

use std::time::{Duration, Instant};

use anyhow::ensure;
use modernbert::wording::short;

/// Fewest and most minutes.
const MINUTES: (f64, f64) = (0.2, 1440.0);

/// Share of the time in which crates are read, at most.
const READING: f64 = 0.15;
/// Share of the time left after reading for masked language modeling, preparation included.
const PRETRAINING: f64 = 0.28;
/// Share of the whole time that evaluation and index have at the end.
const SEARCHING: f64 = 0.16;
/// Share of the whole time that training and index each have at least, where the stages before took longer than their share.
const LEAST: f64 = 0.08;

/// A clock that began with the demo.
pub(super) struct Clock {
    started: Instant,
    total: Duration,
}

impl Clock {
    /// Starts the clock.
    ///
    /// # Errors
    /// A number of minutes outside of the limits.
    pub(super) fn start(minutes: f64) -> anyhow::Result<Self> {
        let (least, most) = MINUTES;
        ensure!(
            (least..=most).contains(&minutes),
            "--minutes is {}; give a number from {least} to {most}",
            short(minutes)
        );
        Ok(Self {
            started: Instant::now(),
            total: Duration::from_secs_f64(60.0 * minutes),
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// True while crates may still be read.
    pub(super) fn is_reading_time(&self) -> bool {
        self.elapsed() < self.total.mul_f64(READING)
    }

    /// Time of the steps of pretraining, from now on; at least a second.
    pub(super) fn pretraining(&self) -> Duration {
        self.left().mul_f64(PRETRAINING).max(Duration::from_secs(1))
    }

    /// Time of the steps of contrastive training, from now on.
    pub(super) fn training(&self) -> Duration {
        let searching = self.total.mul_f64(SEARCHING);
        self.left()
            .saturating_sub(searching)
            .max(self.total.mul_f64(LEAST))
    }

    /// The end of encoding functions, as time since the start.
    pub(super) fn end(&self) -> Duration {
        self.total.max(self.elapsed() + self.total.mul_f64(LEAST))
    }

    /// Bytes of text for pretraining that can be read in the time.
    pub(super) fn text_bytes(&self, most: usize) -> usize {
        const BYTES_PER_SECOND: f64 = 40_000.0;
        most.min(500_000 + (BYTES_PER_SECOND * self.total.as_secs_f64()) as usize)
    }

    fn left(&self) -> Duration {
        self.total.saturating_sub(self.elapsed())
    }
}
