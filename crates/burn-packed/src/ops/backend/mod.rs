//! The extension of Burn's `Backend` trait: one method per op of this crate and pass.

// Burn 0.22 deprecates its LibTorch backend, but still has it.
#![cfg_attr(feature = "tch", allow(deprecated))]

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod fallback;
#[cfg(feature = "flex")]
mod flex;

pub use fallback::{Op, UnknownOp, use_fallback};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType};

use super::attention::{self, AttentionSpec};
use super::cross_entropy::decoder::DecoderLossArgs;
use super::cross_entropy::{DecoderSpec, ScoreSpec};
use super::dropout::{self, DropoutSpec};
use super::fp8::{self, Product};
use super::layer_norm::AddNormBackward;
use super::linear::Transpose;
use super::optimizer::{ParameterGroup, SteppedGroup};
use super::{cross_entropy, gather_rows, geglu, layer_norm, linear, optimizer, sum};
use crate::batch::TokenOrder;

/// Ops of this crate that a backend provides beyond Burn's own.
///
/// Each op has a differentiable entry, and the forward and backward pass that it consists of. The default bodies are the fallbacks,
/// from tensor operations every backend has: a new backend works as soon as it implements the trait, and gets faster with each
/// method it overrides. Only `Autodiff` overrides the differentiable entries.
///
/// Shapes and units of each op are described in its module under [`crate::ops`].
#[backend_extension(
    Autodiff,
    Fusion: cfg(feature = "fusion"),
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    LibTorch: cfg(feature = "tch"),
)]
pub trait PackedBackend: Backend {
    /// Packed attention; see [`attention`].
    #[fusion(dtype = qkv, shape = burn::tensor::Shape::new([qkv[0], qkv[2], qkv[3]]))]
    fn packed_attention(
        qkv: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        Self::packed_attention_forward(qkv, rotary, spec).0
    }

