//! Decoder and cross-entropy fused, a chunk of rows at a time: the scores of all rows are never in memory together.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, Slice};
use std::ops::Range;

use super::{DecoderSpec, ScoreSpec};
use crate::ops::PackedBackend;
use crate::ops::linear::Transpose;
use crate::ops::primitive::{converted, narrow, reshape};

/// Arguments of the decoder's loss.
pub(crate) struct DecoderLossArgs<B: PackedBackend> {
    hidden: FloatTensor<B>,
    /// In the dtype of `hidden`.
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: DecoderSpec,
}

/// Results of one chunk of rows.
struct Chunk<B: PackedBackend> {
    /// Hidden states of the chunk's rows.
    hidden: FloatTensor<B>,
    /// Sums of the weighted losses and hits.
    loss: FloatTensor<B>,
    hits: FloatTensor<B>,
    /// Gradient of the scores.
    d_logits: FloatTensor<B>,
}

impl<B: PackedBackend> DecoderLossArgs<B> {
    /// Casts weight and bias to the dtype of the hidden states, once for all chunks.
    pub(crate) fn new(
        hidden: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        targets: IntTensor<B>,
        weights: FloatTensor<B>,
        spec: DecoderSpec,
    ) -> Self {
        Self {
            weight: converted::<B>(weight, hidden.dtype()),
            bias: converted::<B>(bias, hidden.dtype()),
            hidden,
            targets,
            weights,
            spec,
        }
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<B> {
        let (rows, step) = (self.hidden.shape()[0], self.spec.rows.max(1));
        (0..rows)
            .step_by(step)
            .map(move |start| start..(start + step).min(rows))
    }

    fn chunk(&self, range: Range<usize>, gradient: bool) -> Chunk<B> {
        let whole = range.len() == self.hidden.shape()[0];
        let rows = |tensor: &FloatTensor<B>| {
            if whole {
                tensor.clone()
            } else {
                narrow::<B>(tensor.clone(), 0, range.clone())
            }
        };
        let targets = if whole {
            self.targets.clone()
        } else {
            let slice = Slice::new(range.start as isize, Some(range.end as isize), 1);
            B::int_slice(self.targets.clone(), &[slice])
        };
        let hidden = rows(&self.hidden);
        let logits = B::gemm(hidden.clone(), self.weight.clone(), Transpose::Rhs);
        let spec = ScoreSpec {
            bias: self.spec.bias,
            gradient,
        };
        let (losses, hits, d_logits) = B::cross_entropy_scores(
            logits,
            self.bias.clone(),
            targets,
            rows(&self.weights),
            spec,
        );
        Chunk {
            hidden,
            loss: B::sum(losses, false),
            hits: B::sum(hits, false),
            d_logits,
        }
    }

    /// Returns the sums of the weighted losses and hits, `[1]` each.
    pub(crate) fn forward(self) -> (FloatTensor<B>, FloatTensor<B>) {
        let (mut loss, mut hits) = (None, None);
        for range in self.ranges() {
            let chunk = self.chunk(range, false);
            loss = Some(add::<B>(loss, chunk.loss));
            hits = Some(add::<B>(hits, chunk.hits));
        }
        (total::<B>(loss), total::<B>(hits))
    }

    /// Returns the results of [`Self::forward`], and the gradients of the loss: of the hidden states in their dtype, of weight and
    /// bias in f32.
    #[allow(clippy::type_complexity)] // five tensors, as the backend extension requires
    pub(crate) fn with_gradients(
        self,
    ) -> (
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
    ) {
        let is_half = !matches!(self.hidden.dtype(), DType::F32 | DType::F64);
        let (mut loss, mut hits) = (None, None);
        let (mut d_hidden, mut d_weight, mut d_bias) = (Vec::new(), None, None);
        for range in self.ranges() {
            let chunk = self.chunk(range, true);
            loss = Some(add::<B>(loss, chunk.loss));
            hits = Some(add::<B>(hits, chunk.hits));
            d_hidden.push(B::gemm(
                chunk.d_logits.clone(),
                self.weight.clone(),
                Transpose::None,
            ));
            d_bias = Some(add::<B>(d_bias, B::column_sums(chunk.d_logits.clone())));
            let partial = if is_half {
                B::gemm_f32(chunk.d_logits, chunk.hidden, Transpose::Lhs)
            } else {
                B::gemm(chunk.d_logits, chunk.hidden, Transpose::Lhs)
            };
            d_weight = Some(add::<B>(d_weight, partial));
        }
        let d_hidden = if d_hidden.len() == 1 {
            d_hidden.remove(0)
        } else {
            B::float_cat(d_hidden, 0)
        };
        (
            total::<B>(loss),
            total::<B>(hits),
            d_hidden,
            d_weight.expect(NOT_EMPTY),
            d_bias.expect(NOT_EMPTY),
        )
    }
}

/// [`super::decoder_loss`] returns early without rows.
const NOT_EMPTY: &str = "a decoder has at least one chunk";

fn add<B: PackedBackend>(sum: Option<FloatTensor<B>>, more: FloatTensor<B>) -> FloatTensor<B> {
    match sum {
        Some(sum) => B::float_add(sum, more),
        None => more,
    }
}

/// Returns a sum over chunks as `[1]`.
fn total<B: PackedBackend>(sum: Option<FloatTensor<B>>) -> FloatTensor<B> {
    reshape::<B, 1>(sum.expect(NOT_EMPTY), [1])
}
