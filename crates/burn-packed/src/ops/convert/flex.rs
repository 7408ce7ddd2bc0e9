//! Conversions between f32 and bf16 on the CPU.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, TensorData};
use burn_flex::{Flex, FlexTensor};
use cpu_gemm::element::Float;
use half::bf16;
use rayon::prelude::*;

use crate::ops::host::{Native, contiguous, elements, unspecified};

/// Elements of a task.
const CHUNK: usize = 1 << 15;

/// `x` in another dtype.
pub(crate) fn convert(x: FlexTensor, dtype: FloatDType) -> FlexTensor {
    let x = contiguous(x);
    match (x.dtype(), dtype) {
        (DType::F32, FloatDType::BF16) => mapped(&x, bf16::slice_from_f32),
        (DType::BF16, FloatDType::F32) => mapped(&x, bf16::slice_to_f32),
        _ => Flex::float_cast(x, dtype),
    }
}

/// Returns the tensor of elements that `convert` computes, chunk by chunk in parallel.
fn mapped<From: Native, To: Native>(x: &FlexTensor, convert: fn(&[From], &mut [To])) -> FlexTensor {
    let from = elements::<From>(x);
    let mut to = unspecified::<To>(from.len());
    if from.len() <= CHUNK {
        convert(from, &mut to);
    } else {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(|(to, from)| convert(from, to));
    }
    FlexTensor::from_data(TensorData::new(to, x.layout().shape().clone()))
}
