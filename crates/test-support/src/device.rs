//! The device under test, and tensors on it.
//!
//! The suites are the same on every backend. `MODERNBERT_TEST_DEVICE` names the device (`flex` without it) among those
//! compiled in, as [`burn_packed::device::select`] does; any other name ends the run.

use crate::skip;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

/// The device under test.
pub fn device() -> Device {
    let name = std::env::var("MODERNBERT_TEST_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    match burn_packed::device::select(Some(&name)) {
        Ok(selected) => selected.device,
        Err(error) => panic!("MODERNBERT_TEST_DEVICE: {error}"),
    }
}

/// The device under test with gradients.
pub fn autodiff_device() -> Device {
    device().autodiff()
}

/// Returns whether the device under test computes in `dtype`; reports a skipped test where it does not.
pub fn computes_in(dtype: DType) -> bool {
    let supported = burn_packed::device::computes_in(&device(), dtype);
    if !supported {
        skip(&format!("the device does not compute in {dtype:?}"));
    }
    supported
}

/// Returns whether the device under test holds a tensor of `values` f32 values; reports a skipped test where it does not.
/// (WebGPU guarantees 128 MiB per buffer, and software drivers allow no more.)
pub fn holds(values: usize) -> bool {
    let probe = Tensor::<1>::ones([values], &device()).slice(0..1);
    let held = probe.try_into_data().is_ok();
    if !held {
        skip(&format!(
            "the device does not hold {values} values in one tensor"
        ));
    }
    held
}

/// An f32 tensor of these values.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, DType::F32),
    )
}

/// An f64 tensor of these values.
pub fn tensor64<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, DType::F64),
    )
}

/// The values of a tensor of any float dtype.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .cast(FloatDType::F32)
        .into_data()
        .try_to_vec()
        .unwrap()
}

/// The values of an f64 tensor.
pub fn read64<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec().unwrap()
}
