//! The learning rate of a step.

use serde::{Deserialize, Serialize};

use super::Schedule;

/// Share of the shortened run over which the rate passes from the planned schedule to that of the shortened run.
const PASSAGE: u64 = 20;

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

/// A run that was shortened after its start to end within its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortened {
    /// Units seen when it was shortened.
    pub seen: u64,
    /// Units of the run as planned.
    pub planned: u64,
}

impl LearningRate {
    /// The rate after `seen` of `total` units.
    pub fn at(&self, seen: u64, total: u64) -> f64 {
        self.peak
            * self
                .schedule
                .factor(seen, total.saturating_add(self.margin))
    }

    /// The rate after `seen` units of a run that was shortened to `total`. A warmup in percent is shorter in the shortened run, so the rate
    /// would jump: over a twentieth of the run it passes linearly from the planned schedule to the one of the shortened run instead.
    pub fn at_shortened(&self, seen: u64, total: u64, shortened: Option<Shortened>) -> f64 {
        let fitted = self.at(seen, total);
        let Some(Shortened {
            seen: from,
            planned,
        }) = shortened
        else {
            return fitted;
        };
        let passage = (total / PASSAGE).min(total.saturating_sub(from) / 2).max(1);
        let passed = seen.saturating_sub(from) as f64 / passage as f64;
        if passed >= 1.0 {
            return fitted;
        }
        fitted * passed + self.at(seen, planned) * (1.0 - passed)
    }

    /// The rate of the step from `before` to `after` units: that after the step, so that a warmup from zero moves at once. Where that is
    /// zero, which is at the end of a decay to zero, it is the rate halfway through the step, so that the last step is one.
    pub fn of_step(
        &self,
        before: u64,
        after: u64,
        total: u64,
        shortened: Option<Shortened>,
    ) -> f64 {
        let rate = self.at_shortened(after, total, shortened);
        if rate > 0.0 {
            return rate;
        }
        let halfway = before + after.min(total).saturating_sub(before) / 2;
        self.at_shortened(halfway, total, shortened)
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
        // As many steps as a number holds: the end is the limit of the type.
        assert!(rate(1).at(100, u64::MAX) > 0.0);
    }

    fn pretraining(schedule: Schedule) -> LearningRate {
        LearningRate {
            peak: 2.0,
            schedule,
            margin: 0,
        }
    }

    #[test]
    fn the_last_step_of_a_decay_to_zero_has_a_rate() {
        let rate = pretraining(Schedule::default());
        let steps: Vec<f64> = (0..100)
            .map(|step| rate.of_step(10 * step, 10 * (step + 1), 1000, None))
            .collect();
        assert!(steps.iter().all(|&rate| rate > 0.0), "{steps:?}");
        // Every other step has the rate of the counts after it, as before.
        for (step, &found) in steps.iter().enumerate().take(99) {
            assert_eq!(found, rate.at(10 * (step as u64 + 1), 1000));
        }
        assert_eq!(steps[99], rate.at(995, 1000));
        assert!(steps[99] < steps[98]);
        // The last step reaches beyond the total.
        assert_eq!(rate.of_step(990, 1030, 1000, None), rate.at(995, 1000));
    }

    #[test]
    fn a_shortened_run_has_no_jump_in_its_rate() {
        for schedule in [
            Schedule::default(),
            Schedule::LinearWithWarmup {
                warmup_tokens: TokenSpan::Fraction(0.1),
                final_fraction: 0.0,
            },
        ] {
            let rate = pretraining(schedule);
            let (planned, total, seen) = (1_000_000, 20_000, 1500);
            let shortened = Some(Shortened { seen, planned });
            let rates: Vec<f64> = (seen..=total)
                .map(|at| rate.at_shortened(at, total, shortened))
                .collect();
            assert_eq!(rates[0], rate.at(seen, planned));
            // Without the passage the first difference would be half of the peak or more.
            let jump = rates[..2001]
                .windows(2)
                .map(|pair| (pair[1] - pair[0]).abs());
            assert!(jump.fold(0.0, f64::max) < 0.005);
            assert!(rate.at(seen, total) - rate.at(seen, planned) > 0.5);
            assert_eq!(
                rates[2000..],
                (seen + 2000..=total)
                    .map(|at| rate.at(at, total))
                    .collect::<Vec<_>>()
            );
        }
    }
}
