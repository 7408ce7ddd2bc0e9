//! The interface between the loop and a kind of training.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::error::BoxError;
use super::over_ranks::accumulate;
use crate::loader::Position;
use crate::optim::NamedOptimizer;
use crate::snapshot::RunState;

/// Sums of a micro-batch on the device.
#[derive(Clone, Debug)]
pub struct LossSums {
    /// Sum of the losses, `[1]`: over a step these sums divided by [`Counts::weight`] are the step's loss.
    pub loss: Tensor<1>,
    /// Number of correct predictions, `[1]`; `None` where the task does not count them in training.
    pub correct: Option<Tensor<1>>,
}

/// Counts of a step, known on the host before the step is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Tokens, padding not counted.
    pub tokens: u64,
    /// Tokens with padding.
    pub slots: u64,
    /// Micro-batches.
    pub rows: u64,
    /// Denominator of the loss in the log: labelled tokens of a masked language model; 1 where [`LossSums::loss`] adds up to a mean.
    pub weight: u64,
    /// FLOP of forward and backward pass.
    pub flops: f64,
    /// Data-loader position after the step, where the loader has one.
    pub position: Option<Position>,
}

/// Result of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Mean held-out loss in nats; `None` where it is undefined (no labelled token).
    pub loss: Option<f64>,
    /// Share of the labelled tokens predicted correctly; `None` where it is undefined or not counted.
    pub accuracy: Option<f64>,
    /// The score by which the best weights are chosen, higher is better; `None` where it is undefined, which is never best, and where the
    /// task has no score.
    pub score: Option<f64>,
    /// Name and value of each score for the line of the evaluation.
    pub metrics: Vec<(String, Option<f64>)>,
    /// Number of labelled tokens or sequences.
    pub items: usize,
}

/// A kind of training: its data, its loss, its evaluation, its checkpoints. The [module](super) describes the loop.
pub trait Task {
    /// The module under training.
    type Model: Module;
    /// A micro-batch on the host.
    type Batch;

    /// True if [`Evaluation::score`] chooses the best weights.
    const SCORED: bool;
    /// True if [`LossSums::correct`] is counted.
    const COUNTS_CORRECT: bool;
    /// True if the task trains on several ranks: its loss is a sum over micro-batches ([`Self::step`] is not replaced), and its evaluation and
    /// its checkpoints are those of all ranks together.
    const OVER_RANKS: bool = false;

    /// Returns the micro-batches of the next step, each with the denominator of the whole step; `None` at the end of the data.
    ///
    /// `state` holds the counts before the step, `seen` the units of [`Cadence::unit`](super::Cadence) seen.
    ///
    /// # Errors
    /// Data that can't be read.
    fn next_step(
        &mut self,
        state: &RunState,
        seen: u64,
    ) -> Result<Option<Vec<Self::Batch>>, BoxError>;

    /// Returns the model for a step that begins after `seen` units of [`Cadence::unit`](super::Cadence), and for evaluations and checkpoints
    /// at that moment: here a task sets those settings of a model that follow a schedule. A function of `seen` and of the total, so that a resumed
    /// run has the same model. By default the unchanged model.
    fn adapt(&self, model: Self::Model, _seen: u64) -> Self::Model {
        model
    }

    /// Counts of a step.
    fn counts(&self, batches: &[Self::Batch]) -> Counts;

    /// Sums and gradients of one micro-batch. The loss of the gradients is divided by the denominator of the whole step, so that the
    /// gradients of the step's micro-batches add up to those of the step's mean.
    fn gradients(&self, model: &Self::Model, batch: Self::Batch) -> (LossSums, GradientsParams);

    /// Sums of each micro-batch and gradients of the step, summed in the order of a binary [tree](ranks::tree) over its micro-batches.
    ///
    /// A task whose loss is not a sum over micro-batches (a contrastive loss over the whole batch, with GradCache's two passes) replaces
    /// this method and needs no other change of the loop.
    fn step(
        &self,
        model: &Self::Model,
        batches: Vec<Self::Batch>,
    ) -> (Vec<LossSums>, GradientsParams) {
        let leaves = batches.len();
        let (sums, mut parts) = accumulate(self, model, batches, leaves, &(0..leaves));
        (sums, parts.pop().unwrap_or_else(GradientsParams::new))
    }

    /// Number of batches or sequences of an evaluation, for the dashboard.
    fn evaluation_items(&self) -> usize;

    /// Evaluates `model`, which is on a device without gradients, after `step` steps.
    ///
    /// # Errors
    /// Data, outputs or a device that can't be used.
    fn evaluate(&mut self, model: &Self::Model, step: u64) -> Result<Evaluation, EvaluationError>;

    /// Keeps `model`: the evaluation before this call had the best score so far.
    fn keep_best(&mut self, _model: Self::Model) {}

    /// Receives the new total, in units of [`Cadence::unit`](super::Cadence), of a run shortened to end within its time limit.
    fn shortened(&mut self, _total: u64) {}

    /// Receives a row of the training log: steps done and mean loss of the steps since the previous row.
    fn logged(&mut self, _step: u64, _loss: f64) {}

    /// Takes the warnings of the last [`Self::save`] for the user, such as a checkpoint that was kept because it holds other files.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Writes a checkpoint. Before this call the loop has read all losses back and checked that every parameter is finite.
    ///
    /// # Errors
    /// A file that can't be written, a device that can't be read.
    fn save(
        &mut self,
        model: &Self::Model,
        optimizer: &NamedOptimizer,
        state: &RunState,
    ) -> Result<(), BoxError>;
}

/// Reason why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The model gives NaN or an infinite number.
    #[error("{what} is not finite ({value})")]
    NotFinite {
        /// The loss, a score or an output.
        what: String,
        /// Its value.
        value: f64,
    },
    /// Anything else.
    #[error("{0}")]
    Other(#[source] BoxError),
}

impl EvaluationError {
    /// An error of the task.
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }

    /// `value` if it is finite.
    ///
    /// # Errors
    /// [`Self::NotFinite`], naming `what`.
    pub fn finite(what: &str, value: f64) -> Result<f64, Self> {
        if value.is_finite() {
            return Ok(value);
        }
        Err(Self::NotFinite {
            what: what.to_string(),
            value,
        })
    }
}
