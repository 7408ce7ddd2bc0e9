//! Decoder and cross-entropy together, a chunk of rows at a time, so that the scores of all rows never exist.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, Slice};
use std::ops::Range;

use super::{DecoderSpec, ScoreSpec};
use crate::ops::PackedBackend;
use crate::ops::linear::Transpose;
use crate::ops::primitive::{cast, narrow, reshape};

/// Arguments of a decoder, cut into chunks.
struct Chunks<B: PackedBackend> {
    hidden: FloatTensor<B>,
    /// In the dtype of `hidden`.
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: DecoderSpec,
}

/// One chunk: its hidden states, its sums of losses and hits, and the gradient of its scores.
struct Chunk<B: PackedBackend> {
    hidden: FloatTensor<B>,
    loss: FloatTensor<B>,
    hits: FloatTensor<B>,
    d_logits: FloatTensor<B>,
}

impl<B: PackedBackend> Chunks<B> {
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
            loss: B::total(losses, false),
            hits: B::total(hits, false),
            d_logits,
        }
    }
}

fn chunks<B: PackedBackend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: DecoderSpec,
) -> Chunks<B> {
    Chunks {
        weight: cast::<B>(weight, hidden.dtype()),
        bias: cast::<B>(bias, hidden.dtype()),
        hidden,
        targets,
        weights,
        spec,
    }
}

fn add<B: PackedBackend>(sum: Option<FloatTensor<B>>, more: FloatTensor<B>) -> FloatTensor<B> {
    match sum {
        Some(sum) => B::float_add(sum, more),
        None => more,
    }
}

/// Sums of losses and hits, `[1]` each.
pub(crate) fn forward<B: PackedBackend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: DecoderSpec,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let chunks = chunks::<B>(hidden, weight, bias, targets, weights, spec);
    let (mut loss, mut hits) = (None, None);
    for range in chunks.ranges() {
        let chunk = chunks.chunk(range, false);
        loss = Some(add::<B>(loss, chunk.loss));
        hits = Some(add::<B>(hits, chunk.hits));
    }
    (one::<B>(loss), one::<B>(hits))
}

/// A sum as `[1]`; a decoder of no rows ends before it gets here.
fn one<B: PackedBackend>(sum: Option<FloatTensor<B>>) -> FloatTensor<B> {
    reshape::<B, 1>(sum.expect("a decoder has at least one chunk"), [1])
}

/// As [`forward`], and the gradients of hidden states (in their dtype), weight and bias (in f32) of the sum of losses.
#[allow(clippy::type_complexity)] // five tensors, as the backend extension wants them
pub(crate) fn with_gradients<B: PackedBackend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: DecoderSpec,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
) {
    let half = !matches!(hidden.dtype(), DType::F32 | DType::F64);
    let chunks = chunks::<B>(hidden, weight, bias, targets, weights, spec);
    let (mut loss, mut hits) = (None, None);
    let (mut d_hidden, mut d_weight, mut d_bias) = (Vec::new(), None, None);
    for range in chunks.ranges() {
        let chunk = chunks.chunk(range, true);
        loss = Some(add::<B>(loss, chunk.loss));
        hits = Some(add::<B>(hits, chunk.hits));
        d_hidden.push(B::gemm(
            chunk.d_logits.clone(),
            chunks.weight.clone(),
            Transpose::None,
        ));
        d_bias = Some(add::<B>(d_bias, B::column_sums(chunk.d_logits.clone())));
        let part = if half {
            B::gemm_f32(chunk.d_logits, chunk.hidden, Transpose::Lhs)
        } else {
            B::gemm(chunk.d_logits, chunk.hidden, Transpose::Lhs)
        };
        d_weight = Some(add::<B>(d_weight, part));
    }
    let d_hidden = if d_hidden.len() == 1 {
        d_hidden.remove(0)
    } else {
        B::float_cat(d_hidden, 0)
    };
    (
        one::<B>(loss),
        one::<B>(hits),
        d_hidden,
        d_weight.expect("a decoder has at least one chunk"),
        d_bias.expect("a decoder has at least one chunk"),
    )
}
