//! Linear warmup, then linear to zero, in steps.

use burn::optim::LearningRate;
use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::schedule::{Schedule, TokenSpan};

/// [`Schedule::LinearWithWarmup`] counted in steps.
#[derive(Clone, Debug)]
pub(super) struct WarmupLinear {
    schedule: Schedule,
    peak: f64,
    step: u64,
    total: u64,
}

impl WarmupLinear {
    pub(super) fn new(peak: f64, warmup: f64, total: usize) -> Self {
        Self {
            schedule: Schedule::LinearWithWarmup {
                warmup_tokens: TokenSpan::Fraction(warmup),
                final_fraction: 0.0,
            },
            peak,
            step: 0,
            total: total as u64,
        }
    }
}

impl LrScheduler for WarmupLinear {
    /// The first step has the first share of the warmup, the last one the last share of the decay: neither is zero.
    fn step(&mut self) -> LearningRate {
        self.step += 1;
        self.peak * self.schedule.factor(self.step, self.total + 1)
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}
