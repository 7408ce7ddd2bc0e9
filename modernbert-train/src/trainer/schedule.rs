//! The learning rate as a function of tokens, in the form burn-train asks for.

use burn::optim::LearningRate;
use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use super::TokenBudget;
use crate::schedule::Schedule;

/// Peak learning rate times the schedule's factor at the tokens seen.
///
/// It has no state of its own: the rate is a pure function of the budget, which the strategy advances.
#[derive(Clone, Debug)]
pub struct TokenScheduler {
    schedule: Schedule,
    peak: f64,
    budget: TokenBudget,
}

impl TokenScheduler {
    /// A schedule over `budget` with its peak.
    pub fn new(schedule: Schedule, peak: f64, budget: TokenBudget) -> Self {
        Self {
            schedule,
            peak,
            budget,
        }
    }

    /// The rate at the tokens seen so far.
    pub fn current(&self) -> f64 {
        self.peak
            * self
                .schedule
                .factor(self.budget.seen(), self.budget.total())
    }
}

impl LrScheduler for TokenScheduler {
    fn step(&mut self) -> LearningRate {
        self.current()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}
