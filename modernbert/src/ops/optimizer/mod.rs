//! One step of StableAdamW on one tensor.
//!
//! With gradient g, moments m and v, and the bias correction folded into the betas by the caller:
//!
//! ```text
//! m = m + (1 - b1)(g - m)
//! v = b2 v + (1 - b2) g²
//! η = lr / max(1, sqrt(mean(g² / max(v, ε²))))         mean over the whole tensor
//! θ = θ (1 - η decay) - η m / (sqrt(v) + ε)
//! ```
//!
//! The mean stays on the device: nothing is read back. On CubeCL devices a step is two launches, a sum and an update; the second
//! reads gradient and second moment again, which for all tensors of a layer lie in the cache by then. Moments and weight are
//! updated where they lie unless somebody else holds them. Source: paper, section 2.2.2; torch-optimi's `StableAdamW`.

#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod portable;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ModernBertBackend;

/// The numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StableAdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Folded decay of the first moment; 0 in the first step.
    pub b1: f64,
    /// Folded decay of the second moment; 0 in the first step.
    pub b2: f64,
    /// Floor of the second moment's root.
    pub epsilon: f64,
    /// Share of a weight lost per unit of learning rate; 0 for a tensor that is not decayed.
    pub decay: f64,
}

/// Weight and both moments after a step; all tensors have one shape.
///
/// With `go`, `[1]`, all three stay as they are, bit for bit, unless its number is above 0: a step whose gradients turn out
/// not to be finite is left out by the device itself, long before the host has read why.
///
/// # Panics
/// When the shapes differ.
pub fn stable_adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    (moment_1, moment_2): (Tensor<D>, Tensor<D>),
    step: StableAdamWStep,
    go: Option<Tensor<1>>,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    for (name, dims) in [
        ("gradient", grad.dims()),
        ("first moment", moment_1.dims()),
        ("second moment", moment_2.dims()),
    ] {
        assert_eq!(dims, weight.dims(), "the {name} has the weight's shape");
    }
    let gated = go.is_some();
    // Without a gate nobody looks at the tensor in its place.
    let go = match go {
        Some(go) => go.into_dispatch(),
        None => grad.clone().into_dispatch(),
    };
    let (weight, moment_1, moment_2) = <Dispatch as ModernBertBackend>::stable_adamw_step(
        weight.into_dispatch(),
        grad.into_dispatch(),
        moment_1.into_dispatch(),
        moment_2.into_dispatch(),
        go,
        step,
        gated,
    );
    (
        Tensor::from_dispatch(weight),
        Tensor::from_dispatch(moment_1),
        Tensor::from_dispatch(moment_2),
    )
}

/// Shapes of the results, which a lazy backend needs before it runs.
#[cfg(feature = "fusion")]
pub(super) fn specs(
    weight: &burn::backend::fusion::custom::TensorSpec,
    _grad: &burn::backend::fusion::custom::TensorSpec,
    moment_1: &burn::backend::fusion::custom::TensorSpec,
    moment_2: &burn::backend::fusion::custom::TensorSpec,
    _go: &burn::backend::fusion::custom::TensorSpec,
    _step: &StableAdamWStep,
    _gated: &bool,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    (weight.clone(), moment_1.clone(), moment_2.clone())
}
