//! Shapes and dtypes of results, which a lazy backend needs before it runs.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};

use super::ScoreSpec;

fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

pub(in crate::ops) fn row_spec(logits: &TensorSpec, targets: &TensorSpec) -> TensorSpec {
    TensorSpec::new(targets.shape.clone(), wide(logits.dtype))
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
    TensorSpec::new(Shape::new([input.shape[1]]), wide(input.dtype))
}
