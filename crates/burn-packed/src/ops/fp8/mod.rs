//! GEMMs on fp8: rows of e4m3 codes with a scale for each row.
//!
//! e4m3 has 4 bits of exponent and 3 of mantissa: 2^-9 to 448, no infinity. Row r of a matrix `x [rows, width]` is quantized by its largest magnitude:
//!
//! ```text
//! scale[r]    = max_k |x[r, k]| / 448
//! code[r, k]  = e4m3(x[r, k] · (448 / max_k |x[r, k]|))        to nearest, ties to even
//! ```
//!
//! Rows whose largest magnitude is below [`SMALLEST`] count as zero. A number that is not finite makes the code NaN, and with it everything that is
//! computed from its row. [`linear`] computes `out[t, o] = scale[t] · weight_scale[o] · Σ_k code[t, k] · weight_code[o, k]`: products and sums are f32 on
//! devices without the kernel, 16 partial sums of every sixteenth product each; the tensor cores of Hopper add the products of 32 codes with fewer bits than f32 has. Results are batch-invariant: a row
//! of the output depends on its row of the input alone.
//!
//! Four codes are an element of an integer tensor, the first code in the lowest bits. The kernels need compute capability 9.0 ([`has_kernels`]); elsewhere the
//! host computes everything from the definition, slowly. For inference: no op here has a derivative.

#[cfg(feature = "cube")]
pub(super) mod cube;
mod e4m3;
pub(super) mod fallback;
#[cfg(feature = "ptx")]
pub(super) mod kernels;

use burn::backend::Dispatch;
use burn::tensor::{Device, FloatDType, Int, Tensor};

use super::PackedBackend;

/// Magnitude below which a row is quantized to zeros; 448 divided by a smaller number could be infinite.
pub const SMALLEST: f32 = 1e-30;
/// Widths are multiples of this: a row of codes is then a multiple of 16 bytes, which TMA requires.
pub const WIDTH_MULTIPLE: usize = 16;

/// A quantized matrix.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// `[rows, width / 4]`, four codes in an element.
    codes: Tensor<2, Int>,
    /// `[rows]` in f32.
    scales: Tensor<1>,
}

/// What [`linear`] computes of a product, in which dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// True if the result is `gelu(left half) * right half`; see [`super::geglu`].
    pub geglu: bool,
    /// bf16 or f16.
    pub dtype: FloatDType,
}

impl Quantized {
    /// Quantizes `[rows, width]`, of any float dtype.
    ///
    /// # Panics
    /// If the width is no multiple of [`WIDTH_MULTIPLE`].
    pub fn new(input: Tensor<2>) -> Self {
        check_width(input.dims()[1]);
        let (codes, scales) = <Dispatch as PackedBackend>::fp8_quantize(input.into_dispatch());
        Self {
            codes: Tensor::from_dispatch(codes),
            scales: Tensor::from_dispatch(scales),
        }
    }

    /// Rows and width of the matrix.
    pub fn dims(&self) -> [usize; 2] {
        let [rows, words] = self.codes.dims();
        [rows, 4 * words]
    }

    /// The values that the codes stand for, in f32, computed on the host.
    ///
    /// # Errors
    /// A device that fails.
    pub fn values(&self) -> Result<Vec<f32>, crate::device::ReadError> {
        let scales = crate::device::read(self.scales.clone())?;
        let codes = crate::device::read_ints(self.codes.clone())?;
        Ok(e4m3::values(&codes, &scales))
    }
}

/// `x + branch` and the quantized LayerNorm of that sum; see [`super::layer_norm`]. `x` and `branch` `[rows, width]`, `weight` `[width]`.
///
/// # Panics
/// If the width is no multiple of [`WIDTH_MULTIPLE`].
pub fn add_layer_norm(
    x: Tensor<2>,
    branch: Tensor<2>,
    weight: Tensor<1>,
    eps: f64,
) -> (Tensor<2>, Quantized) {
    check_width(x.dims()[1]);
    let (sum, codes, scales) = <Dispatch as PackedBackend>::fp8_add_layer_norm(
        x.into_dispatch(),
        branch.into_dispatch(),
        weight.into_dispatch(),
        eps,
    );
    let quantized = Quantized {
        codes: Tensor::from_dispatch(codes),
        scales: Tensor::from_dispatch(scales),
    };
    (Tensor::from_dispatch(sum), quantized)
}

