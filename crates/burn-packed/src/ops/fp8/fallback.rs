//! The ops on the host, by their definition.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, TensorData, read_sync};

use super::{Product, e4m3};
use crate::ops::PackedBackend;

fn floats<B: Backend>(tensor: FloatTensor<B>) -> Vec<f32> {
    let tensor = B::float_cast(tensor, FloatDType::F32);
    let data = read_sync(B::float_into_data(tensor)).expect("a working device is read");
    data.try_to_vec().expect("f32, as cast")
}

fn elements<B: Backend>(tensor: IntTensor<B>) -> Vec<i32> {
    let data = read_sync(B::int_into_data(tensor)).expect("a working device is read");
    data.convert::<i32>()
        .try_to_vec()
        .expect("i32, as converted")
}

pub(crate) fn quantize<B: Backend>(input: FloatTensor<B>) -> (IntTensor<B>, FloatTensor<B>) {
    let [rows, width] = input.shape().dims();
    let device = input.device();
    let (codes, scales) = e4m3::quantize(&floats::<B>(input), width);
    (
        B::int_from_data(TensorData::new(codes, [rows, width / 4]), &device),
        B::float_from_data(TensorData::new(scales, [rows]), &device),
    )
}

pub(crate) fn add_layer_norm<B: PackedBackend>(
    x: FloatTensor<B>,
    branch: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, IntTensor<B>, FloatTensor<B>) {
    let (sum, normed) = B::add_layer_norm(x, branch, weight, eps, DType::F32);
    let (codes, scales) = B::fp8_quantize(normed);
    (sum, codes, scales)
}

pub(crate) fn linear<B: PackedBackend>(
    [rows, weight]: [(IntTensor<B>, FloatTensor<B>); 2],
    product: Product,
) -> FloatTensor<B> {
    let device = rows.1.device();
    let (tokens, outputs) = (
        rows.1.shape().num_elements(),
        weight.1.shape().num_elements(),
    );
    let words = rows.0.shape().dims::<2>()[1];
    let [left, right] = [rows, weight]
        .map(|(codes, scales)| e4m3::values(&elements::<B>(codes), &floats::<B>(scales)));
    // Not the backend's GEMM: the order of its sums can depend on the number of rows.
    let values = e4m3::products(&left, &right, 4 * words);
    let mut out = B::float_from_data(TensorData::new(values, [tokens, outputs]), &device);
    if product.geglu {
        out = B::geglu(out);
    }
    B::float_cast(out, product.dtype)
}
