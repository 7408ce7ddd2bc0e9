//! Loss and accuracy on held-out batches.

use burn::tensor::Tensor;
use burn::train::{InferenceStep, ValidLoader};

use super::learner::MlmLearner;
use super::metrics::StepStats;

/// Mean loss and accuracy over all labelled tokens of a loader.
///
/// # Errors
/// Data or a device that can't be read, in words.
pub fn evaluate(model: &MlmLearner, valid: &ValidLoader<MlmLearner>) -> Result<StepStats, String> {
    let (mut loss, mut correct, mut labelled) = (0.0, 0.0, 0);
    for item in valid.iter() {
        let item = item.map_err(|error| error.to_string())?;
        labelled += item.labelled;
        let output = InferenceStep::step(model, item);
        loss += read(output.loss_sum)?;
        correct += read(output.correct)?;
    }
    let count = labelled.max(1) as f64;
    Ok(StepStats {
        loss: loss / count,
        masked_accuracy: correct / count,
        labelled,
        ..StepStats::default()
    })
}

fn read(sum: Tensor<1>) -> Result<f64, String> {
    sum.try_into_scalar::<f64>()
        .map_err(|error| format!("the device could not be read: {error}"))
}
