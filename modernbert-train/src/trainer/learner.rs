//! The masked language model as burn-train sees it.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use modernbert::batch::PackedBatch;
use modernbert::model::{MaskedLm, MaskedLmOutput, MaskedTokens};

use super::metrics::StepStats;
use crate::loader::MlmItem;
use crate::recompute;

/// A masked language model under training.
#[derive(Module, Debug)]
pub struct MlmLearner {
    /// The model.
    pub model: MaskedLm,
}

impl MlmLearner {
    fn forward(&self, item: &MlmItem) -> MaskedLmOutput {
        let (batch, masked) = self.inputs(item);
        self.model.forward(&batch, &masked)
    }

    /// A micro-batch on the model's device.
    fn inputs(&self, item: &MlmItem) -> (PackedBatch, MaskedTokens) {
        let device = self.model.model.device();
        let batch = PackedBatch::new(&item.input_ids, item.layout.clone(), &device)
            .with_dropout(item.dropout);
        let labels = &item.labels;
        let masked = MaskedTokens::new(&labels.positions, &labels.labels, &labels.weights, &device);
        (batch, masked)
    }

    /// The same step with activation checkpointing.
    fn step_by_layer(&self, item: &MlmItem) -> TrainOutput<MlmStepOutput> {
        let (batch, masked) = self.inputs(item);
        let denominator = item.step_labelled.max(1) as f64;
        let (output, grads) = recompute::gradients(&self.model, &batch, &masked, denominator);
        TrainOutput {
            grads,
            item: MlmStepOutput::new(output),
        }
    }
}

/// Result of a micro-batch: sums still on the device, and what the strategy adds for the metrics.
#[derive(Clone, Debug)]
pub struct MlmStepOutput {
    /// Sum of the cross-entropies over the labelled tokens, `[1]`.
    pub loss_sum: Tensor<1>,
    /// Number of labelled tokens guessed right, `[1]`.
    pub correct: Tensor<1>,
    /// Filled in by the strategy once the step is read back.
    pub stats: StepStats,
}

impl MlmStepOutput {
    /// An output of numbers alone, for the metrics thread.
    pub(super) fn of_stats(stats: StepStats, device: &burn::tensor::Device) -> Self {
        let zero = Tensor::zeros([1], &device.clone().inner());
        Self {
            loss_sum: zero.clone(),
            correct: zero,
            stats,
        }
    }

    fn new(output: MaskedLmOutput) -> Self {
        Self {
            loss_sum: output.loss_sum.inner(),
            correct: output.correct.inner(),
            stats: StepStats::default(),
        }
    }
}

impl ItemLazy for MlmStepOutput {
    fn sync(self) -> Result<Self, burn::tensor::ExecutionError> {
        // The strategy has read the sums already; what remains are host numbers.
        Ok(self)
    }
}

impl Adaptor<StepStats> for MlmStepOutput {
    fn adapt(&self) -> StepStats {
        self.stats.clone()
    }
}

impl TrainStep for MlmLearner {
    type Input = MlmItem;
    type Output = MlmStepOutput;

    fn step(&self, item: MlmItem) -> TrainOutput<MlmStepOutput> {
        if self.model.model.recomputes() {
            return self.step_by_layer(&item);
        }
        let output = self.forward(&item);
        // Divided by the labelled tokens of the whole step, micro-batches add up to the token-exact mean.
        let loss = output.loss_sum.clone() / item.step_labelled.max(1) as f64;
        let grads = loss.backward();
        TrainOutput::new(self, grads, MlmStepOutput::new(output))
    }
}

impl InferenceStep for MlmLearner {
    type Input = MlmItem;
    type Output = MlmStepOutput;

    fn step(&self, item: MlmItem) -> MlmStepOutput {
        let output = self.forward(&item);
        MlmStepOutput {
            loss_sum: output.loss_sum,
            correct: output.correct,
            stats: StepStats::default(),
        }
    }
}
