//! Shapes and dtypes of the results, which Fusion needs before an op runs.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};

use super::AddNormBackward;
use crate::ops::primitive::widened;

pub(in crate::ops) fn forward_spec(
    input: &TensorSpec,
    _weight: &TensorSpec,
    _eps: &f64,
    out: &DType,
) -> TensorSpec {
    TensorSpec::new(input.shape.clone(), *out)
}

pub(in crate::ops) fn backward_specs(
    _d_out: &TensorSpec,
    input: &TensorSpec,
    weight: &TensorSpec,
    _eps: &f64,
) -> (TensorSpec, TensorSpec) {
    (input.clone(), weight.clone())
}

pub(in crate::ops) fn add_specs(
    x: &TensorSpec,
    _branch: &TensorSpec,
    _weight: &TensorSpec,
    _eps: &f64,
    out: &DType,
) -> (TensorSpec, TensorSpec) {
    (x.clone(), TensorSpec::new(x.shape.clone(), *out))
}

pub(in crate::ops) fn add_forward_specs(
    x: &TensorSpec,
    branch: &TensorSpec,
    weight: &TensorSpec,
    eps: &f64,
    out: &DType,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let (sum, normed) = add_specs(x, branch, weight, eps, out);
    let inv_std = TensorSpec::new(Shape::new([x.shape[0]]), widened(x.dtype));
    (sum, normed, inv_std)
}

pub(in crate::ops) fn add_backward_specs(
    _d_sum: &TensorSpec,
    _d_normed: &TensorSpec,
    saved: &TensorSpec,
    _inv_std: &TensorSpec,
    weight: &TensorSpec,
    spec: &AddNormBackward,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    (
        TensorSpec::new(saved.shape.clone(), spec.sum),
        TensorSpec::new(saved.shape.clone(), spec.branch),
        weight.clone(),
    )
}
