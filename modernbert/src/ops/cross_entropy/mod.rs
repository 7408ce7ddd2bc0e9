//! Cross-entropy of each row: `loss_t = log sum_v exp(logits[t, v]) - logits[t, target_t]`.
//!
//! `logits [rows, classes]` in any float dtype, `targets [rows]` of class ids, result `[rows]` in f32 (nats). There is no
//! ignored class: rows that shouldn't count get weight zero by the caller. Backward keeps the logits and the targets
//! alone; Burn's own loss keeps three copies of the logits.

pub(super) mod autodiff;
#[cfg(feature = "flex")]
pub(super) mod flex;
pub(super) mod portable;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use super::{ModernBertBackend, refuse_f64};

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
    Tensor::from_dispatch(<Dispatch as ModernBertBackend>::cross_entropy_rows(
        logits.into_dispatch(),
        targets.into_dispatch(),
    ))
}

/// Shape of the result, which a lazy backend needs before it runs.
#[cfg(feature = "cube")]
pub(super) fn row_spec(
    logits: &burn::backend::fusion::custom::TensorSpec,
    targets: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    use burn::tensor::DType;
    let dtype = match logits.dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    burn::backend::fusion::custom::TensorSpec::new(targets.shape.clone(), dtype)
}
