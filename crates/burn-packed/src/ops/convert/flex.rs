//! Conversions between f32 and bf16 on the CPU.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Element, FloatDType, TensorData};
use burn_flex::{Flex, FlexTensor};
use cpu_gemm::element::Float;
use half::bf16;
use rayon::prelude::*;

use crate::ops::host::contiguous;

/// Elements of a task.
const CHUNK: usize = 1 << 15;

/// `x` in another dtype.
pub(crate) fn convert(x: FlexTensor, dtype: FloatDType) -> FlexTensor {
    let x = contiguous(x);
    match (x.dtype(), dtype) {
        (DType::F32, FloatDType::BF16) => mapped(&x, x.storage::<f32>(), bf16::round),
        (DType::BF16, FloatDType::F32) => mapped(&x, x.storage::<bf16>(), bf16::widen),
        _ => Flex::float_cast(x, dtype),
    }
}

/// The tensor whose elements `convert` writes, chunk by chunk, from the elements of `x` in its `storage`.
fn mapped<From: Sync, To: Element + Default>(
    x: &FlexTensor,
    storage: &[From],
    convert: fn(&[From], &mut [To]),
) -> FlexTensor {
    let (start, len) = (x.layout().start_offset(), x.layout().num_elements());
    let from = &storage[start..][..len];
    let mut to = vec![To::default(); len];
    if len <= CHUNK {
        convert(from, &mut to);
    } else {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(|(to, from)| convert(from, to));
    }
    FlexTensor::from_data(TensorData::new(to, x.layout().shape().clone()))
}
