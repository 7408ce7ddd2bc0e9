//! Time left over a job of several finetunings.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use modernbert_cli::text::human_seconds;

/// Counts work done and work to do, and estimates the time left.
///
/// The parts of the job choose the unit of work; finetunings count tokens, see
/// [`FinetuneOptions::cost_in_tokens`](super::FinetuneOptions::cost_in_tokens).
#[derive(Debug)]
pub struct JobClock {
    total: AtomicU64,
    done: AtomicU64,
    started: Mutex<Option<Instant>>,
}

impl JobClock {
    /// A job of `work` units of work.
    pub fn new(total: u64) -> Self {
        Self {
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            started: Mutex::new(None),
        }
    }

    /// Starts the clock; later calls have no effect.
    pub fn start(&self) {
        let mut started = self.started.lock().unwrap_or_else(|e| e.into_inner());
        started.get_or_insert_with(Instant::now);
    }

    /// Adds work that is done.
    pub fn add(&self, work: u64) {
        self.done.fetch_add(work, Ordering::Relaxed);
    }

    /// Subtracts planned work that will not run: a run stopped early, failed, or was done already.
    pub fn drop_work(&self, work: u64) {
        let less = |total: u64| Some(total.saturating_sub(work));
        let _ = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Work done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Share of the job that is done, 0 to 1.
    pub fn fraction_done(&self) -> f64 {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed);
        if total == 0 {
            1.0
        } else {
            (done as f64 / total as f64).min(1.0)
        }
    }

    /// Seconds left at the speed so far; `None` before there is one.
    pub fn seconds_left(&self) -> Option<f64> {
        let started = (*self.started.lock().unwrap_or_else(|e| e.into_inner()))?;
        let (share, spent) = (self.fraction_done(), started.elapsed().as_secs_f64());
        (share > 0.0).then(|| spent / share * (1.0 - share))
    }
}

impl std::fmt::Display for JobClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {:.0} %", 100.0 * self.fraction_done())?;
        match self.seconds_left() {
            Some(seconds) => write!(f, ", left {}", human_seconds(seconds)),
            None => Ok(()),
        }
    }
}
