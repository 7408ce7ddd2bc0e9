//! The learning rate of a step.

use super::Schedule;

/// A peak learning rate and its schedule: the rate after any number of units (tokens or steps) of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// The rate at a factor of 1.
    pub peak: f64,
    /// The factor over the run.
    pub schedule: Schedule,
    /// Units by which the schedule is longer than the run. Finetuning sets 1 step: the step after the last would have the schedule's last
    /// factor, so that a decay to zero leaves the last step a rate above zero.
    pub margin: u64,
}

impl LearningRate {
    /// The rate after `seen` of `total` units.
    pub fn at(&self, seen: u64, total: u64) -> f64 {
        self.peak * self.schedule.factor(seen, total + self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::TokenSpan;

    #[test]
    fn a_margin_keeps_the_last_step_above_zero() {
        let rate = |margin| LearningRate {
            peak: 2.0,
            schedule: Schedule::LinearWithWarmup {
                warmup_tokens: TokenSpan::Fraction(0.1),
                final_fraction: 0.0,
            },
            margin,
        };
        let rates: Vec<f64> = (1..=100).map(|step| rate(1).at(step, 100)).collect();
        assert!(
            rates.iter().all(|&rate| rate > 0.0 && rate <= 2.0),
            "{rates:?}"
        );
        let peak = (0..100)
            .max_by(|&a, &b| rates[a].total_cmp(&rates[b]))
            .unwrap();
        assert!((8..12).contains(&peak), "{peak}");
        assert!(rates[99] < 0.04);
        assert_eq!(rate(0).at(100, 100), 0.0);
    }
}
