//! Shapes and dtypes of the results, which Fusion needs before an op runs.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::Shape;

use super::ScoreSpec;
use crate::ops::primitive::widened;

pub(in crate::ops) fn row_spec(logits: &TensorSpec, targets: &TensorSpec) -> TensorSpec {
    TensorSpec::new(targets.shape.clone(), widened(logits.dtype))
}

pub(in crate::ops) fn score_specs(
    logits: &TensorSpec,
    _bias: &TensorSpec,
    targets: &TensorSpec,
    _weights: &TensorSpec,
    _spec: &ScoreSpec,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let rows = row_spec(logits, targets);
    (rows.clone(), rows, logits.clone())
}

pub(in crate::ops) fn column_spec(input: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::new([input.shape[1]]), widened(input.dtype))
}
