//! The optimizer step from tensor operations that every backend has.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{Scalar, Shape};

use super::{AdamWStep, GroupParameter, ParameterGroup, Stepped, SteppedGroup};
use crate::ops::primitive::cast;

/// Steps one parameter after the other.
pub(crate) fn steps<B: Backend>(
    group: ParameterGroup<B>,
    apply: Option<FloatTensor<B>>,
) -> SteppedGroup<B> {
    let stepped = group.0.into_iter().map(|parameter| {
        let GroupParameter {
            weight,
            grad,
            moment_1,
            moment_2,
            step,
        } = parameter;
        let (weight, moment_1, moment_2) =
            self::step::<B>(weight, grad, (moment_1, moment_2), apply.clone(), step);
        Stepped {
            weight,
            moment_1,
            moment_2,
        }
    });
    SteppedGroup(stepped.collect())
}

pub(crate) fn step<B: Backend>(
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    (moment_1, moment_2): (FloatTensor<B>, FloatTensor<B>),
    apply: Option<FloatTensor<B>>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = weight.shape();
    if shape.num_elements() == 0 {
        return (weight, moment_1, moment_2);
    }
    if let Some(flag) = apply {
        let before = [weight.clone(), moment_1.clone(), moment_2.clone()];
        let after = self::step::<B>(weight, grad, (moment_1, moment_2), None, step);
        let settings = get_or_init_device_settings::<B>(&flag.device());
        // Negated, because `flag <= 0` is false for NaN and would let the update through.
        let is_set = B::float_greater_elem(flag, Scalar::from(0.0), settings.bool_dtype);
        let skipped = B::bool_reshape(B::bool_not(is_set), Shape::from(vec![1; shape.num_dims()]));
        let skipped = B::bool_expand(skipped, shape);
        let [weight, moment_1, moment_2] = before;
        return (
            B::float_mask_where(after.0, skipped.clone(), weight),
            B::float_mask_where(after.1, skipped.clone(), moment_1),
            B::float_mask_where(after.2, skipped, moment_2),
        );
    }
    let grad = cast::<B>(grad, weight.dtype());
    let square = B::float_mul(grad.clone(), grad.clone());
    let towards = B::float_mul_scalar(
        B::float_sub(grad, moment_1.clone()),
        Scalar::from(1.0 - step.b1),
    );
    let moment_1 = B::float_add(moment_1, towards);
    let moment_2 = B::float_add(
        B::float_mul_scalar(moment_2, Scalar::from(step.b2)),
        B::float_mul_scalar(square.clone(), Scalar::from(1.0 - step.b2)),
    );
    let mut root = B::float_sqrt(moment_2.clone());
    if step.root_scale != 1.0 {
        root = B::float_mul_scalar(root, Scalar::from(step.root_scale));
    }
    let root = B::float_add_scalar(root, Scalar::from(step.epsilon));
    let direction = B::float_div(moment_1.clone(), root);
    if !step.stable {
        let decayed = if step.decay == 0.0 {
            weight
        } else {
            B::float_mul_scalar(weight, Scalar::from(1.0 - step.lr * step.decay))
        };
        let update = B::float_mul_scalar(direction, Scalar::from(step.lr));
        return (B::float_sub(decayed, update), moment_1, moment_2);
    }
    let floor = Scalar::from(step.epsilon * step.epsilon);
    let ratio = B::float_div(square, B::float_clamp_min(moment_2.clone(), floor));
    let rms = B::float_sqrt(B::float_mean(ratio));
    let clipped = B::float_recip(B::float_clamp_min(rms, Scalar::from(1.0)));
    let eta = B::float_reshape(
        B::float_mul_scalar(clipped, Scalar::from(step.lr)),
        Shape::from(vec![1; shape.num_dims()]),
    );
    let decayed = if step.decay == 0.0 {
        weight
    } else {
        let factor = B::float_mul_scalar(eta.clone(), Scalar::from(-step.decay));
        B::float_mul(weight, B::float_add_scalar(factor, Scalar::from(1.0)))
    };
    let update = B::float_mul(direction, eta);
    (B::float_sub(decayed, update), moment_1, moment_2)
}
