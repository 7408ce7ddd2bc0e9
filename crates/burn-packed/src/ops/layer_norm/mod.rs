//! LayerNorm over the last axis: `out = (x - mean) / sqrt(variance + eps) * weight (+ bias)`, alone or behind a residual sum.
//!
//! The variance is the biased one (divided by the width) and eps stands inside the root. `[tokens, width]` in and out, any
//! float dtype in, any out, computed in f32 (f64 for f64).
//!
//! [`add_layer_norm`] is the pair that every pre-norm block needs: `sum = x + branch` and `norm(sum)`. With `g = d_normed *
//! weight`, `y` the normalised row and `s` its inverse standard deviation, its derivative is one expression,
//!
//! ```text
//! d_x = d_branch = d_sum + s * (g - mean(g) - y * mean(g * y))
//! d_weight       = sum_rows d_normed * y
//! ```
//!
//! so that forward and backward each read and write every tensor once.
//!
//! What is kept for the backward: [`layer_norm`] keeps its input and takes the statistics again. [`add_layer_norm`] keeps
//! `s` and one of two tensors ([`Saved`]): the sum, or, where the output is bf16, the output. The product behind the norm
//! keeps that output in any case, so a norm in a bf16 pass adds four bytes per token to what the graph holds, and the f32
//! sum is free as soon as the next block has read it. `y` is then `normed / weight` with bf16's relative error of at most
//! 2⁻⁸. It enters `d_x` times `mean(g * y)`, which is smaller than `g` by about the root of the width, and `d_weight` in a sum
//! over all rows; both errors lie below the one that a gradient in bf16 brings with it. The price: in a column whose weight is
//! exactly 0 the output says nothing about `y`, and the gradient of that weight counts as 0. f16 has too small a range for this and
//! keeps the sum, as does f32.

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

/// Which tensor of an [`add_layer_norm`] the backward starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The sum; the statistics are taken again.
    Sum,
    /// The output, from which the normalised row follows by division by the weight.
    Normed,
}

impl Saved {
    /// What serves an output of this dtype.
    pub fn for_output(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self::Normed,
            _ => Self::Sum,
        }
    }
}

/// What the backward of [`add_layer_norm`] needs beside tensors.
#[derive(Clone, Copy, Debug)]
pub struct AddNormBackward {
    /// Added to the variance.
    pub eps: f64,
    /// What the saved tensor is.
    pub saved: Saved,
    /// Whether the sum has a gradient of its own; without it the argument is ignored.
    pub joined: bool,
    /// Dtype of the sum and of its gradient.
    pub sum: DType,
    /// Dtype of the branch and of its gradient.
    pub branch: DType,
}

/// LayerNorm of each row of `input` with `weight` and `bias` of the row's width.
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

/// LayerNorm without bias whose result is in `dtype`.
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
/// When the shapes of `x` and `branch` differ.
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
        "a branch has the shape of what it is added to"
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

/// `(sum, normed)` of [`add_layer_norm`] and the inverse standard deviation of each row, for callers that derive by hand.
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

/// Gradients of `x`, the branch and the weight of [`add_layer_norm`], from those of the sum (left out with `spec.joined`
/// false) and of the norm; `saved` is the tensor that `spec.saved` names.
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

/// Gradients of the input and of the weight of [`layer_norm`].
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
