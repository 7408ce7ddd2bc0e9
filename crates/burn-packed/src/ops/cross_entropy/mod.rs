//! Cross-entropy of each row: `loss_t = log sum_v exp(logits[t, v]) - logits[t, target_t]`, alone or behind a decoder.
//!
//! `logits [rows, classes]` in any float dtype, `targets [rows]` of class ids, result `[rows]` in f32 (nats). There is no
//! ignored class: rows that shouldn't count get weight zero by the caller. Backward keeps the logits and the targets
//! alone; Burn's own loss keeps three copies of the logits.
//!
//! [`decoder_loss`] puts the product with the vocabulary in front and never holds all scores: for a chunk of rows it takes
//!
//! ```text
//! logits   = hidden · weightᵀ + bias
//! loss    += sum_t w_t loss_t              hits += sum_t w_t [no class beats the target]
//! d_logits = w_t (softmax(logits_t) - onehot(target_t))              where the scores lay
//! d_hidden = d_logits · weight             d_weight += d_logitsᵀ · hidden             d_bias += sum_t d_logits_t
//! ```
//!
//! The gradients are those of the sum, taken in the forward; the backward multiplies them by the number that arrives. What is
//! kept is therefore one gradient of each argument, and nothing that grows with rows × classes. A class beats the target when its
//! score is higher, or the same with a smaller id: hits are those of an argmax that takes the first of equals.

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod decoder;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;
#[cfg(feature = "fusion")]
mod specs;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor};

use super::{PackedBackend, refuse_f64};
#[cfg(feature = "fusion")]
pub(super) use specs::*;

/// What a pass over scores does beside taking losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreSpec {
    /// Whether the bias is added to the scores; without it the argument is ignored.
    pub bias: bool,
    /// Whether the gradient takes the place of the scores.
    pub gradient: bool,
}

/// What a decoder needs beside tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSpec {
    /// Whether there is a bias; without it the argument is ignored.
    pub bias: bool,
    /// Rows of a chunk.
    pub rows: usize,
}

/// Bytes that the scores of a chunk may take: many on a card that wants large products, few where memory comes in small
/// buffers (128 MiB are what WebGPU promises) or passes through a cache.
const LARGE_CHUNK: usize = 512 << 20;
const SMALL_CHUNK: usize = 64 << 20;
/// Rows of a chunk come in multiples of this, for the sake of the products.
const CHUNK_ROWS: usize = 128;

impl DecoderSpec {
    /// Chunks of a size that suits the device.
    pub fn new(bias: bool, classes: usize, dtype: DType, device: &Device) -> Self {
        let is_cuda = format!("{device:?}").to_lowercase().contains("cuda");
        let bytes = if is_cuda { LARGE_CHUNK } else { SMALL_CHUNK };
        let rows = bytes / (classes.max(1) * dtype.size());
        Self {
            bias,
            rows: (rows / CHUNK_ROWS * CHUNK_ROWS).max(CHUNK_ROWS),
        }
    }
}

/// Cross-entropy of each row, in nats.
///
/// A target outside `0..classes` is a mistake of the calling code; data is checked where it is read.
///
/// # Panics
/// When the numbers of rows differ, and in f64 where [`crate::device::computes_in`] says no.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let ([rows, _], [labels]) = (logits.dims(), targets.dims());
    assert_eq!(
        rows, labels,
        "{rows} rows of logits need as many targets, got {labels}"
    );
    refuse_f64(&logits.device(), logits.dtype(), "cross_entropy");
    Tensor::from_dispatch(<Dispatch as PackedBackend>::cross_entropy_rows(
        logits.into_dispatch(),
        targets.into_dispatch(),
    ))
}

/// Sum of the weighted cross-entropies of `hidden · weightᵀ + bias` and sum of the weights of the rows that hit, `[1]` each.
///
/// # Arguments
/// - `hidden`: `[rows, width]` in the dtype the product is computed in.
/// - `weight`: `[classes, width]`, `bias`: `[classes]`, in f32; cast to that dtype here, their gradients stay f32.
/// - `targets`: `[rows]` of class ids, `weights`: `[rows]` in f32, 0 for a row that doesn't count. Targets and weights have no gradient.
/// - `rows`: rows of a chunk, if not what [`DecoderSpec::new`] chooses.
///
/// No rows make two constants of 0.
///
/// # Panics
/// When shapes contradict each other, and in f64 where [`crate::device::computes_in`] says no.
pub fn decoder_loss(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    rows: Option<usize>,
) -> (Tensor<1>, Tensor<1>) {
    let ([count, width], [classes, expected]) = (hidden.dims(), weight.dims());
    assert_eq!(
        width,
        expected,
        "a decoder {:?} takes {expected} columns, got {width}",
        weight.dims()
    );
    assert!(
        targets.dims() == [count] && weights.dims() == [count],
        "{count} rows need as many targets and weights, got {:?} and {:?}",
        targets.dims(),
        weights.dims()
    );
    let dtype = hidden.dtype();
    refuse_f64(&hidden.device(), dtype, "decoder_loss");
    if count == 0 {
        let zero = Tensor::zeros([1], (&weights.device(), weights.dtype()));
        return (zero.clone(), zero);
    }
    let mut spec = DecoderSpec::new(bias.is_some(), classes, dtype, &hidden.device());
    spec.rows = rows.unwrap_or(spec.rows);
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1], (&weight.device(), weight.dtype())));
    let (loss, hits) = <Dispatch as PackedBackend>::decoder_loss(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        targets.into_dispatch(),
        weights.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(loss), Tensor::from_dispatch(hits))
}

/// Weighted losses `[rows]`, weighted hits `[rows]` and gradient of the scores, for callers that derive by hand.
pub fn cross_entropy_scores(
    logits: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> (Tensor<1>, Tensor<1>, Tensor<2>) {
    let spec = ScoreSpec {
        bias: bias.is_some(),
        gradient: true,
    };
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1], (&logits.device(), logits.dtype())));
    let (losses, hits, d_logits) = <Dispatch as PackedBackend>::cross_entropy_scores(
        logits.into_dispatch(),
        bias.into_dispatch(),
        targets.into_dispatch(),
        weights.into_dispatch(),
        spec,
    );
    (
        Tensor::from_dispatch(losses),
        Tensor::from_dispatch(hits),
        Tensor::from_dispatch(d_logits),
    )
}
