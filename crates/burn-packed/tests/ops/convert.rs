//! Conversions between dtypes are those of Burn.

use burn::tensor::{DType, Distribution, FloatDType, Tensor};
use burn_packed::ops::convert::convert;
use proptest::prelude::*;
use test_support::device;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn conversions_are_those_of_burn(rows in 1usize..70, columns in 1usize..300, transposed in any::<bool>()) {
        let x = Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 3.0), &device());
        let x = if transposed { x.transpose() } else { x };
        let bits = |x: Tensor<2>| -> Vec<u32> {
            let values: Vec<f32> = x.try_into_vec_as().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        for dtype in [FloatDType::BF16, FloatDType::F16] {
            if !burn_packed::device::computes_in(&device(), DType::from(dtype)) {
                continue;
            }
            let low = convert(x.clone(), dtype);
            prop_assert_eq!(low.dtype(), DType::from(dtype));
            prop_assert_eq!(low.dims(), x.dims());
            let expected = x.clone().cast(dtype);
            prop_assert_eq!(bits(low.clone()), bits(expected.clone()));
            prop_assert_eq!(bits(convert(low, FloatDType::F32)), bits(expected.cast(FloatDType::F32)));
        }
    }
}

#[test]
fn the_gradient_comes_back_in_the_dtype_of_the_input() {
    let device = device();
    if !burn_packed::device::computes_in(&device, DType::BF16) {
        return;
    }
    let x = Tensor::<2>::from_floats([[1.0, -2.0], [0.5, 3.0]], &device.clone().autodiff())
        .require_grad();
    let y = convert(convert(x.clone(), FloatDType::BF16) * 3.0, FloatDType::F32);
    let grads = y.sum().backward();
    let grad = x.grad(&grads).unwrap();
    assert_eq!(grad.dtype(), DType::F32);
    let values: Vec<f32> = grad.try_into_vec_as().unwrap();
    assert_eq!(values, [3.0; 4]);
}
