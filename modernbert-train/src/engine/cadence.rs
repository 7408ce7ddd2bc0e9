//! The actions due after a step, as a pure function of settings, counts and times.

use std::time::Duration;

/// Steps, and share of the time limit, before the speed is measured: kernels are compiled, caches and allocators warm up.
const WARM_UP: (u64, f64) = (3, 0.02);
/// Steps after the warm-up, and share of the time limit in all, after which the speed is known.
const MEASURED: (u64, f64) = (9, 0.05);
/// Share of the time limit after which the speed is taken as known, for any number of steps.
const LATEST: f64 = 0.25;

/// The unit in which a run's length and its evaluation interval are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Tokens of the phase, padding not counted: pretraining.
    Tokens,
    /// Optimizer steps: finetuning.
    Steps,
}

/// Intervals of a training loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Cadence {
    /// ProgressUnit of `evaluate_every`, [`Moment::seen`] and [`Moment::total`].
    pub unit: ProgressUnit,
    /// Units between evaluations. The end of the run is always evaluated.
    pub evaluate_every: u64,
    /// Steps between rows of the log.
    pub log_every: u64,
    /// True if each evaluation is preceded by a row of the log.
    pub log_before_evaluation: bool,
    /// Steps after which losses and norms are read back from the device. With 1, non-finite values are found before the weights change.
    /// With more, the device skips the update of a step with a non-finite value and of all later steps, and the next readback fails.
    pub read_every: u64,
    /// Steps of the run between checkpoints; `None` saves none by steps.
    pub save_every_steps: Option<u64>,
    /// Time between checkpoints; `None` saves none by time.
    pub save_every: Option<Duration>,
    /// True if a checkpoint by steps is evaluated first.
    pub evaluate_before_save: bool,
    /// Time limit of the phase. When the speed of the first steps shows that the phase would take longer, its total is lowered once, so
    /// that a learning-rate decay is still completed.
    pub time_limit: Option<Duration>,
}

/// Counts and times after a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// Optimizer steps of the run.
    pub step: u64,
    /// Optimizer steps of this process.
    pub steps_here: u64,
    /// Units seen of this phase.
    pub seen: u64,
    /// Units of this phase.
    pub total: u64,
    /// Units after which the next evaluation is due.
    pub next_evaluation: u64,
    /// Steps since the last row of the log.
    pub unlogged: u64,
    /// Steps whose losses are still on the device.
    pub unread: u64,
    /// Time since the last checkpoint, or since the start of this process.
    pub since_save: Duration,
    /// Time of training in this phase.
    pub trained: Duration,
    /// True if the phase has been fitted to its time limit.
    pub fitted: bool,
    /// The step of this process after which the speed is measured, once there is one.
    pub measured_from: Option<u64>,
}

/// The actions that are due, in the order in which the loop performs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Read losses and norms back.
    pub read: bool,
    /// Begin to measure the speed.
    pub measure: bool,
    /// Lower the phase's total to what the time limit allows.
    pub fit: bool,
    /// Write a row of the log.
    pub log: bool,
    /// Evaluate.
    pub evaluate: bool,
    /// Evaluate unless this step has been evaluated, as a checkpoint of it follows.
    pub evaluate_for_save: bool,
    /// Write a checkpoint.
    pub save: bool,
    /// The phase has seen its total: leave the loop, evaluate and save there.
    pub stop: bool,
}

impl Cadence {
    /// Everything due at `now`. At the end of the phase neither `evaluate` nor `save` is due: both follow after the loop.
    pub fn due(&self, now: &Moment) -> Due {
        let stop = now.seen >= now.total;
        let share = self.share_of_time(now);
        let fit = !now.fitted
            && now.measured_from.is_some_and(|from| {
                let enough = now.steps_here >= from + MEASURED.0 && share >= MEASURED.1;
                enough || (now.steps_here > from && share >= LATEST)
            });
        let measure = !now.fitted
            && now.measured_from.is_none()
            && now.steps_here >= WARM_UP.0
            && share >= WARM_UP.1;
        let evaluate = now.seen >= now.next_evaluation && !stop;
        let log = now.unlogged >= self.log_every
            || stop
            || (evaluate && self.log_before_evaluation && now.unlogged > 0);
        let by_steps = self
            .save_every_steps
            .is_some_and(|every| now.step.is_multiple_of(every.max(1)));
        let by_time = self.save_every.is_some_and(|every| now.since_save >= every);
        let saves = by_steps || by_time;
        Due {
            read: now.unread >= self.read_every || measure || fit || log || evaluate || saves,
            measure,
            fit,
            log,
            evaluate,
            evaluate_for_save: by_steps && self.evaluate_before_save && !stop,
            save: saves && !stop,
            stop,
        }
    }

    /// The first multiple of the evaluation interval beyond `seen`, counted from `next`.
    pub fn next_evaluation(&self, next: u64, seen: u64) -> u64 {
        let every = self.evaluate_every.max(1);
        if next > seen {
            return next;
        }
        next + ((seen - next) / every + 1) * every
    }

    /// The phase's total that fits into the time left at `speed` units per second; `None` where the whole phase fits.
    ///
    /// 5 % of the time left are kept for evaluations.
    pub fn fitted_total(&self, now: &Moment, speed: f64) -> Option<u64> {
        let left = self.time_limit?.saturating_sub(now.trained).as_secs_f64();
        let possible = now.seen + (0.95 * left * speed) as u64;
        (possible < now.total).then_some(possible)
    }

