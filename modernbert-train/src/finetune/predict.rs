//! Outputs of a classifier.

use burn::tensor::Device;
use modernbert::batch::PackedBatch;
use modernbert::model::SequenceClassifier;

use super::FinetuneError;

/// Tokens of a batch. Large enough to keep a GPU busy; on a CPU it makes no difference.
const BATCH_TOKENS: usize = 16_384;

/// Outputs of the model for each sequence, in the order given: logits of the classes, or one number.
///
/// Meanwhile the sequences are sorted by length and packed into batches of 16384 tokens.
///
/// # Errors
/// A device that can't be read.
pub fn predict(
    model: &SequenceClassifier,
    sequences: &[&[u32]],
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    predict_with(model, sequences, &mut |_| {})
}

/// As [`predict`]; `see` is called after each batch with the number of sequences done.
///
/// # Errors
/// As for [`predict`].
pub fn predict_with(
    model: &SequenceClassifier,
    sequences: &[&[u32]],
    see: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    predict_in_batches(model, sequences, BATCH_TOKENS, see)
}

pub(super) fn predict_in_batches(
    model: &SequenceClassifier,
    sequences: &[&[u32]],
    batch_tokens: usize,
    see: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    let device: Device = model.model.device();
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| sequences[i].len());
    let mut outputs = vec![Vec::new(); sequences.len()];
    let mut rest = &order[..];
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|&&i| {
            tokens += sequences[i].len();
            tokens <= batch_tokens
        });
        // A sequence longer than the budget is a batch of its own.
        let count = fits.count().max(1);
        let (chunk, later) = rest.split_at(count);
        rest = later;
        let rows: Vec<&[u32]> = chunk.iter().map(|&i| sequences[i]).collect();
        let batch = PackedBatch::from_sequences(&rows, &device)?;
        let logits = model.logits(&batch);
        let [_, width] = logits.dims();
        let values: Vec<f32> = logits
            .try_into_data()
            .map_err(|error| FinetuneError::Device(error.to_string()))?
            .try_to_vec()
            .map_err(|error| FinetuneError::Device(format!("{error:?}")))?;
        for (&i, row) in chunk.iter().zip(values.chunks(width)) {
            outputs[i] = row.to_vec();
        }
        see(sequences.len() - rest.len());
    }
    Ok(outputs)
}

/// The class of each row of logits: the largest one, the first of equals.
pub fn classes(outputs: &[Vec<f32>]) -> Vec<usize> {
    let best = |row: &Vec<f32>| {
        let mut best = 0;
        for (id, logit) in row.iter().enumerate() {
            if *logit > row[best] {
                best = id;
            }
        }
        best
    };
    outputs.iter().map(best).collect()
}

/// The numbers of a model with one output.
pub fn scores(outputs: &[Vec<f32>]) -> Vec<f64> {
    let first = |row: &Vec<f32>| row.first().copied().map_or(f64::NAN, f64::from);
    outputs.iter().map(first).collect()
}
