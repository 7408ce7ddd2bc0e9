//! Conversions between f32 and bf16 on the CPU.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, TensorData};
use burn_flex::{Flex, FlexTensor};
use cpu_gemm::element::Float;
use half::bf16;
use rayon::prelude::*;

/// Elements of a task.
const CHUNK: usize = 1 << 15;

/// `x` in another dtype.
pub(crate) fn convert(x: FlexTensor, dtype: FloatDType) -> FlexTensor {
    let chunks = |len: usize| len.div_ceil(CHUNK) > 1;
    match (x.dtype(), dtype) {
        (DType::F32, FloatDType::BF16) => {
            let x = contiguous(x);
            let from =
                &x.storage::<f32>()[x.layout().start_offset()..][..x.layout().num_elements()];
            let mut to = vec![bf16::ZERO; from.len()];
            match chunks(from.len()) {
                true => to
                    .par_chunks_mut(CHUNK)
                    .zip(from.par_chunks(CHUNK))
                    .for_each(|(to, from)| bf16::round(from, to)),
                false => bf16::round(from, &mut to),
            }
            FlexTensor::from_data(TensorData::new(to, x.layout().shape().clone()))
        }
        (DType::BF16, FloatDType::F32) => {
            let x = contiguous(x);
            let from =
                &x.storage::<bf16>()[x.layout().start_offset()..][..x.layout().num_elements()];
            let mut to = vec![0.0f32; from.len()];
            match chunks(from.len()) {
                true => to
                    .par_chunks_mut(CHUNK)
                    .zip(from.par_chunks(CHUNK))
                    .for_each(|(to, from)| bf16::widen(from, to)),
                false => bf16::widen(from, &mut to),
            }
            FlexTensor::from_data(TensorData::new(to, x.layout().shape().clone()))
        }
        _ => Flex::float_cast(x, dtype),
    }
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    match x.is_contiguous() {
        true => x,
        false => x.to_contiguous(),
    }
}
