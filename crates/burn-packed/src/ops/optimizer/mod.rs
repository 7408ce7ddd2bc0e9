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
//! The caller corrects the moments' bias: StableAdamW folds it into the betas, AdamW into `lr` and `scale`.
//!
//! The mean stays on the device: nothing is read back. On CubeCL devices a step is two launches for every sixteen tensors, sums (for
//! StableAdamW) and updates (for each tensor through graphics APIs, which promise few buffers to a launch); the second reads gradient
//! and second moment again. Moments and weights are updated where they lie unless somebody else holds them. Source: paper, section
//! 2.2.2; torch-optimi's `StableAdamW`.

#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
mod group;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

#[cfg(feature = "fusion")]
pub(super) use group::specs;
pub use group::{Group, Member, Stepped, SteppedGroup};

use super::PackedBackend;

/// The numbers of a step.
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
    /// Multiplies the second moment's root before that.
    pub root_scale: f64,
    /// Whether the rate shrinks where the second moment lags behind the gradient: StableAdamW.
    pub stable: bool,
    /// Share of a weight lost per unit of learning rate; 0 for a tensor that is not decayed.
    pub decay: f64,
}

/// A parameter before its step: weight, gradient and moments, whatever their number of axes.
pub type Parameter = Member<Dispatch>;

/// A parameter after its step.
pub type SteppedParameter = Stepped<Dispatch>;

impl Parameter {
    /// The tensors of a parameter, which have one shape.
    ///
    /// # Panics
    /// When the shapes differ.
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
            assert_eq!(dims, weight.dims(), "the {name} has the weight's shape");
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
    /// Weight, first and second moment, of the number of axes that [`Parameter::new`] was given.
    pub fn into_tensors<const D: usize>(self) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        (
            Tensor::from_dispatch(self.weight),
            Tensor::from_dispatch(self.moment_1),
            Tensor::from_dispatch(self.moment_2),
        )
    }
}

/// Weights and moments after a step, in the order given; all parameters are on one device.
///
/// With `go`, `[1]`, all of them stay as they are, bit for bit, unless its number is above 0: a step whose gradients turn out
/// not to be finite is left out by the device itself, long before the host has read why.
pub fn adamw_all(parameters: Vec<Parameter>, go: Option<Tensor<1>>) -> Vec<SteppedParameter> {
    let Some(first) = parameters.first() else {
        return Vec::new();
    };
    let gated = go.is_some();
    // Without a gate nobody looks at the tensor in its place.
    let go = match go {
        Some(go) => go.into_dispatch(),
        None => first.grad.clone(),
    };
    <Dispatch as PackedBackend>::adamw_steps(Group(parameters), go, gated).0
}

/// Weight and both moments of one parameter after a step; see [`adamw_all`].
///
/// # Panics
/// When the shapes differ.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: (Tensor<D>, Tensor<D>),
    step: AdamWStep,
    go: Option<Tensor<1>>,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let parameter = Parameter::new(weight, grad, moments, step);
    let mut stepped = adamw_all(vec![parameter], go);
    stepped.remove(0).into_tensors()
}
