//! One step of AdamW or StableAdamW on any number of tensors.
//!
//! With gradient g and moments m and v:
//!
//! ```text
//! m = m + (1 - b1)(g - m)
//! v = b2 v + (1 - b2) g²
//! η = lr                                               AdamW
//! η = lr / max(1, sqrt(mean(g² / max(v, ε²))))         StableAdamW; mean over the whole tensor
//! θ = θ (1 - η decay) - η m / (sqrt(v) scale + ε)
//! ```
//!
//! The caller corrects the bias of the moments: StableAdamW folds the correction into the betas, AdamW into `lr` and `scale`.
//!
//! The mean stays on the device; nothing is read back. On CubeCL devices a step takes two launches per sixteen tensors, one for the
//! means (StableAdamW only) and one for the updates; through graphics APIs, which guarantee few buffers per launch, two per tensor. The
//! second launch reads gradient and second moment again. Moments and weights are updated in place if they are uniquely owned.
//! Source: the ModernBERT paper, section 2.2.2; torch-optimi's `StableAdamW`.

#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;
mod group;
mod kahan;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

#[cfg(feature = "fusion")]
pub(super) use group::specs;
pub use group::{GroupParameter, ParameterGroup, Stepped, SteppedGroup};
pub use kahan::{KahanStepped, adamw_kahan};

use super::PackedBackend;

/// Hyperparameters of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub b1: f64,
    /// Decay of the second moment.
    pub b2: f64,
    /// Added to the second moment's root.
    pub epsilon: f64,
    /// Factor of the second moment's root, applied before `epsilon` is added.
    pub root_scale: f64,
    /// True if the learning rate is reduced where the second moment lags behind the gradient (StableAdamW).
    pub stable: bool,
    /// Weight decay per unit of learning rate; 0 for a tensor that is not decayed.
    pub decay: f64,
}

/// A parameter before its step: weight, gradient and moments, of any rank.
pub type Parameter = GroupParameter<Dispatch>;

/// A parameter after its step.
pub type SteppedParameter = Stepped<Dispatch>;

impl Parameter {
    /// A parameter of these tensors, which have the same shape.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn new<const D: usize>(
        weight: Tensor<D>,
        grad: Tensor<D>,
        (moment_1, moment_2): (Tensor<D>, Tensor<D>),
        step: AdamWStep,
    ) -> Self {
        for (name, dims) in [
            ("gradient", grad.dims()),
            ("first moment", moment_1.dims()),
            ("second moment", moment_2.dims()),
        ] {
            assert_eq!(
                dims,
                weight.dims(),
                "the {name}'s shape differs from the weight's"
            );
        }
        Self {
            weight: weight.into_dispatch(),
            grad: grad.into_dispatch(),
            moment_1: moment_1.into_dispatch(),
            moment_2: moment_2.into_dispatch(),
            step,
        }
    }
}

impl SteppedParameter {
    /// Returns weight, first and second moment, with the rank that was given to [`Parameter::new`].
    pub fn into_tensors<const D: usize>(self) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        (
            Tensor::from_dispatch(self.weight),
            Tensor::from_dispatch(self.moment_1),
            Tensor::from_dispatch(self.moment_2),
        )
    }
}

/// Steps all parameters, which are on one device; returns weights and moments in the same order.
///
/// `apply` is a flag of shape `[1]`: if it is given and not above 0, all parameters stay bit-identical. The device thereby skips a step
/// by itself, without a readback: with non-finite gradients (PyTorch's `found_inf`, inverted), or a loss spike.
pub fn adamw_all(parameters: Vec<Parameter>, apply: Option<Tensor<1>>) -> Vec<SteppedParameter> {
    let Some(first) = parameters.first() else {
        return Vec::new();
    };
    let gated = apply.is_some();
    // An argument of the backend extension cannot be optional; any tensor serves as the placeholder.
    let flag = match apply {
        Some(flag) => flag.into_dispatch(),
        None => first.grad.clone(),
    };
    <Dispatch as PackedBackend>::adamw_steps(ParameterGroup(parameters), flag, gated).0
}

/// Steps one parameter: weight and both moments; see [`adamw_all`].
///
/// # Panics
/// If the shapes differ.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: (Tensor<D>, Tensor<D>),
    step: AdamWStep,
    apply: Option<Tensor<1>>,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let parameter = Parameter::new(weight, grad, moments, step);
    let mut stepped = adamw_all(vec![parameter], apply);
    stepped.remove(0).into_tensors()
}
