//! One labelled example, and the functions of its kind of finetuning.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::LoadReport;
use modernbert::model::Architecture;
use modernbert::{LoadError, Loader};
use sha2::Sha256;

use super::FinetuneError;

/// A labelled example. Its type is the kind of finetuning: it chooses the head, the loss and the outputs that are scored. All else
/// (batches, optimizer, checkpoints, early stopping, resuming) is the same for every kind.
///
/// | type | head | targets of an example |
/// |---|---|---|
/// | [`Sample`](super::Sample) | [`SequenceClassifier`](modernbert::model::SequenceClassifier) | a class, a number, or any number of labels |
/// | [`TaggedSample`](super::TaggedSample) | [`TokenClassifier`](modernbert::model::TokenClassifier) | a tag for each word or token |
/// | [`SpanSample`](super::SpanSample) | [`QuestionAnswerer`](modernbert::model::QuestionAnswerer) | first and last token of an answer |
/// | [`ChoiceSample`](super::ChoiceSample) | [`MultipleChoice`](modernbert::model::MultipleChoice) | one of several choices |
pub trait Example: Clone + Send + Sync + 'static {
    /// The model under training.
    type Model: Architecture;

    /// Loads the model that finetuning starts from, with a new classifier of `outputs` outputs where the head leaves their number open.
    ///
    /// # Errors
    /// As [`ModernBert::load`](modernbert::model::ModernBert::load).
    fn load(
        loader: Loader,
        outputs: usize,
        seed: u64,
    ) -> Result<(Self::Model, LoadReport), LoadError>;

    /// Number of outputs of the model's classifier.
    fn outputs(model: &Self::Model) -> usize;

    /// Token ids of the example's sequences, special tokens included; one for most kinds.
    fn sequences(&self) -> impl Iterator<Item = &[u32]>;

    /// Position of the first token of type 1 in each of [`Self::sequences`]; the length of a sequence without one. For models with token types.
    fn seconds(&self) -> impl Iterator<Item = usize> {
        self.sequences().map(<[u32]>::len)
    }

    /// Number of targets, by which the loss of an example is weighted in the mean of its step: 1 for most kinds, the labelled tokens in
    /// token classification.
    fn targets(&self) -> usize {
        1
    }

    /// Returns the reason why the target doesn't fit a model with `outputs` outputs, or differs in kind from the target of the run's `first` example;
    /// `None` if it fits.
    fn mismatch_reason(&self, first: &Self, outputs: usize) -> Option<String>;

    /// Mean loss over the targets of a micro-batch, `[1]`; `batch` holds the sequences of the examples in order.
    ///
    /// # Panics
    /// If a target doesn't fit the model, which [`Self::mismatch_reason`] reports before a run.
    fn loss(model: &Self::Model, batch: &PackedBatch, examples: &[Self]) -> Tensor<1>;

    /// Outputs for each example of a batch, [`Self::width`] numbers each.
    ///
    /// # Errors
    /// A device that can't be read.
    fn predict(
        model: &Self::Model,
        batch: &PackedBatch,
        examples: &[&Self],
    ) -> Result<Vec<Vec<f32>>, FinetuneError>;

    /// Number of values that [`Self::predict`] returns for the example; `outputs` is that of [`Self::outputs`].
    fn width(&self, outputs: usize) -> usize;

    /// Sum of the losses of the targets, as training computes them, from the example's outputs; `None` where they don't fit.
    fn loss_of(&self, outputs: &[f32]) -> Option<f64>;

    /// Adds the target to the hash by which a checkpoint recognizes its data.
    fn hash_target(&self, hash: &mut Sha256);

    /// Tokens of all sequences.
    fn tokens(&self) -> usize {
        self.sequences().map(<[u32]>::len).sum()
    }
}

/// Cross-entropy of a class in nats, computed in f64; `None` for a class without a logit.
pub(super) fn cross_entropy(logits: &[f32], class: usize) -> Option<f64> {
    let own = f64::from(*logits.get(class)?);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let total: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    Some(total.ln() + largest - own)
}