    /// Share of the time limit that has passed; 1 without a limit.
    fn share_of_time(&self, now: &Moment) -> f64 {
        let limit = self.time_limit.map(|limit| limit.as_secs_f64());
        limit.map_or(1.0, |limit| now.trained.as_secs_f64() / limit.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cadence() -> Cadence {
        Cadence {
            unit: ProgressUnit::Tokens,
            evaluate_every: 1000,
            log_every: 4,
            log_before_evaluation: false,
            read_every: 2,
            save_every_steps: Some(6),
            save_every: Some(Duration::from_secs(60)),
            evaluate_before_save: false,
            time_limit: None,
        }
    }

    /// A moment in which nothing is due.
    fn quiet() -> Moment {
        Moment {
            step: 5,
            steps_here: 2,
            seen: 500,
            total: 5000,
            next_evaluation: 1000,
            unlogged: 1,
            unread: 1,
            fitted: true,
            ..Moment::default()
        }
    }

    #[test]
    fn nothing_is_due_between_the_intervals() {
        assert_eq!(cadence().due(&quiet()), Due::default());
    }

    #[test]
    fn each_interval_makes_its_own_thing_due_and_a_readback_with_it() {
        let read = Due {
            read: true,
            ..Due::default()
        };
        for (moment, due) in [
            (
                Moment {
                    unread: 2,
                    ..quiet()
                },
                read,
            ),
            (
                Moment {
                    unlogged: 4,
                    ..quiet()
                },
                Due { log: true, ..read },
            ),
            (
                Moment {
                    seen: 1000,
                    ..quiet()
                },
                Due {
                    evaluate: true,
                    ..read
                },
            ),
            (Moment { step: 6, ..quiet() }, Due { save: true, ..read }),
            (
                Moment {
                    since_save: Duration::from_secs(60),
                    ..quiet()
                },
                Due { save: true, ..read },
            ),
        ] {
            assert_eq!(cadence().due(&moment), due, "{moment:?}");
        }
    }

    #[test]
    fn the_end_logs_and_stops_and_leaves_evaluation_and_save_to_what_follows() {
        let end = Moment {
            seen: 5001,
            step: 6,
            ..quiet()
        };
        let due = Due {
            read: true,
            log: true,
            stop: true,
            ..Due::default()
        };
        assert_eq!(cadence().due(&end), due);
    }

    #[test]
    fn a_save_by_steps_is_evaluated_where_the_best_are_kept_and_one_by_time_is_not() {
        let keeps_best = Cadence {
            evaluate_before_save: true,
            ..cadence()
        };
        let by_steps = keeps_best.due(&Moment { step: 6, ..quiet() });
        assert!(by_steps.save && by_steps.evaluate_for_save && !by_steps.evaluate);
        let by_time = keeps_best.due(&Moment {
            since_save: Duration::from_secs(99),
            ..quiet()
        });
        assert!(by_time.save && !by_time.evaluate_for_save);
        let never = Cadence {
            save_every: None,
            save_every_steps: None,
            ..keeps_best
        };
        let late = Moment {
            since_save: Duration::from_secs(9999),
            step: 6,
            ..quiet()
        };
        assert_eq!(never.due(&late), Due::default());
    }

    #[test]
    fn an_evaluation_can_ask_for_a_row_of_the_log_before_it() {
        let cadence = Cadence {
            log_before_evaluation: true,
            ..cadence()
        };
        assert!(
            cadence
                .due(&Moment {
                    seen: 1000,
                    ..quiet()
                })
                .log
        );
        assert!(
            !cadence
                .due(&Moment {
                    seen: 1000,
                    unlogged: 0,
                    ..quiet()
                })
                .log
        );
        assert!(!cadence.due(&quiet()).log);
    }

    #[test]
    fn missed_evaluations_are_not_made_up_for() {
        let cadence = cadence();
        assert_eq!(cadence.next_evaluation(1000, 999), 1000);
        assert_eq!(cadence.next_evaluation(1000, 1000), 2000);
        assert_eq!(cadence.next_evaluation(1000, 3999), 4000);
        assert_eq!(cadence.next_evaluation(1000, 4000), 5000);
    }

    #[test]
    fn the_speed_is_measured_after_a_warm_up_and_the_total_fitted_once() {
        let limited = Cadence {
            time_limit: Some(Duration::from_secs(100)),
            ..cadence()
        };
        let at = |steps_here, trained, measured_from| Moment {
            steps_here,
            trained: Duration::from_secs(trained),
            measured_from,
            fitted: false,
            ..quiet()
        };
        // Neither two slow steps nor three very fast ones are a warm-up.
        assert!(!limited.due(&at(2, 10, None)).measure);
        assert!(!limited.due(&at(3, 1, None)).measure);
        assert!(limited.due(&at(3, 2, None)).measure);
        assert!(!limited.due(&at(11, 50, Some(11))).fit);
        assert!(!limited.due(&at(11, 20, Some(3))).fit);
        assert!(limited.due(&at(12, 5, Some(3))).fit);
        // Very slow steps: a quarter of the limit is late enough.
        assert!(limited.due(&at(4, 25, Some(3))).fit);
        let fitted = Moment {
            fitted: true,
            ..at(12, 50, Some(3))
        };
        assert!(!limited.due(&fitted).fit && !limited.due(&fitted).measure);

        let now = at(12, 20, Some(3));
        // 80 s are left: 76 s of training at 10 units a second.
        assert_eq!(limited.fitted_total(&now, 10.0), Some(500 + 760));
        assert_eq!(limited.fitted_total(&now, 1000.0), None);
        assert_eq!(cadence().fitted_total(&now, 1.0), None);
    }
}