/// `input · weightᵀ`: input `[tokens, in]`, weight `[out, in]`, result `[tokens, out]`, or half as many columns with [`Product::geglu`].
///
/// # Panics
/// If the widths differ, the dtype is neither bf16 nor f16, or the weight's rows are no multiple of 16.
pub fn linear(input: &Quantized, weight: &Quantized, product: Product) -> Tensor<2> {
    let ([_, width], [rows, expected]) = (input.dims(), weight.dims());
    assert_eq!(
        width, expected,
        "fp8::linear: the weight takes inputs of width {expected}, got {width}"
    );
    assert!(
        rows.is_multiple_of(16),
        "fp8::linear: the number of outputs must be a multiple of 16, got {rows}"
    );
    assert!(
        matches!(product.dtype, FloatDType::BF16 | FloatDType::F16),
        "fp8::linear: results are bf16 or f16, not {:?}",
        product.dtype
    );
    Tensor::from_dispatch(<Dispatch as PackedBackend>::fp8_linear(
        input.codes.clone().into_dispatch(),
        input.scales.clone().into_dispatch(),
        weight.codes.clone().into_dispatch(),
        weight.scales.clone().into_dispatch(),
        product,
    ))
}

/// Returns whether the kernels of this module run on the device.
pub fn has_kernels(device: &Device) -> bool {
    #[cfg(feature = "ptx")]
    if let burn::backend::DispatchDevice::Cube(device) = device.clone().inner().as_dispatch() {
        return device.client().properties().identity.fingerprint == crate::ops::ptx::HOPPER;
    }
    let _ = device;
    false
}

fn check_width(width: usize) {
    assert!(
        width.is_multiple_of(WIDTH_MULTIPLE),
        "fp8: the width must be a multiple of {WIDTH_MULTIPLE}, got {width}"
    );
}

/// Shapes and dtypes of the results of [`Quantized::new`], which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn quantize_specs(
    input: &burn::backend::fusion::custom::TensorSpec,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    use burn::backend::fusion::custom::TensorSpec;
    use burn::tensor::{DType, Shape};
    let (rows, width) = (input.shape[0], input.shape[1]);
    (
        TensorSpec::new(Shape::new([rows, width / 4]), DType::I32),
        TensorSpec::new(Shape::new([rows]), DType::F32),
    )
}

/// Shapes and dtypes of the results of [`add_layer_norm`].
#[cfg(feature = "fusion")]
pub(super) fn add_norm_specs(
    x: &burn::backend::fusion::custom::TensorSpec,
    _branch: &burn::backend::fusion::custom::TensorSpec,
    _weight: &burn::backend::fusion::custom::TensorSpec,
    _eps: &f64,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    let (codes, scales) = quantize_specs(x);
    (x.clone(), codes, scales)
}

/// Shape and dtype of the result of [`linear`].
#[cfg(feature = "fusion")]
pub(super) fn linear_spec(
    codes: &burn::backend::fusion::custom::TensorSpec,
    _scales: &burn::backend::fusion::custom::TensorSpec,
    weight: &burn::backend::fusion::custom::TensorSpec,
    _weight_scales: &burn::backend::fusion::custom::TensorSpec,
    product: &Product,
) -> burn::backend::fusion::custom::TensorSpec {
    let columns = match product.geglu {
        true => weight.shape[0] / 2,
        false => weight.shape[0],
    };
    let shape = burn::tensor::Shape::new([codes.shape[0], columns]);
    burn::backend::fusion::custom::TensorSpec::new(shape, product.dtype.into())
}
