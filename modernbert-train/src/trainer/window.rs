//! Sums over the steps since the last row of the log.

use std::time::Duration;

use super::metrics::StepStats;
use crate::snapshot::WindowState;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) steps: u64,
    pub(super) loss_sum: f64,
    pub(super) correct: f64,
    pub(super) labelled: u64,
    /// Tokens that are not padding.
    pub(super) tokens: u64,
    /// Tokens with padding.
    pub(super) slots: u64,
    /// Gradient norm of the last step.
    pub(super) norm: f64,
    /// Of the steps of this process alone: what follows says how fast it is, and a resumed run starts counting anew.
    pub(super) timed_tokens: u64,
    pub(super) flops: f64,
    pub(super) waited: Duration,
    pub(super) time: Duration,
}

impl Window {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.labelled += other.labelled;
        self.tokens += other.tokens;
        self.slots += other.slots;
        self.norm = other.norm;
        self.timed_tokens += other.timed_tokens;
        self.flops += other.flops;
        self.waited += other.waited;
        self.time += other.time;
    }

    /// What the numbers mean; learning rate, batch size and what is left are the loop's to add.
    pub(super) fn stats(&self, peak_flops: Option<f64>) -> StepStats {
        let seconds = self.time.as_secs_f64().max(1e-9);
        let labelled = self.labelled.max(1) as f64;
        StepStats {
            loss: self.loss_sum / labelled,
            masked_accuracy: self.correct / labelled,
            tok_s: Some(self.timed_tokens as f64 / seconds),
            data_wait: Some((self.waited.as_secs_f64() / seconds).min(1.0)),
            mfu: peak_flops.map(|peak| self.flops / seconds / peak),
            grad_norm: Some(self.norm),
            packing: Some(self.tokens as f64 / self.slots.max(1) as f64),
            labelled: self.labelled as usize,
            ..StepStats::default()
        }
    }

    pub(super) fn save(&self) -> WindowState {
        WindowState {
            steps: self.steps,
            loss_bits: self.loss_sum.to_bits(),
            correct_bits: self.correct.to_bits(),
            labelled: self.labelled,
            tokens: self.tokens,
            slots: self.slots,
            norm_bits: self.norm.to_bits(),
        }
    }

    pub(super) fn restored(state: &WindowState) -> Self {
        Self {
            steps: state.steps,
            loss_sum: f64::from_bits(state.loss_bits),
            correct: f64::from_bits(state.correct_bits),
            labelled: state.labelled,
            tokens: state.tokens,
            slots: state.slots,
            norm: f64::from_bits(state.norm_bits),
            ..Self::default()
        }
    }
}
