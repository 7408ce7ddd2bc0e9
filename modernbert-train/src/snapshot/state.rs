//! The state of a run, apart from weights and moments.

use serde::{Deserialize, Serialize};

use crate::loader::Position;
use crate::schedule::Shortened;

/// `state.json`: everything that the loop needs to continue bit-identical to an uninterrupted run.
///
/// Order of the data, masks and learning rate are functions of the recipe, of its seeds and of these counts, so no generator's state
/// is stored. Sums are stored as the bits of their f64 (`_bits`), because decimal text would not always restore the same number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// SHA-256 of the run's resolved recipe.
    pub recipe_sha256: String,
    /// Number of the phase, from 0.
    pub phase: usize,
    /// Its name.
    pub phase_name: String,
    /// True if the phase has seen all of its tokens.
    pub phase_done: bool,
    /// Optimizer steps of the run.
    pub step: u64,
    /// Tokens of the run, padding not counted.
    pub tokens: u64,
    /// Tokens of the phase.
    pub phase_tokens: u64,
    /// Rows of the phase's data that were trained on: the number of the next one.
    pub rows: u64,
    /// Position of the phase's data loader, with which earlier rows need not be packed again; the row number determines the same position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Tokens of the phase, which may have been reduced to fit the time limit.
    pub phase_total: u64,
    /// True if the speed has been measured and the phase been fitted to its time limit.
    pub fitted: bool,
    /// The moment at which the phase was shortened, and its number of tokens before, if it was shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortened: Option<Shortened>,
    /// Running mean, variance and number of the losses of the phase, the bits of each f32; only where spikes are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spikes: Option<[u32; 3]>,
    /// Phase tokens at which the next evaluation is due.
    pub next_evaluation: u64,
    /// Number of updates of the optimizer's moments.
    pub optimizer_updates: u64,
    /// Seconds of training in this phase, without evaluations and saving.
    pub phase_seconds: f64,
    /// Loss of the run's first step.
    pub first_loss: Option<f64>,
    /// Held-out loss of the last evaluation.
    pub eval_loss: Option<f64>,
    /// Held-out masked accuracy of the last evaluation.
    pub eval_accuracy: Option<f64>,
    /// The step at which that was measured.
    pub eval_step: Option<u64>,
    /// The best score of an evaluation, the bits of an f64; finetuning only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_score_bits: Option<u64>,
    /// Evaluations since the one with the best score; finetuning only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unimproved: u64,
    /// Steps since the last row of the log.
    pub window: WindowState,
}

/// Returns true if a count is at its default, which is not written.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl RunState {
    /// Held-out loss of exactly this checkpoint, if it was evaluated when it was saved.
    pub fn own_eval_loss(&self) -> Option<f64> {
        self.eval_loss.filter(|_| self.eval_step == Some(self.step))
    }
}

/// Sums over the steps since the last row of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowState {
    /// Steps.
    pub steps: u64,
    /// Sum of the cross-entropies, the bits of an f64.
    pub loss_bits: u64,
    /// Correct predictions, the bits of an f64.
    pub correct_bits: u64,
    /// Labelled tokens.
    pub labelled: u64,
    /// Tokens that are not padding.
    pub tokens: u64,
    /// Tokens with padding.
    pub slots: u64,
    /// The last step's gradient norm, the bits of an f64.
    pub norm_bits: u64,
    /// Steps whose update was skipped as a loss spike.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
}
