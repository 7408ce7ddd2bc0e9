//! LayerNorm over the last axis: `out = (x - mean) / sqrt(variance + eps) * weight (+ bias)`, alone or fused with a residual
//! addition.
//!
//! The variance is biased (divided by the width), and eps is added to it before the root. Input and output are `[tokens, width]` in
//! any float dtypes; the computation is in f32 (f64 for f64).
//!
//! [`add_layer_norm`] computes what every pre-norm block needs: `sum = x + branch` and `norm(sum)`. With `g = d_normed *
//! weight`, `y` the normalized row and `s` its inverse standard deviation, its derivative is
//!
//! ```text
//! d_x = d_branch = d_sum + s * (g - mean(g) - y * mean(g * y))
//! d_weight       = sum_rows d_normed * y
//! ```
//!
//! so forward and backward pass each read and write every tensor once.
//!
//! # Activations saved for backward
//!
//! [`layer_norm`] saves its input and computes the statistics again. [`add_layer_norm`] saves `s` and one of two tensors
//! ([`SavedNorm`]): the output if it is bf16, otherwise the sum. The linear layer after the norm saves that output anyway, so a norm in
//! a bf16 pass adds four bytes per token to the graph, and the f32 sum is freed as soon as the next block has read it.
//!
//! With the output saved, `y` is `normed / weight` with bf16's relative error of at most 2⁻⁸. `y` enters `d_x` multiplied by
//! `mean(g * y)`, which is smaller than `g` by about the root of the width, and `d_weight` in a sum over all rows; both errors are
//! smaller than the rounding of a bf16 gradient. The drawback: in a column whose weight is exactly 0 the output does not determine
//! `y`, and the gradient of that weight is 0. f16 has too small a range for this method and saves the sum, as does f32.

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;
#[cfg(feature = "fusion")]
mod specs;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

use super::PackedBackend;
#[cfg(feature = "fusion")]
pub(super) use specs::*;

/// The tensor that [`add_layer_norm`] saves for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedNorm {
    /// The sum; its statistics are computed again.
    Sum,
    /// The output; divided by the weight it is the normalized row.
    Normed,
}

impl SavedNorm {
    /// Returns what is saved for an output of this dtype.
    pub fn for_output(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self::Normed,
            _ => Self::Sum,
        }
    }
}

/// Settings of the backward pass of [`add_layer_norm`].
#[derive(Clone, Copy, Debug)]
pub struct AddNormBackward {
    /// Added to the variance.
    pub eps: f64,
    /// The saved tensor.
    pub saved: SavedNorm,
    /// True if the sum has a gradient of its own; the argument is ignored otherwise.
    pub has_d_sum: bool,
    /// Dtype of the sum and of its gradient.
    pub sum: DType,
    /// Dtype of the branch and of its gradient.
    pub branch: DType,
}

/// LayerNorm of each row of `input [tokens, width]` with `weight [width]` and `bias [width]`, in the dtype of `input`.
pub fn layer_norm(
    input: Tensor<2>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<2> {
    let dtype = input.dtype();
    let out = layer_norm_to(input, weight, eps, dtype);
    match bias {
        Some(bias) => out + bias.unsqueeze(),
        None => out,
    }
}

/// LayerNorm of each row of `input [tokens, width]` with `weight [width]`, in `dtype`.
pub fn layer_norm_to(input: Tensor<2>, weight: Tensor<1>, eps: f64, dtype: DType) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::layer_norm_rows(
        input.into_dispatch(),
        weight.into_dispatch(),
        eps,
        dtype,
    ))
}

/// `(x + branch, norm(x + branch) * weight)`: the sum in the dtype of `x`, the norm in `dtype`.
///
/// `x` and `branch` are `[tokens, width]`, `branch` in any float dtype.
///
/// # Panics
/// If the shapes of `x` and `branch` differ.
pub fn add_layer_norm(
    x: Tensor<2>,
    branch: Tensor<2>,
    weight: Tensor<1>,
    eps: f64,
    dtype: DType,
) -> (Tensor<2>, Tensor<2>) {
    assert_eq!(
        x.dims(),
        branch.dims(),
        "add_layer_norm: x and branch have different shapes"
    );
    let (sum, normed) = <Dispatch as PackedBackend>::add_layer_norm(
        x.into_dispatch(),
        branch.into_dispatch(),
        weight.into_dispatch(),
        eps,
        dtype,
    );
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(normed))
}

/// Forward pass of [`add_layer_norm`] without autodiff: `(sum, normed)` and the inverse standard deviation of each row, `[tokens]`.
pub fn add_layer_norm_forward(
    x: Tensor<2>,
    branch: Tensor<2>,
    weight: Tensor<1>,
    eps: f64,
    dtype: DType,
) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    let (sum, normed, inv_std) = <Dispatch as PackedBackend>::add_layer_norm_forward(
        x.into_dispatch(),
        branch.into_dispatch(),
        weight.into_dispatch(),
        eps,
        dtype,
    );
    (
        Tensor::from_dispatch(sum),
        Tensor::from_dispatch(normed),
        Tensor::from_dispatch(inv_std),
    )
}

/// Backward pass of [`add_layer_norm`] without autodiff: gradients of `x`, branch and weight.
///
/// `d_sum` is ignored unless `spec.has_d_sum`; `saved` is the tensor that `spec.saved` names, `inv_std` is `[tokens]`.
pub fn add_layer_norm_backward(
    (d_sum, d_normed): (Tensor<2>, Tensor<2>),
    (saved, inv_std): (Tensor<2>, Tensor<1>),
    weight: Tensor<1>,
    spec: AddNormBackward,
) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    let (d_x, d_branch, d_weight) = <Dispatch as PackedBackend>::add_layer_norm_backward(
        d_sum.into_dispatch(),
        d_normed.into_dispatch(),
        saved.into_dispatch(),
        inv_std.into_dispatch(),
        weight.into_dispatch(),
        spec,
    );
    (
        Tensor::from_dispatch(d_x),
        Tensor::from_dispatch(d_branch),
        Tensor::from_dispatch(d_weight),
    )
}

/// Backward pass of [`layer_norm`] without autodiff: gradients of input and weight.
pub fn layer_norm_backward(
    d_out: Tensor<2>,
    input: Tensor<2>,
    weight: Tensor<1>,
    eps: f64,
) -> (Tensor<2>, Tensor<1>) {
    let (d_input, d_weight) = <Dispatch as PackedBackend>::layer_norm_rows_backward(
        d_out.into_dispatch(),
        input.into_dispatch(),
        weight.into_dispatch(),
        eps,
    );
    (
        Tensor::from_dispatch(d_input),
        Tensor::from_dispatch(d_weight),
    )
}
