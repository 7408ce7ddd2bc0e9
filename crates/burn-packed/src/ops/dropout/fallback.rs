//! Dropout from integer tensor operations that every backend has.
//!
//! 32-bit words are computed in 64-bit integers, and multiplied in two halves: no intermediate exceeds 2^49, so the result does not
//! depend on how a backend handles integer overflow.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{IntDType, Scalar, Shape};

use super::{DropoutSpec, FACTORS, SHIFTS};
use crate::ops::primitive::{cast, cast_to_compute};

const WORD: i64 = 0xffff_ffff;

pub(crate) fn forward<B: Backend>(input: FloatTensor<B>, spec: DropoutSpec) -> FloatTensor<B> {
    let (dtype, shape) = (input.dtype(), input.shape());
    let elements = shape.num_elements();
    if elements == 0 {
        return input;
    }
    let device = input.device();
    let index = B::int_arange(0..elements as i64, &device, IntDType::I64);
    let xor = |x: IntTensor<B>, word: u32| B::bitwise_xor_scalar(x, Scalar::from(i64::from(word)));
    let x = fmix32::<B>(xor(index, spec.key[0]));
    let bits = fmix32::<B>(xor(x, spec.key[1]));
    let dropped = B::int_lower_elem(
        bits,
        Scalar::from(i64::from(spec.threshold)),
        get_or_init_device_settings::<B>(&device).bool_dtype,
    );
    let x = cast_to_compute::<B>(B::float_reshape(input, Shape::new([elements])));
    let x = B::float_mul_scalar(x, Scalar::from(spec.scale() as f32));
    // Filled, not multiplied by 0, which would turn infinities into NaN.
    let x = B::float_mask_fill(x, dropped, Scalar::from(0.0));
    cast::<B>(B::float_reshape(x, shape), dtype)
}

fn fmix32<B: Backend>(x: IntTensor<B>) -> IntTensor<B> {
    let fold = |x: IntTensor<B>, shift: u32| {
        let high = B::bitwise_right_shift_scalar(x.clone(), Scalar::from(i64::from(shift)));
        B::bitwise_xor(x, high)
    };
    let x = multiply::<B>(fold(x, SHIFTS[0]), FACTORS[0]);
    let x = multiply::<B>(fold(x, SHIFTS[1]), FACTORS[1]);
    fold(x, SHIFTS[2])
}

/// `x · factor` modulo 2^32 for x below 2^32.
fn multiply<B: Backend>(x: IntTensor<B>, factor: u32) -> IntTensor<B> {
    let (low, high) = (i64::from(factor & 0xffff), i64::from(factor >> 16));
    let by = |factor: i64| B::int_mul_scalar(x.clone(), Scalar::from(factor));
    // Of the product with the upper half, only the lower 16 bits remain below 2^32 after the shift.
    let upper = B::bitwise_and_scalar(by(high), Scalar::from(0xffff_i64));
    let upper = B::bitwise_left_shift_scalar(upper, Scalar::from(16_i64));
    B::bitwise_and_scalar(B::int_add(by(low), upper), Scalar::from(WORD))
}