    /// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]` (f32).
    #[fusion(meta = attention::forward_specs)]
    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::fallback::forward::<Self>(qkv, rotary, &spec)
    }

    /// Gradient of `qkv`, `[total, 3, heads, head_dim]`.
    #[fusion(dtype = qkv, shape = qkv)]
    fn packed_attention_backward(
        d_out: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        attention::fallback::backward::<Self>(d_out, qkv, out, lse, rotary, &spec)
    }

    /// Gated linear unit with exact GELU; see [`geglu`].
    #[fusion(dtype = input, shape = burn::tensor::Shape::new([input[0], input[1] / 2]))]
    fn geglu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::fallback::forward::<Self>(input)
    }

    /// Gradient of the input of [`PackedBackend::geglu`].
    #[fusion(dtype = input, shape = input)]
    fn geglu_backward(d_out: FloatTensor<Self>, input: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::fallback::backward::<Self>(d_out, input)
    }

    /// Gradient of the input of [`PackedBackend::geglu`], and its output, computed again.
    #[fusion(meta = geglu::backward_with_output_specs)]
    fn geglu_backward_with_output(
        d_out: FloatTensor<Self>,
        input: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let out = Self::geglu(input.clone());
        (Self::geglu_backward(d_out, input), out)
    }

    /// `geglu(input · wiᵀ) · woᵀ`, the weights cast to the dtype of the input; see [`geglu`].
    #[fusion(meta = geglu::mlp_spec)]
    fn geglu_mlp(
        input: FloatTensor<Self>,
        wi: FloatTensor<Self>,
        wo: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let gated = Self::geglu(Self::linear_weight(input, wi));
        Self::linear_weight(gated, wo)
    }

    /// LayerNorm over the last axis, without bias, in the dtype `out`; see [`layer_norm`].
    #[fusion(meta = layer_norm::forward_spec)]
    fn layer_norm_rows(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> FloatTensor<Self> {
        layer_norm::fallback::forward::<Self>(input, weight, eps, out)
    }

    /// Gradients of the input and of the weight of [`PackedBackend::layer_norm_rows`].
    #[fusion(meta = layer_norm::backward_specs)]
    fn layer_norm_rows_backward(
        d_out: FloatTensor<Self>,
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        layer_norm::fallback::backward::<Self>(d_out, input, weight, eps)
    }

    /// Residual sum and its LayerNorm; see [`layer_norm`].
    #[fusion(meta = layer_norm::add_specs)]
    fn add_layer_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (sum, normed, _) = Self::add_layer_norm_forward(x, branch, weight, eps, out);
        (sum, normed)
    }

    /// Forward pass of [`PackedBackend::add_layer_norm`]: also the inverse standard deviation of each row, `[tokens]` in f32.
    #[fusion(meta = layer_norm::add_forward_specs)]
    fn add_layer_norm_forward(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        layer_norm::fallback::add_forward::<Self>(x, branch, weight, eps, out)
    }

    /// Gradients of `x`, the branch and the weight of [`PackedBackend::add_layer_norm`].
    #[fusion(meta = layer_norm::add_backward_specs)]
    fn add_layer_norm_backward(
        d_sum: FloatTensor<Self>,
        d_normed: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        inv_std: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        spec: AddNormBackward,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        layer_norm::fallback::add_backward::<Self>(d_sum, d_normed, saved, inv_std, weight, &spec)
    }

    /// Cross-entropy of each row; see [`cross_entropy`].
    #[fusion(meta = cross_entropy::row_spec)]
    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::fallback::forward::<Self>(logits, targets)
    }

    /// Gradient of the logits of [`PackedBackend::cross_entropy_rows`].
    #[fusion(dtype = logits, shape = logits)]
    fn cross_entropy_rows_backward(
        d_loss: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::fallback::backward::<Self>(d_loss, logits, targets)
    }

    /// Weighted losses and hits `[rows]` in f32, and the gradient of the scores `[rows, classes]` (the scores, if `spec.gradient` is
    /// false); see [`cross_entropy`].
    #[fusion(meta = cross_entropy::score_specs)]
    fn cross_entropy_scores(
        logits: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        spec: ScoreSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::fallback::scores::<Self>(logits, bias, targets, weights, spec)
    }

    /// Sum of each column of `[rows, width]`: `[width]` in f32.
    #[fusion(meta = cross_entropy::column_spec)]
    fn column_sums(input: FloatTensor<Self>) -> FloatTensor<Self> {
        cross_entropy::fallback::column_sums::<Self>(input)
    }

    /// The input in another dtype; see [`convert`](super::convert).
    #[fusion(default)]
    fn convert(input: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        Self::float_cast(input, dtype)
    }

    /// Sum of all elements or of their squares, `[1]`; see [`sum`].
    #[fusion(meta = sum::spec)]
    fn sum(input: FloatTensor<Self>, squared: bool) -> FloatTensor<Self> {
        sum::fallback::sum::<Self>(input, squared)
    }

    /// Decoder and cross-entropy: sums of the weighted losses and hits, `[1]` each; see [`cross_entropy`].
    #[fusion(default)]
    fn decoder_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        spec: DecoderSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        DecoderLossArgs::<Self>::new(hidden, weight, bias, targets, weights, spec).forward()
    }

    /// Results of [`PackedBackend::decoder_loss`], and gradients of hidden states, weight and bias.
    #[allow(clippy::type_complexity)] // five tensors, named in the line above
    #[fusion(default)]
    fn decoder_loss_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        spec: DecoderSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        DecoderLossArgs::<Self>::new(hidden, weight, bias, targets, weights, spec).with_gradients()
    }

    /// Rows of a table by index; see [`gather_rows`].
    #[fusion(meta = gather_rows::spec)]
    fn gather_rows(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
    ) -> FloatTensor<Self> {
        let _ = order;
        gather_rows::fallback::forward::<Self>(table, ids)
    }

    /// Gradient of the table of [`PackedBackend::gather_rows`], `[rows, width]` in f32.
    #[fusion(meta = gather_rows::backward_spec)]
    fn gather_rows_backward(
        d_out: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
        rows: usize,
    ) -> FloatTensor<Self> {
        let _ = order;
        gather_rows::fallback::backward::<Self>(d_out, ids, rows)
    }

    /// Weights, first and second moments after a step; see [`optimizer`].
    #[fusion(meta = optimizer::specs)]
    fn adamw_steps(
        #[extension_type] group: ParameterGroup<Self>,
        apply: FloatTensor<Self>,
        gated: bool,
    ) -> SteppedGroup<Self> {
        optimizer::fallback::steps::<Self>(group, gated.then_some(apply))
    }

    /// Codes `[rows, width / 4]` and scales `[rows]` of a matrix quantized to e4m3; see [`fp8`].
    #[fusion(meta = fp8::quantize_specs)]
    fn fp8_quantize(input: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        fp8::fallback::quantize::<Self>(input)
    }

    /// Residual sum, and codes and scales of its LayerNorm; see [`fp8`].
    #[fusion(meta = fp8::add_norm_specs)]
    fn fp8_add_layer_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        fp8::fallback::add_layer_norm::<Self>(x, branch, weight, eps)
    }

    /// GEMM of quantized rows with a quantized weight `[out, in]`, transposed; see [`fp8`].
    #[fusion(meta = fp8::linear_spec)]
    fn fp8_linear(
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        weight: IntTensor<Self>,
        weight_scales: FloatTensor<Self>,
        product: Product,
    ) -> FloatTensor<Self> {
        fp8::fallback::linear::<Self>([(codes, scales), (weight, weight_scales)], product)
    }

    /// Counter-based dropout; see [`dropout`].
    #[fusion(dtype = input, shape = input)]
    fn dropout(input: FloatTensor<Self>, spec: DropoutSpec) -> FloatTensor<Self> {
        dropout::fallback::forward::<Self>(input, spec)
    }

    /// GEMM with one operand transposed as stated; the differentiable `linear` consists of three of these. See [`linear`].
    #[fusion(meta = linear::gemm_spec)]
    fn gemm(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        linear::fallback::gemm::<Self>(lhs, rhs, transpose)
    }

    /// The same as [`PackedBackend::gemm`] with an f32 result: gradients of f32 parameters are not rounded in a half-precision pass.
    #[fusion(meta = linear::gemm_f32_spec)]
    fn gemm_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        linear::fallback::gemm_f32::<Self>(lhs, rhs, transpose)
    }

    /// `input · weightᵀ`, the weight cast to the dtype of the input; see [`linear`].
    #[fusion(meta = linear::linear_spec)]
    fn linear_weight(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let weight = super::primitive::cast::<Self>(weight, input.dtype());
        Self::gemm(input, weight, Transpose::Rhs)
    }
}

#[cfg(feature = "tch")]
impl PackedBackend for burn::backend::LibTorch {}

pub(super) fn kernels_in_use(device: &burn::tensor::Device) -> &'static str {
    let name = format!("{device:?}").to_lowercase();
    if name.contains("flex") {
        "native CPU ops; GEMMs in bf16 by cpu-gemm, in f32 by the gemm crate"
    } else if name.contains("cuda") {
        "CubeCL kernels, GEMM included"
    } else if ["wgpu", "vulkan", "metal"]
        .iter()
        .any(|kind| name.contains(kind))
    {
        "CubeCL kernels; GEMMs in f16 by the portable CubeCL kernel, in f32 by Burn's matmul (CubeK)"
    } else {
        "fallbacks composed of Burn's tensor operations"
    }
}
