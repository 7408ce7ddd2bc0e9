//! Extractive question answering: start and end of the answer in the text.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::labels::check_count;
use super::{LabelError, PredictionHead, before_classifier, mean_of_labelled};
use crate::batch::{Dropout, PackedBatch, SequenceLayout, int_tensor};
use crate::config::flexbert::LossSpec;
use crate::config::{ConfigError, ModernBertConfig};
use crate::model::encoder::ModernBert;
use crate::model::linear::Linear;
use crate::model::precision::Precision;

/// Score of a padding position: finite, so that a masked softmax never computes `inf - inf`.
const HIDDEN: f32 = -1e30;

/// The encoder with two outputs per token: the scores of an answer that starts or ends there.
#[derive(Module, Debug)]
pub struct QuestionAnswerer {
    /// The encoder.
    pub model: ModernBert,
    head: Option<PredictionHead>,
    classifier: Linear,
}

/// Scores of every token of a batch.
#[derive(Clone, Debug)]
pub struct SpanLogits {
    /// Score of each token as the first of the answer, `[total]`.
    pub start: Tensor<1>,
    /// Score of each token as the last of the answer, `[total]`.
    pub end: Tensor<1>,
}

/// Position of the answer in each sequence; both ends inclusive, in tokens from the start of the sequence.
///
/// `None` leaves a sequence out: its answer was truncated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanLabels {
    /// First token of each answer.
    pub starts: Vec<Option<u32>>,
    /// Last token of each answer.
    pub ends: Vec<Option<u32>>,
}

/// Result of a labelled batch.
#[derive(Clone, Debug)]
pub struct SpanOutput {
    /// Mean of the losses of start and end, each the mean over the labelled sequences, `[1]`.
    pub loss: Tensor<1>,
    /// Scores of every token.
    pub logits: SpanLogits,
}

impl QuestionAnswerer {
    /// A model with all weights zero.
    ///
    /// # Errors
    /// As [`ModernBertConfig::validate`].
    pub fn new(config: &ModernBertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            model: ModernBert::new(config, device)?,
            head: PredictionHead::of_tokens(config, device),
            classifier: Linear::new(config.hidden_size, 2, true, device),
        })
    }

    /// The same model with its matrix multiplications in another dtype.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model = self.model.with_precision(precision);
        self
    }

    /// The same model with a residual stream in its precision; see [`ModernBert::with_half_residual`].
    pub fn with_half_residual(mut self, half: bool) -> Self {
        self.model = self.model.with_half_residual(half);
        self
    }

    /// The same model for inference alone; see [`ModernBert::for_inference`].
    pub fn for_inference(mut self) -> Self {
        self.model = self.model.for_inference();
        self
    }

    /// Scores of every token of the batch, in f32.
    pub fn logits(&self, batch: &PackedBatch) -> SpanLogits {
        self.scores(self.model.forward(batch), batch.dropout)
    }

    /// Scores for hidden states `[rows, hidden]`.
    pub fn decode(&self, hidden: Tensor<2>) -> SpanLogits {
        self.scores(hidden, None)
    }

    fn scores(&self, hidden: Tensor<2>, dropped: Option<Dropout>) -> SpanLogits {
        let z = match &self.head {
            Some(head) => {
                let z = head.forward(hidden, self.model.head_precision());
                before_classifier(z, dropped)
            }
            // BERT has neither head nor dropout here.
            None => hidden,
        };
        let [start, end] = self.outputs(self.classifier.forward(z));
        SpanLogits { start, end }
    }

    /// Start and end of `[rows, 2]`.
    fn outputs(&self, both: Tensor<2>) -> [Tensor<1>; 2] {
        [0, 1].map(|i| both.clone().narrow(1, i, 1).flatten::<1>(0, 1))
    }

    /// Scores and loss: cross-entropy over the tokens of each sequence.
    ///
    /// Padding is excluded from the softmax. Hugging Face's loss includes the scores of padding positions, so the two agree on
    /// batches without padding.
    ///
    /// # Errors
    /// A number of spans that differs from the number of sequences; a position after the end of its sequence.
    pub fn forward(
        &self,
        batch: &PackedBatch,
        labels: &SpanLabels,
    ) -> Result<SpanOutput, LabelError> {
        check_spans(&batch.layout, "start", &labels.starts)?;
        check_spans(&batch.layout, "end", &labels.ends)?;
        let logits = self.logits(batch);
        let of = |scores: &Tensor<1>, positions: &[Option<u32>]| {
            // Padding has a score of -1e30, over which no share of a target can be spread.
            let scores = by_sequence(scores.clone(), &batch.layout);
            mean_of_labelled(scores, positions, LossSpec::default())
        };
        let loss = of(&logits.start, &labels.starts) + of(&logits.end, &labels.ends);
        Ok(SpanOutput {
            loss: loss * 0.5,
            logits,
        })
    }
}

fn check_spans(
    layout: &SequenceLayout,
    which: &'static str,
    positions: &[Option<u32>],
) -> Result<(), LabelError> {
    check_count("sequences", layout.num_sequences(), positions.len())?;
    for (index, (position, length)) in positions.iter().zip(layout.lengths()).enumerate() {
        if let Some(position) = *position
            && position as usize >= length
        {
            return Err(LabelError::Position {
                which,
                index,
                position,
                length,
            });
        }
    }
    Ok(())
}

/// Packed scores `[total]` as `[sequences, longest]`, masked after the end of a sequence.
fn by_sequence(scores: Tensor<1>, layout: &SequenceLayout) -> Tensor<2> {
    let device = scores.device();
    let (rows, width) = (layout.num_sequences(), layout.max_seqlen());
    let mut rows_of = vec![0i32; rows * width];
    let mut mask = vec![HIDDEN; rows * width];
    for (row, range) in layout.ranges().enumerate() {
        for (column, token) in range.enumerate() {
            rows_of[row * width + column] = token as i32;
            mask[row * width + column] = 0.0;
        }
    }
    let mask = Tensor::<1>::from_data(TensorData::new(mask, [rows * width]), &device);
    let scores = scores.select(0, int_tensor(rows_of.into_iter(), &device));
    (scores + mask).reshape([rows, width])
}
