//! The step on weights in half precision, with Kahan summation.
//!
//! A bf16 weight has 8 significant bits: an update below a 256th of the weight is lost, and most updates are that small. The rounding error of each
//! addition is kept in a second tensor of the weight's dtype and added with the next update. With η, m and v as in the [module](super) and everything
//! computed in f32:
//!
//! ```text
//! k  = k - η m / (sqrt(v) scale + ε) - η decay θ
//! θ' = round(θ + k)
//! k  = round(k - (θ' - θ))
//! ```
//!
//! The decay is part of the compensated sum, as a decay of 1e-5 alone would round to nothing (torch-optimi multiplies the weight by
//! `1 - η decay` first; without decay both are the same). Made of operations that every backend has: half-precision weights are no part of
//! the published recipe, so this step has no kernel of its own.

use burn::tensor::{DType, Tensor};

use super::AdamWStep;

/// A parameter after its step.
#[derive(Clone, Debug)]
pub struct KahanStepped<const D: usize> {
    /// The weight, in its dtype.
    pub weight: Tensor<D>,
    /// The first moment, in its dtype.
    pub moment_1: Tensor<D>,
    /// The second moment, in its dtype.
    pub moment_2: Tensor<D>,
    /// The accumulated rounding error of the weight, in the weight's dtype.
    pub compensation: Tensor<D>,
}

/// Weight, moments and compensation of one parameter after a step. All tensors have one shape and any float dtype; the compensation, zero
/// before the first step, has the weight's. All stay bit-identical if the flag `apply`, `[1]`, is given and not above 0.
///
/// # Panics
/// If the shapes differ.
pub fn adamw_kahan<const D: usize>(
    before: KahanStepped<D>,
    grad: Tensor<D>,
    step: AdamWStep,
    apply: Option<Tensor<1>>,
) -> KahanStepped<D> {
    for (name, dims) in [
        ("gradient", grad.dims()),
        ("first moment", before.moment_1.dims()),
        ("second moment", before.moment_2.dims()),
        ("compensation", before.compensation.dims()),
    ] {
        assert_eq!(
            dims,
            before.weight.dims(),
            "the {name} has the weight's shape"
        );
    }
    let wide = |tensor: &Tensor<D>| tensor.clone().cast(DType::F32);
    let (weight, grad) = (wide(&before.weight), grad.cast(DType::F32));
    let m = wide(&before.moment_1);
    let m = m.clone() + (grad.clone() - m) * (1.0 - step.b1);
    let square = grad.clone() * grad;
    let v = wide(&before.moment_2) * step.b2 + square.clone() * (1.0 - step.b2);
    let direction = m.clone() / (v.clone().sqrt() * step.root_scale + step.epsilon);
    let mut update = direction;
    if step.decay != 0.0 {
        update = update + weight.clone() * step.decay;
    }
    let update = if step.stable {
        let ratio = square / v.clone().clamp_min(step.epsilon * step.epsilon);
        let rms = ratio.mean().sqrt().clamp_min(1.0);
        update * (rms.recip() * step.lr).reshape([1; D])
    } else {
        update * step.lr
    };
    let sum = wide(&before.compensation) - update;
    let dtype = before.weight.dtype();
    let rounded = (weight.clone() + sum.clone()).cast(dtype);
    let left = sum - (rounded.clone().cast(DType::F32) - weight);
    let after = KahanStepped {
        weight: rounded,
        moment_1: m.cast(before.moment_1.dtype()),
        moment_2: v.cast(before.moment_2.dtype()),
        compensation: left.cast(before.compensation.dtype()),
    };
    let Some(apply) = apply else {
        return after;
    };
    let dims = before.weight.dims();
    let open = apply.greater_elem(0.0).reshape([1; D]).expand(dims);
    let choose = |old: Tensor<D>, new: Tensor<D>| old.mask_where(open.clone(), new);
    KahanStepped {
        weight: choose(before.weight, after.weight),
        moment_1: choose(before.moment_1, after.moment_1),
        moment_2: choose(before.moment_2, after.moment_2),
        compensation: choose(before.compensation, after.compensation),
    }
}
