//! Gated linear unit with GELU (GeGLU): `out[t, j] = gelu(input[t, j]) * input[t, width + j]`.
//!
//! The first half of a row is activated, the second half is the linear gate. `gelu(x) = x Φ(x)` with the exact normal
//! distribution function and the exact derivative `Φ(x) + x φ(x)` (the backward pass of Burn's own `gelu` is that of the tanh
//! approximation, which differs by up to 9e-4). Input `[tokens, 2 * width]`, output `[tokens, width]`, any float dtype, computed in f32.
//!
//! Where no gradient is needed, on GPUs with the Hopper GEMM, [`geglu_mlp`] computes `geglu(x · wiᵀ)` in that GEMM's epilogue, from its f32 sums;
//! elsewhere `x · wiᵀ` is rounded to the dtype first.
//!
//! [`geglu_mlp`] is the whole MLP, `geglu(x · wiᵀ) · woᵀ`, as one node of the autodiff graph. It saves `x` and `u = x · wiᵀ` for
//! backward. The gated rows, which the gradient of `wo` needs, are not saved: the backward kernel reads `u` anyway and computes
//! them again. Backward pass with `g = geglu(u)`:
//!
//! ```text
//! d_g      = d_out · wo           d_u, g = geglu_backward_with_output(d_g, u)
//! d_wo     = d_outᵀ · g           d_wi    = d_uᵀ · x           d_x = d_u · wi
//! ```

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{PackedBackend, refuse_f64};

/// GeGLU of each row: `[tokens, 2 * width]` to `[tokens, width]`.
///
/// # Panics
/// If the width of `input` is odd, or in f64 on a device for which [`crate::device::computes_in`] returns false.
pub fn geglu(input: Tensor<2>) -> Tensor<2> {
    let [_, width] = input.dims();
    assert!(
        width.is_multiple_of(2),
        "geglu splits rows in two halves, and a width of {width} is odd"
    );
    refuse_f64(&input.device(), input.dtype(), "geglu");
    Tensor::from_dispatch(<Dispatch as PackedBackend>::geglu(input.into_dispatch()))
}

/// `geglu(input · wiᵀ) · woᵀ`: input `[tokens, in]`, `wi [2 * width, in]`, `wo [out, width]`, result `[tokens, out]` in the
/// dtype of the input, to which the weights are cast. Gradients of f32 weights are f32 in any pass.
///
/// # Panics
/// If the widths are inconsistent, or in f64 on a device for which [`crate::device::computes_in`] returns false.
pub fn geglu_mlp(input: Tensor<2>, wi: Tensor<2>, wo: Tensor<2>) -> Tensor<2> {
    let ([_, given], [double, expected], [_, width]) = (input.dims(), wi.dims(), wo.dims());
    assert!(
        given == expected && double == 2 * width,
        "geglu_mlp: weights {:?} and {:?} do not fit inputs of width {given}",
        wi.dims(),
        wo.dims()
    );
    refuse_f64(&input.device(), input.dtype(), "geglu_mlp");
    Tensor::from_dispatch(<Dispatch as PackedBackend>::geglu_mlp(
        input.into_dispatch(),
        wi.into_dispatch(),
        wo.into_dispatch(),
    ))
}

/// Gradient of the input of [`geglu`], and its output, in one pass and without autodiff.
pub fn geglu_backward_with_output(d_out: Tensor<2>, input: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let (d_input, out) = <Dispatch as PackedBackend>::geglu_backward_with_output(
        d_out.into_dispatch(),
        input.into_dispatch(),
    );
    (Tensor::from_dispatch(d_input), Tensor::from_dispatch(out))
}

/// Shape and dtype of the MLP's result, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn mlp_spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    _wi: &burn::backend::fusion::custom::TensorSpec,
    wo: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::new([input.shape[0], wo.shape[0]]);
    burn::backend::fusion::custom::TensorSpec::new(shape, input.dtype)
}

/// Shapes and dtypes of the results of [`geglu_backward_with_output`].
#[cfg(feature = "fusion")]
pub(super) fn backward_with_output_specs(
    d_out: &burn::backend::fusion::custom::TensorSpec,
    input: &burn::backend::fusion::custom::TensorSpec,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    let out = burn::backend::fusion::custom::TensorSpec::new(d_out.shape.clone(), input.dtype);
    (input.clone(), out)
}
