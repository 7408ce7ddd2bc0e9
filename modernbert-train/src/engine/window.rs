//! Sums over the steps since the last row of the log.

use std::time::Duration;

use super::log::LogRow;
use crate::snapshot::WindowState;

/// Sums over some steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) steps: u64,
    pub(super) loss_sum: f64,
    pub(super) correct: f64,
    /// Denominator of `loss_sum`.
    pub(super) weight: u64,
    /// Tokens without padding.
    pub(super) tokens: u64,
    /// Tokens with padding.
    pub(super) slots: u64,
    /// Gradient norm of the last step.
    pub(super) norm: f64,
    /// Steps whose update was skipped as a loss spike.
    pub(super) skipped: u64,
    /// Mean, variance and number of the losses after the last step, each as the bits of an f32, where spikes are skipped.
    pub(super) spikes: Option<[u32; 3]>,
    /// The speed's numerators and denominators, which count only the steps of this process: a resumed run measures its own speed.
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
        self.weight += other.weight;
        self.tokens += other.tokens;
        self.slots += other.slots;
        self.norm = other.norm;
        self.skipped += other.skipped;
        self.timed_tokens += other.timed_tokens;
        self.flops += other.flops;
        self.waited += other.waited;
        self.time += other.time;
    }

    /// Mean loss; `None` where nothing has a weight, as in steps without a masked token.
    pub(super) fn loss(&self) -> Option<f64> {
        self.mean(self.loss_sum)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.weight > 0).then(|| sum / self.weight as f64)
    }

    /// The row's columns that follow from these sums.
    pub(super) fn row(&self, peak_flops: Option<f64>, counts_correct: bool) -> LogRow {
        let seconds = self.time.as_secs_f64().max(1e-9);
        LogRow {
            loss: self.loss(),
            masked_accuracy: self.mean(self.correct).filter(|_| counts_correct),
            tok_s: Some(self.timed_tokens as f64 / seconds),
            data_wait: Some((self.waited.as_secs_f64() / seconds).min(1.0)),
            mfu: peak_flops.map(|peak| self.flops / seconds / peak),
            grad_norm: Some(self.norm),
            packing: Some(self.tokens as f64 / self.slots.max(1) as f64),
            ..LogRow::default()
        }
    }

    pub(super) fn save(&self) -> WindowState {
        WindowState {
            steps: self.steps,
            loss_bits: self.loss_sum.to_bits(),
            correct_bits: self.correct.to_bits(),
            labelled: self.weight,
            tokens: self.tokens,
            slots: self.slots,
            norm_bits: self.norm.to_bits(),
            skipped: self.skipped,
        }
    }

    pub(super) fn restored(state: &WindowState) -> Self {
        Self {
            steps: state.steps,
            loss_sum: f64::from_bits(state.loss_bits),
            correct: f64::from_bits(state.correct_bits),
            weight: state.labelled,
            tokens: state.tokens,
            slots: state.slots,
            norm: f64::from_bits(state.norm_bits),
            skipped: state.skipped,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_without_a_weight_have_no_loss() {
        let empty = Window {
            steps: 2,
            tokens: 64,
            slots: 64,
            ..Window::default()
        };
        let row = empty.row(None, true);
        assert_eq!((row.loss, row.masked_accuracy), (None, None));
        assert_eq!(row.packing, Some(1.0));
        let some = Window {
            weight: 4,
            loss_sum: 6.0,
            correct: 1.0,
            ..empty
        };
        let row = some.row(None, true);
        assert_eq!((row.loss, row.masked_accuracy), (Some(1.5), Some(0.25)));
        assert_eq!(some.row(None, false).masked_accuracy, None);
    }
}
