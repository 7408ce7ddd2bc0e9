//! Gathers rows of a table by index: `out[t] = table[ids[t]]`. It serves the token embedding and the selection of labelled rows.
//!
//! `table [rows, width]` in any float dtype, `ids [tokens]`, result `[tokens, width]` in the table's dtype. The gradient of a row
//! is the sum of the gradients of all tokens that read it, in f32 and in the order of the batch: it is deterministic and needs no
//! atomics. Burn's own derivative processes the tokens one after the other on CubeCL devices.
//!
//! The ids are on the host when a batch is made, and [`TokenOrder`] groups them there. A row that many tokens read (the mask token
//! is a fifth of all tokens in pretraining) is summed in pieces by several thread blocks; a second kernel adds the pieces.

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use super::PackedBackend;
use crate::batch::TokenOrder;

/// Returns `table[ids]`, `[tokens, width]`; `order` is the [`TokenOrder`] of the same ids.
///
/// The caller must check that ids are in `0..rows`; the kernels do not.
///
/// # Panics
/// If `order` and `ids` differ in their number of ids.
pub fn gather_rows(table: Tensor<2>, ids: Tensor<1, Int>, order: TokenOrder) -> Tensor<2> {
    let [tokens] = ids.dims();
    assert_eq!(
        tokens,
        order.len(),
        "gather_rows: {tokens} ids, but an order of {}",
        order.len()
    );
    super::row_moves::gathered(tokens);
    let [_, width] = table.dims();
    if tokens == 0 {
        return Tensor::zeros([0, width], (&table.device(), table.dtype()));
    }
    Tensor::from_dispatch(<Dispatch as PackedBackend>::gather_rows(
        table.into_dispatch(),
        ids.into_dispatch(),
        order,
    ))
}

/// Sums of the rows with equal ids, `out[r] = Σ values[t]` over all t with `ids[t] = r`: segment sums. `values [tokens, width]` in any float
/// dtype, result `[rows, width]` in f32 (f64 for f64), zero in rows that no id names; differentiable.
///
/// It is the gradient of [`gather_rows`], in the same order of summation on every run.
///
/// # Panics
/// If the number of ids of `order` differs from the number of rows of `values`.
pub fn sum_rows(
    values: Tensor<2>,
    ids: Tensor<1, Int>,
    order: TokenOrder,
    rows: usize,
) -> Tensor<2> {
    let ([tokens, width], [count]) = (values.dims(), ids.dims());
    assert!(
        tokens == count && tokens == order.len(),
        "{tokens} rows need as many ids and their order, got {count} ids and an order of {}",
        order.len()
    );
    if tokens == 0 || rows == 0 {
        return Tensor::zeros([rows, width], &values.device());
    }
    gather_rows_backward(values, ids, order, rows)
}

/// Gradient `[rows, width]` of the table in f32 (f64 for f64), differentiable as [`sum_rows`].
pub fn gather_rows_backward(
    d_out: Tensor<2>,
    ids: Tensor<1, Int>,
    order: TokenOrder,
    rows: usize,
) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::gather_rows_backward(
        d_out.into_dispatch(),
        ids.into_dispatch(),
        order,
        rows,
    ))
}

/// Shape and dtype of the result, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn spec(
    table: &burn::backend::fusion::custom::TensorSpec,
    ids: &burn::backend::fusion::custom::TensorSpec,
    _order: &TokenOrder,
) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::new([ids.shape[0], table.shape[1]]);
    burn::backend::fusion::custom::TensorSpec::new(shape, table.dtype)
}

/// Shape and dtype of the gradient.
#[cfg(feature = "fusion")]
pub(super) fn backward_spec(
    d_out: &burn::backend::fusion::custom::TensorSpec,
    _ids: &burn::backend::fusion::custom::TensorSpec,
    _order: &TokenOrder,
    rows: &usize,
) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::new([*rows, d_out.shape[1]]);
    let dtype = super::primitive::widened(d_out.dtype);
    burn::backend::fusion::custom::TensorSpec::new(shape, dtype)
}
