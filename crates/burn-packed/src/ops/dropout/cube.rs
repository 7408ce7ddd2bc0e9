//! Dropout on CubeCL devices: one thread per element.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{DropoutSpec, FACTORS, SHIFTS, fallback};
use crate::ops::rows::elem;

/// The finalizer of MurmurHash3; see [`super::fmix32`].
#[cube]
fn fmix32(x: u32) -> u32 {
    let x = (x ^ (x >> comptime!(SHIFTS[0]))) * comptime!(FACTORS[0]);
    let x = (x ^ (x >> comptime!(SHIFTS[1]))) * comptime!(FACTORS[1]);
    x ^ (x >> comptime!(SHIFTS[2]))
}

/// `out[i] = input[i] * scale` if the bits of `i` are at least `threshold`, else 0; see the module docs of [`super`].

#[cube(launch, address_type = "dynamic")]
fn dropout_kernel<F: Float>(
    input: &[F],
    out: &mut [F],
    elements: usize,
    key_low: u32,
    key_high: u32,
    threshold: u32,
    scale: f32,
    #[define(F)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index < elements {
        let bits = fmix32(fmix32(index as u32 ^ key_low) ^ key_high);
        let kept = f32::cast_from(input[index]) * scale;
        out[index] = F::cast_from(select(bits >= threshold, kept, 0.0f32));
    }
}

pub(crate) fn forward(input: CubeTensor, spec: DropoutSpec) -> CubeTensor {
    let Some(elem) = elem(input.dtype) else {
        return fallback::forward::<CubeBackend>(input, spec);
    };
    let elements = input.shape().num_elements();
    if elements == 0 {
        return input;
    }
    let input = into_contiguous(input);
    let client = input.client.clone();
    let out = empty_device_contiguous_dtype(
        client.clone(),
        input.device.clone(),
        input.shape(),
        input.dtype,
    );
    let dim = CubeDim::new(&client, elements);
    dropout_kernel::launch(
        &client,
        cubecl::calculate_cube_count_elemwise(&client, elements, dim),
        dim,
        input.required_address_type(),
        input.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        elements,
        spec.key[0],
        spec.key[1],
        spec.threshold,
        spec.scale() as f32,
        elem,
    );
    out
}
