//! Rows of the log and evaluations.

use burn::module::Module;
use std::time::Instant;

use super::super::cadence::ProgressUnit;
use super::super::error::EngineError;
use super::super::log::LogRow;
use super::super::memory::memory_mib;
use super::super::task::{Evaluation, EvaluationError, Task};
use super::Loop;

impl<T: Task> Loop<T> {
    /// Writes and shows the sums since the last row of the log.
    pub(super) fn log_window(&mut self) -> Result<(), EngineError> {
        let window = std::mem::take(&mut self.window);
        let (seen, total) = (self.seen(), self.total());
        let left = total.saturating_sub(seen);
        let (tokens_left, units) = match self.settings.cadence.unit {
            ProgressUnit::Tokens => (left, window.timed_tokens),
            ProgressUnit::Steps => {
                let per_step = self.state.tokens as f64 / self.state.step.max(1) as f64;
                ((left as f64 * per_step) as u64, window.steps)
            }
        };
        let row = window.row(self.settings.peak_flops, T::COUNTS_CORRECT);
        let speed = units as f64 / window.time.as_secs_f64().max(1e-9);
        let rate = &self.settings.learning_rate;
        let at = || rate.at_shortened(seen, total, self.state.shortened);
        let row = LogRow {
            lr: Some(self.rate.unwrap_or_else(at)),
            memory_mib: memory_mib(&self.device),
            skipped: self.spikes.is_some().then_some(window.skipped),
            batch_tokens: Some(self.batch_tokens),
            tokens_left: Some(tokens_left),
            seconds_left: Some(left as f64 / speed.max(1e-9)),
            ..self.row("train", row)
        };
        if let Some(loss) = window.loss() {
            self.task.logged(self.state.step, loss);
        }
        self.reporter.train(&row, window.weight, (seen, total))?;
        Ok(())
    }

    fn row(&self, split: &str, row: LogRow) -> LogRow {
        LogRow {
            split: split.to_string(),
            step: self.state.step,
            tokens: self.state.tokens,
            phase: Some(self.state.phase_name.clone()),
            ..row
        }
    }

    /// Evaluates the weights or their averages, records the result, and updates early stopping.
    pub(super) fn evaluation(&mut self, model: &T::Model) -> Result<(), EngineError> {
        let items = self.task.evaluation_items();
        self.reporter.begin_evaluation(items);
        let step = self.state.step;
        let model = self.optimizer.evaluated(model.valid());
        let evaluation = self.task.evaluate(&model, step);
        let evaluation = evaluation.map_err(|error| match error {
            EvaluationError::NotFinite { what, value } => {
                EngineError::DivergedEvaluation { step, what, value }
            }
            EvaluationError::Other(source) => EngineError::Evaluation { step, source },
        })?;
        let better = T::SCORED && self.stopping.judge(evaluation.score);
        if T::SCORED {
            if better {
                self.task.keep_best(model);
            }
            self.state.best_score_bits = self.stopping.best.map(f64::to_bits);
            self.state.unimproved = self.stopping.unimproved;
            self.report.stopped_early = self.stopping.stops();
        }
        let Evaluation {
            loss,
            accuracy,
            score,
            ..
        } = evaluation;
        let row = LogRow {
            loss,
            masked_accuracy: accuracy,
            score,
            ..LogRow::default()
        };
        let row = self.row("eval", row);
        let goes_on = !self.ended() && !self.interrupter.should_stop();
        let next = goes_on.then(|| self.total());
        self.reporter
            .evaluated(&row, &evaluation, (self.seen(), self.total()), better, next)?;
        self.state.eval_loss = loss;
        self.state.eval_accuracy = accuracy;
        self.state.eval_step = Some(step);
        self.mark = Instant::now();
        Ok(())
    }
}
