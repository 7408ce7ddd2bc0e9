//! Gated linear unit with GELU (GeGLU): `out[t, j] = gelu(input[t, j]) * input[t, width + j]`.
//!
//! The first half of a row is activated, the second half is the linear gate; `gelu(x) = x Φ(x)` with the exact normal
//! distribution function, and the exact derivative `Φ(x) + x φ(x)` (Burn's own `gelu` derives the tanh approximation,
//! which differs by up to 9e-4). Input `[tokens, 2 * width]`, output `[tokens, width]`, any float dtype, computed in f32.

pub(super) mod autodiff;
#[cfg(feature = "flex")]
pub(super) mod flex;
pub(super) mod portable;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{ModernBertBackend, refuse_f64};

/// GeGLU of each row.
///
/// # Panics
/// When the width of `input` is odd, and in f64 where [`crate::device::computes_in`] says no.
pub fn geglu(input: Tensor<2>) -> Tensor<2> {
    let [_, width] = input.dims();
    assert!(
        width.is_multiple_of(2),
        "geglu splits its input in two halves; {width} columns can't be split"
    );
    refuse_f64(&input.device(), input.dtype(), "geglu");
    Tensor::from_dispatch(<Dispatch as ModernBertBackend>::geglu(
        input.into_dispatch(),
    ))
}
