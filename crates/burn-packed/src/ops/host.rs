//! Conversions between CPU tensors and slices of f32.

use burn::tensor::{DType, FloatDType, Shape, TensorData};
use burn_flex::FlexTensor;

use super::convert::flex::convert;

/// A tensor whose values can be read as a slice of f32: the tensor itself if it is contiguous and f32, otherwise a copy.
pub(crate) struct HostTensor {
    tensor: FlexTensor,
    start: usize,
    len: usize,
}

impl HostTensor {
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        let tensor = match tensor.dtype() {
            DType::F32 => tensor,
            _ => convert(tensor, FloatDType::F32),
        };
        let tensor = contiguous(tensor);
        let start = tensor.layout().start_offset();
        let len = tensor.layout().num_elements();
        Self { tensor, start, len }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.tensor.storage::<f32>()[self.start..self.start + self.len]
    }
}

/// The tensor itself where its elements are consecutive, otherwise a copy.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// Returns the values of an integer tensor as `usize`.
pub(crate) fn indices(tensor: FlexTensor) -> Vec<usize> {
    let data = tensor.into_data();
    data.iter::<i64>().map(|index| index as usize).collect()
}

/// Returns a tensor of these values, cast to `dtype`.
pub(crate) fn tensor<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    dtype: DType,
) -> FlexTensor {
    let tensor = FlexTensor::from_data(TensorData::new(values, Shape::new(shape)));
    if dtype == DType::F32 {
        tensor
    } else {
        convert(tensor, dtype.into())
    }
}

/// Returns whether the native loops, which compute in f32, serve this tensor; f64 takes the fallback.
pub(crate) fn is_native(tensor: &FlexTensor) -> bool {
    tensor.dtype() != DType::F64
}

/// Returns the number of rows of a parallel task: four tasks per thread for balance, at most 256 rows each.
pub(crate) fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads())
        .clamp(1, 256)
}
