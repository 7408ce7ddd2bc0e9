//! Actions between two steps and at the end: fit to the time limit, checkpoints.

use std::time::{Duration, Instant};

use super::super::cadence::{Due, Moment, ProgressUnit};
use super::super::error::EngineError;
use super::super::finite::non_finite_parameter;
use super::super::task::Task;
use super::Loop;
use crate::schedule::Shortened;
use modernbert_cli::text::{human_count, human_seconds};

impl<T: Task> Loop<T> {
    /// Performs the actions due between two steps, in the order of [`Due`].
    pub(super) fn after_step(&mut self, model: &T::Model) -> Result<(), EngineError> {
        let moment = self.moment()?;
        let due: Due = self.settings.cadence.due(&moment);
        if due.read {
            self.read_back()?;
        }
        if due.measure {
            self.measured_from = Some(self.steps_here);
        }
        if due.fit {
            self.fit_to_time(moment);
        }
        if due.log {
            self.log_window()?;
        }
        if due.evaluate {
            let (next, seen) = (self.state.next_evaluation, self.seen());
            self.state.next_evaluation = self.settings.cadence.next_evaluation(next, seen);
            self.evaluation(model)?;
        }
        // Fitting to the time limit may have ended the phase; its checkpoint then follows its evaluation.
        if due.save && self.settings.saves && !self.ended() {
            if due.evaluate_for_save && self.state.eval_step != Some(self.state.step) {
                self.evaluation(model)?;
            }
            self.save(model)?;
        }
        Ok(())
    }

    fn moment(&self) -> Result<Moment, EngineError> {
        let trained = Duration::from_secs_f64(self.state.phase_seconds) + self.mark.elapsed();
        let [since_save, trained] = self.agreed([self.last_save.elapsed(), trained])?;
        Ok(Moment {
            step: self.state.step,
            steps_here: self.steps_here,
            seen: self.seen(),
            total: self.total(),
            next_evaluation: self.state.next_evaluation,
            unlogged: self.window.steps + self.pending.len() as u64,
            unread: self.pending.len() as u64,
            since_save,
            trained,
            fitted: self.state.fitted,
            measured_from: self.measured_from,
        })
    }

    /// Ends the phase or an interrupted run: evaluates a phase that is done, and saves in either case.
    pub(super) fn finish(&mut self, model: &T::Model) -> Result<(), EngineError> {
        self.read_back()?;
        if self.ended() {
            if self.state.eval_step != Some(self.state.step) || self.steps_here == 0 {
                self.evaluation(model)?;
            }
            if !self.settings.saves {
                self.check_parameters(model)?;
            }
            self.state.phase_done = true;
            return self.save(model);
        }
        self.report.interrupted = true;
        if self.saved_step != Some(self.state.step) && self.state.step > 0 {
            self.save(model)?;
        }
        Ok(())
    }

    /// Lowers the phase's total when the measured speed shows that the phase would not end in time.
    fn fit_to_time(&mut self, moment: Moment) {
        self.state.fitted = true;
        let seconds = self.measured.time.as_secs_f64().max(1e-9);
        let (units, unit) = match self.settings.cadence.unit {
            ProgressUnit::Tokens => (self.measured.timed_tokens, "tok/s"),
            ProgressUnit::Steps => (self.measured.steps, "steps/s"),
        };
        let speed = units as f64 / seconds;
        let moment = Moment {
            trained: Duration::from_secs_f64(self.state.phase_seconds),
            ..moment
        };
        let Some(total) = self.settings.cadence.fitted_total(&moment, speed) else {
            return;
        };
        let limit = self.settings.cadence.time_limit.unwrap_or_default();
        let name = match self.settings.cadence.unit {
            ProgressUnit::Tokens => "tokens",
            ProgressUnit::Steps => "steps",
        };
        self.reporter.line(&format!(
            "this machine does {} {unit}: the run is shortened from {} to {} {name} to end within {}",
            rate(speed),
            human_count(self.total()),
            human_count(total),
            human_seconds(limit.as_secs_f64()),
        ));
        self.state.shortened = Some(Shortened {
            seen: self.seen(),
            planned: self.total(),
        });
        self.state.phase_total = total;
        self.task.shortened(total);
    }

    /// Fails where a parameter is not finite.
    fn check_parameters(&self, model: &T::Model) -> Result<(), EngineError> {
        let step = self.state.step;
        match non_finite_parameter(model)? {
            Some(name) => Err(EngineError::Diverged { step, name }),
            None => Ok(()),
        }
    }

    fn save(&mut self, model: &T::Model) -> Result<(), EngineError> {
        if !self.settings.saves {
            return Ok(());
        }
        self.check_parameters(model)?;
        self.state.window = self.window.save();
        self.reporter.synchronize()?;
        self.task
            .save(model, &self.optimizer, &self.state)
            .map_err(EngineError::Save)?;
        for warning in self.task.warnings() {
            self.reporter.warn(warning);
        }
        // No rank continues before the checkpoint is complete.
        self.ranks.barrier()?;
        self.saved_step = Some(self.state.step);
        self.last_save = Instant::now();
        self.mark = Instant::now();
        Ok(())
    }
}

/// A rate for people; slow steps have a fraction.
fn rate(speed: f64) -> String {
    match speed < 10.0 {
        true => format!("{speed:.2}"),
        false => human_count(speed as u64),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn slow_steps_have_a_rate() {
        assert_eq!(super::rate(0.8), "0.80");
        assert_eq!(super::rate(12.7), "12");
    }
}
