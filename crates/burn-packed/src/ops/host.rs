//! CPU tensors as slices: inputs that loops read in f32, and results that they write in f32, whatever dtype the tensors have.
//!
//! [`RowReader`] and [`Output`] read and write tensors in f32 in place, and tensors in bf16 a row at a time through a buffer of the task. [`HostTensor`], for
//! small tensors, is a copy in f32, as are tensors in f16.

use std::ops::Range;

use burn::tensor::{DType, FloatDType, Shape, TensorData};
use burn_flex::FlexTensor;
pub(crate) use cpu_gemm::aligned::unspecified;
use cpu_gemm::element::Float;
use half::bf16;
use rayon::prelude::*;

use super::convert::flex::convert;

/// A tensor whose values can be read as a slice of f32: the tensor itself if it is contiguous and f32, otherwise a copy.
pub(crate) struct HostTensor {
    tensor: FlexTensor,
}

impl HostTensor {
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        Self {
            tensor: contiguous(in_dtype(tensor, DType::F32)),
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        elements(&self.tensor)
    }
}

/// A matrix whose rows are read in f32.
pub(crate) struct RowReader {
    tensor: FlexTensor,
    width: usize,
}

impl RowReader {
    /// The rows of a tensor, as long as its last axis.
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        let width = tensor.layout().shape().last().copied().unwrap_or(1);
        let tensor = match tensor.dtype() {
            DType::F32 | DType::BF16 => tensor,
            _ => convert(tensor, FloatDType::F32),
        };
        Self {
            tensor: contiguous(tensor),
            width,
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.tensor.layout().num_elements() / self.width.max(1)
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Row `i`: the tensor's own values in f32, otherwise `buffer` with the row's values.
    pub(crate) fn row<'a>(&'a self, i: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let range = i * self.width..(i + 1) * self.width;
        match self.tensor.dtype() {
            DType::F32 => &elements(&self.tensor)[range],
            _ => {
                buffer.resize(self.width, 0.0);
                bf16::slice_to_f32(&elements(&self.tensor)[range], buffer);
                buffer
            }
        }
    }
}

/// Rows of a result that loops write in f32.
pub(crate) struct Output {
    values: Values,
    width: usize,
    dtype: DType,
}

/// Results in f16 are written in f32 and converted as a whole.
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Output {
    /// `rows` rows of `width` elements, every one of which the caller must write.
    pub(crate) fn new(rows: usize, width: usize, dtype: DType) -> Self {
        let len = rows * width;
        Self {
            values: match dtype {
                DType::BF16 => Values::Bf16(unspecified(len)),
                _ => Values::F32(unspecified(len)),
            },
            width,
            dtype,
        }
    }

    /// The rows in parts of `step` rows each, in order.
    fn parts(&mut self, step: usize) -> Vec<RowsMut<'_>> {
        let (width, len) = (self.width, (step * self.width).max(1));
        match &mut self.values {
            Values::F32(values) => {
                let parts = values.chunks_mut(len);
                parts.map(|part| RowsMut::F32(part, width)).collect()
            }
            Values::Bf16(values) => {
                let parts = values.chunks_mut(len);
                parts.map(|part| RowsMut::Bf16(part, width)).collect()
            }
        }
    }

    /// The result as a tensor.
    pub(crate) fn into_tensor<const D: usize>(self, shape: [usize; D]) -> FlexTensor {
        match self.values {
            Values::F32(values) => in_dtype(f32::tensor(values, shape), self.dtype),
            Values::Bf16(values) => bf16::tensor(values, shape),
        }
    }
}

/// Consecutive rows of an [`Output`], and their width.
pub(crate) enum RowsMut<'a> {
    F32(&'a mut [f32], usize),
    Bf16(&'a mut [bf16], usize),
}

impl RowsMut<'_> {
    /// Lets `write` write row `i` of the part, whose values are unspecified before.
    pub(crate) fn write<R>(
        &mut self,
        i: usize,
        buffer: &mut Vec<f32>,
        write: impl FnOnce(&mut [f32]) -> R,
    ) -> R {
        match self {
            Self::F32(values, width) => write(&mut values[i * *width..][..*width]),
            Self::Bf16(values, width) => {
                buffer.resize(*width, 0.0);
                let result = write(buffer);
                bf16::slice_from_f32(buffer, &mut values[i * *width..][..*width]);
                result
            }
        }
    }
}

/// Calls `task` for every `step` of `rows` rows in parallel, with the range of rows and the part of each output that holds them.
pub(crate) fn for_rows<const N: usize>(
    rows: usize,
    step: usize,
    outputs: [&mut Output; N],
    task: impl Fn(Range<usize>, [RowsMut<'_>; N]) + Sync,
) {
    map_rows(rows, step, outputs, task);
}

/// [`for_rows`] with the results of the tasks, in order.
pub(crate) fn map_rows<const N: usize, R: Send>(
    rows: usize,
    step: usize,
    outputs: [&mut Output; N],
    task: impl Fn(Range<usize>, [RowsMut<'_>; N]) -> R + Sync,
) -> Vec<R> {
    let mut outputs = outputs.map(|output| output.parts(step).into_iter());
    let tasks: Vec<_> = (0..rows)
        .step_by(step.max(1))
        .map(|first| {
            let parts = outputs.each_mut().map(|parts| {
                // An output without rows or columns has no parts.
                parts.next().unwrap_or(RowsMut::F32(&mut [], 0))
            });
            (first..(first + step).min(rows), parts)
        })
        .collect();
    match tasks.len() {
        // Handing a single task to another thread would cost more than it takes.
        1 => tasks
            .into_iter()
            .map(|(rows, parts)| task(rows, parts))
            .collect(),
        _ => tasks
            .into_par_iter()
            .map(|(rows, parts)| task(rows, parts))
            .collect(),
    }
}

/// Element types of the native loops, for which every bit pattern is a value.
pub(crate) trait Native: Float + burn::tensor::Element + bytemuck::Pod {
    /// A tensor of these values.
    fn tensor<const D: usize>(values: Vec<Self>, shape: [usize; D]) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, Shape::new(shape)))
    }
}

impl Native for f32 {}
impl Native for bf16 {}

/// The elements of a contiguous tensor.
pub(crate) fn elements<T: Native>(tensor: &FlexTensor) -> &[T] {
    let layout = tensor.layout();
    &tensor.storage::<T>()[layout.start_offset()..][..layout.num_elements()]
}

/// The tensor itself where its elements are consecutive, otherwise a copy.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// The tensor in `dtype`.
pub(crate) fn in_dtype(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    match tensor.dtype() == dtype {
        true => tensor,
        false => convert(tensor, dtype.into()),
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
    in_dtype(f32::tensor(values, shape), dtype)
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
