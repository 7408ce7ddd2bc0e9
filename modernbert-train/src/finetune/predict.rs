//! Outputs of a model for many examples.

use burn::tensor::Device;
use modernbert::batch::PackedBatch;
use modernbert::model::{Architecture, SequenceClassifier};

use super::FinetuneError;
use super::example::Example;
use super::sequence::logits;

/// Tokens of a batch. Large enough to keep a GPU busy; on a CPU it makes no difference.
const BATCH_TOKENS: usize = 16_384;

/// Outputs of the classifier for each sequence, in the order given: logits of the classes, or one number. All tokens have type 0; see
/// [`predict_examples`] for pairs of models with token types.
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
    let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
    in_batches(&lengths, batch_tokens, see, |chunk| {
        let rows: Vec<&[u32]> = chunk.iter().map(|&i| sequences[i]).collect();
        logits(model, &PackedBatch::from_sequences(&rows, &device)?)
    })
}

/// Outputs of a model for examples of any kind, in the order given, as [`Example::predict`] defines them.
///
/// Meanwhile the examples are sorted by length and packed into batches of 16384 tokens.
///
/// # Errors
/// A device that can't be read.
pub fn predict_examples<E: Example>(
    model: &E::Model,
    examples: &[E],
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    predict_examples_with(model, examples, &mut |_| {})
}

/// As [`predict_examples`]; `see` is called after each batch with the number of examples done.
///
/// # Errors
/// As for [`predict_examples`].
pub fn predict_examples_with<E: Example>(
    model: &E::Model,
    examples: &[E],
    see: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    let device: Device = model.encoder().device();
    let lengths: Vec<usize> = examples.iter().map(E::tokens).collect();
    in_batches(&lengths, BATCH_TOKENS, see, |chunk| {
        let members: Vec<&E> = chunk.iter().map(|&i| &examples[i]).collect();
        let rows: Vec<&[u32]> = members.iter().flat_map(|e| e.sequences()).collect();
        let mut batch = PackedBatch::from_sequences(&rows, &device)?;
        if model.encoder().config().token_types > 1 {
            batch = batch.with_second_texts(members.iter().flat_map(|e| e.seconds()));
        }
        E::predict(model, &batch, &members)
    })
}

/// Outputs of items of these lengths, in order; `run` computes those of a batch of them, given by their indices.
fn in_batches(
    lengths: &[usize],
    batch_tokens: usize,
    see: &mut dyn FnMut(usize),
    mut run: impl FnMut(&[usize]) -> Result<Vec<Vec<f32>>, FinetuneError>,
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let mut outputs = vec![Vec::new(); lengths.len()];
    let mut rest = &order[..];
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|&&i| {
            tokens += lengths[i];
            tokens <= batch_tokens
        });
        // An item longer than the budget is a batch of its own.
        let count = fits.count().max(1);
        let (chunk, later) = rest.split_at(count);
        rest = later;
        for (&i, row) in chunk.iter().zip(run(chunk)?) {
            outputs[i] = row;
        }
        see(lengths.len() - rest.len());
    }
    Ok(outputs)
}

/// The class of each row of logits: the largest one, the first of equals.
pub fn classes(outputs: &[Vec<f32>]) -> Vec<usize> {
    outputs.iter().map(|row| largest(row)).collect()
}

/// Position of the largest number, the first of equals; 0 of none.
pub(super) fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in row.iter().enumerate() {
        if *logit > row[best] {
            best = id;
        }
    }
    best
}

/// The numbers of a model with one output.
pub fn scores(outputs: &[Vec<f32>]) -> Vec<f64> {
    let first = |row: &Vec<f32>| row.first().copied().map_or(f64::NAN, f64::from);
    outputs.iter().map(first).collect()
}
