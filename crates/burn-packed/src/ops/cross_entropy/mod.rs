//! Cross-entropy of each row: `loss_t = log sum_v exp(logits[t, v]) - logits[t, target_t]`, alone or fused with a decoder.
//!
//! `logits [rows, classes]` in any float dtype, `targets [rows]` of class ids, result `[rows]` in f32 (nats). There is no
//! ignored class: the caller gives rows that do not count the weight 0. Only logits and targets are saved for backward; Burn's own
//! loss saves three copies of the logits.
//!
//! [`decoder_loss`] starts from the hidden states and never holds all scores. For each chunk of rows it computes
//!
//! ```text
//! logits   = hidden · weightᵀ + bias
//! loss    += sum_t w_t loss_t              hits += sum_t w_t [no class beats the target]
//! d_logits = w_t (softmax(logits_t) - onehot(target_t))              in place of the scores
//! d_hidden = d_logits · weight             d_weight += d_logitsᵀ · hidden             d_bias += sum_t d_logits_t
//! ```
//!
//! The forward pass already computes the gradients of the sum; the backward pass multiplies them by the gradient of the loss. Saved
//! for backward is therefore one gradient per argument, and nothing of size rows × classes. A class beats the target if its score
//! is higher, or equal with a smaller id: a hit is a row whose argmax (the first of equals) is the target.

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

/// Optional parts of a pass over scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreSpec {
    /// True if the bias is added to the scores; the argument is ignored otherwise.
    pub bias: bool,
    /// True if the gradient overwrites the scores.
    pub gradient: bool,
}

/// Settings of a decoder's loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSpec {
    /// True if there is a bias; the argument is ignored otherwise.
    pub bias: bool,
    /// Rows of a chunk.
    pub rows: usize,
}

/// Largest size of a chunk's scores in bytes on CUDA: large, for large GEMMs.
pub const LARGE_CHUNK: usize = 512 << 20;
/// Largest size of a chunk's scores in bytes on other devices: small, for small buffers (WebGPU guarantees 128 MiB) and CPU caches.
pub const SMALL_CHUNK: usize = 64 << 20;
/// The rows of a chunk are a multiple of this, the height of a GEMM tile.
const CHUNK_ROWS: usize = 128;

/// Returns the largest size of a chunk's scores in bytes on `device`.
pub fn chunk_bytes(device: &Device) -> usize {
    let is_cuda = format!("{device:?}").to_lowercase().contains("cuda");
    if is_cuda { LARGE_CHUNK } else { SMALL_CHUNK }
}

impl DecoderSpec {
    /// Returns settings with a chunk size that suits the device, for scores in `dtype`.
    pub fn new(bias: bool, classes: usize, dtype: DType, device: &Device) -> Self {
        Self::with_chunks(bias, classes, dtype, chunk_bytes(device))
    }

    /// Returns settings with chunks whose scores take at most `bytes` bytes.
    pub fn with_chunks(bias: bool, classes: usize, dtype: DType, bytes: usize) -> Self {
        let rows = bytes / (classes.max(1) * dtype.size());
        Self {
            bias,
            rows: (rows / CHUNK_ROWS * CHUNK_ROWS).max(CHUNK_ROWS),
        }
    }
}

/// Cross-entropy of each row of `logits [rows, classes]` for `targets [rows]`: `[rows]`, in nats.
///
/// The caller must check that targets are in `0..classes`; the kernels do not.
///
/// # Panics
/// If the numbers of rows differ, or in f64 on a device for which [`crate::device::computes_in`] returns false.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let ([rows, _], [labels]) = (logits.dims(), targets.dims());
    assert_eq!(
        rows, labels,
        "cross_entropy: {rows} rows of logits but {labels} targets"
    );
    refuse_f64(&logits.device(), logits.dtype(), "cross_entropy");
    Tensor::from_dispatch(<Dispatch as PackedBackend>::cross_entropy_rows(
        logits.into_dispatch(),
        targets.into_dispatch(),
    ))
}

/// Sum of the weighted cross-entropies of `hidden · weightᵀ + bias`, and sum of the weights of the hits; `[1]` each.
///
/// # Arguments
/// - `hidden`: `[rows, width]`, in the dtype of the GEMMs.
/// - `weight`: `[classes, width]`, `bias`: `[classes]`, in f32; they are cast to the dtype of `hidden`, their gradients are f32.
/// - `targets`: `[rows]` of class ids, `weights`: `[rows]` in f32, 0 for a row that does not count. Neither has a gradient.
/// - `rows`: rows of a chunk; `None` for those of [`DecoderSpec::new`].
///
/// Without rows both results are the constant 0.
///
/// # Panics
/// If the shapes are inconsistent, or in f64 on a device for which [`crate::device::computes_in`] returns false.
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
        "decoder_loss: the weight {:?} takes inputs of width {expected}, got {width}",
        weight.dims()
    );
    assert!(
        targets.dims() == [count] && weights.dims() == [count],
        "decoder_loss: {count} rows of hidden states, but targets {:?} and weights {:?}",
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

/// Weighted losses `[rows]`, weighted hits `[rows]` and the gradient of the scores `[rows, classes]`, without autodiff.
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
