//! LayerNorm over the last axis: `out = (x - mean) / sqrt(variance + eps) * weight (+ bias)`.
//!
//! The variance is the biased one (divided by the width) and eps stands inside the root. `[tokens, width]` in and out, any
//! float dtype, computed in f32. Backward keeps the input alone and recomputes the statistics.

pub(super) mod autodiff;
#[cfg(feature = "flex")]
pub(super) mod flex;
pub(super) mod portable;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ModernBertBackend;

/// LayerNorm of each row of `input` with `weight` and `bias` of the row's width.
pub fn layer_norm(
    input: Tensor<2>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<2> {
    let out = Tensor::from_dispatch(<Dispatch as ModernBertBackend>::layer_norm_rows(
        input.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ));
    match bias {
        Some(bias) => out + bias.unsqueeze(),
        None => out,
    }
}

/// Shapes of the backward's results, which a lazy backend needs before it runs.
#[cfg(feature = "cube")]
pub(super) fn backward_specs(
    _d_out: &burn::backend::fusion::custom::TensorSpec,
    input: &burn::backend::fusion::custom::TensorSpec,
    weight: &burn::backend::fusion::custom::TensorSpec,
    _eps: &f64,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    (input.clone(), weight.clone())
}
