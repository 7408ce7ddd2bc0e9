//! Rows of a table by number: `out[t] = table[ids[t]]`.
//!
//! `table [rows, width]` in any float dtype, `ids [tokens]`, result `[tokens, width]` in the table's dtype. The gradient of a row
//! is the sum of the gradients of all tokens that read it, taken in f32 in the order of the batch, so that it is the same in
//! every run and no atomic addition is needed. Burn's own derivative walks over all tokens one after the other on CubeCL
//! devices.
//!
//! The ids are known to the host, where a batch is made; [`TokenOrder`] groups them there. A row that many tokens read (a mask token
//! stands in a fifth of all places) is summed in pieces by different cubes, and the pieces are added up by a second kernel.

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use super::PackedBackend;
use crate::batch::TokenOrder;

/// `table[ids]`.
///
/// An id outside the table is a mistake of the calling code; data is checked where it is read.
///
/// # Panics
/// When `order` is not that of as many ids.
pub fn gather_rows(table: Tensor<2>, ids: Tensor<1, Int>, order: TokenOrder) -> Tensor<2> {
    let [tokens] = ids.dims();
    assert_eq!(
        tokens,
        order.len(),
        "{tokens} ids need their own order, got one of {}",
        order.len()
    );
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

/// Gradient `[rows, width]` of the table in f32 (f64 for f64), for callers that derive by hand.
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

/// Shape of the result, which a lazy backend needs before it runs.
#[cfg(feature = "fusion")]
pub(super) fn spec(
    table: &burn::backend::fusion::custom::TensorSpec,
    ids: &burn::backend::fusion::custom::TensorSpec,
    _order: &TokenOrder,
) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::new([ids.shape[0], table.shape[1]]);
    burn::backend::fusion::custom::TensorSpec::new(shape, table.dtype)
}

/// Shape of the gradient.
#[cfg(feature = "fusion")]
pub(super) fn backward_spec(
    d_out: &burn::backend::fusion::custom::TensorSpec,
    _ids: &burn::backend::fusion::custom::TensorSpec,
    _order: &TokenOrder,
    rows: &usize,
) -> burn::backend::fusion::custom::TensorSpec {
    use burn::tensor::DType;
    let shape = burn::tensor::Shape::new([*rows, d_out.shape[1]]);
    let dtype = match d_out.dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    burn::backend::fusion::custom::TensorSpec::new(shape, dtype)
}
