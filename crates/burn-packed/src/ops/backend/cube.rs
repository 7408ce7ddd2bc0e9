//! `PackedBackend` for CubeCL backends: the GPU kernels.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;

use super::PackedBackend;
use super::fallback::{Op, uses_fallback};
use crate::batch::TokenOrder;
use crate::ops::attention::{self, AttentionSpec};
use crate::ops::cross_entropy::{self, ScoreSpec};
use crate::ops::dropout::{self, DropoutSpec};
use crate::ops::fp8::{self, Product};
use crate::ops::layer_norm::{self, AddNormBackward};
use crate::ops::linear::{self, Transpose};
use crate::ops::optimizer::{self, ParameterGroup, SteppedGroup};
use crate::ops::{gather_rows, geglu, primitive, sum};

impl PackedBackend for burn_cubecl::CubeBackend {
    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::Attention) {
            return attention::fallback::forward::<Self>(qkv, rotary, &spec);
        }
        attention::cube::forward(qkv, rotary, &spec)
    }

    fn packed_attention_backward(
        d_out: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::Attention) {
            return attention::fallback::backward::<Self>(d_out, qkv, out, lse, rotary, &spec);
        }
        attention::cube::backward(d_out, qkv, out, lse, rotary, &spec)
    }

    fn gemm(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::Linear) {
            return linear::fallback::gemm::<Self>(lhs, rhs, transpose);
        }
        linear::cube::gemm(lhs, rhs, transpose, false)
    }

    fn gemm_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::Linear) {
            return linear::fallback::gemm_f32::<Self>(lhs, rhs, transpose);
        }
        linear::cube::gemm(lhs, rhs, transpose, true)
    }

    fn fp8_quantize(input: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        fp8::cube::quantize(input)
    }

    fn fp8_add_layer_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        fp8::cube::add_layer_norm(x, branch, weight, eps)
    }

    fn fp8_linear(
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        weight: IntTensor<Self>,
        weight_scales: FloatTensor<Self>,
        product: Product,
    ) -> FloatTensor<Self> {
        fp8::cube::linear([(codes, scales), (weight, weight_scales)], product)
    }

    fn geglu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::Geglu) {
            return geglu::fallback::forward::<Self>(input);
        }
        geglu::cube::forward(input)
    }

    fn geglu_mlp(
        input: FloatTensor<Self>,
        wi: FloatTensor<Self>,
        wo: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !uses_fallback(Op::Geglu) && !uses_fallback(Op::Linear) {
            let wi = primitive::cast::<Self>(wi.clone(), input.dtype());
            if let Some(gated) = linear::cube::geglu_gemm(&input, &wi) {
                return Self::linear_weight(gated, wo);
            }
        }
        let gated = Self::geglu(Self::linear_weight(input, wi));
        Self::linear_weight(gated, wo)
    }

    fn geglu_backward(d_out: FloatTensor<Self>, input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::Geglu) {
            return geglu::fallback::backward::<Self>(d_out, input);
        }
        geglu::cube::backward(d_out, input)
    }

    fn geglu_backward_with_output(
        d_out: FloatTensor<Self>,
        input: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::Geglu) {
            let out = Self::geglu(input.clone());
            return (Self::geglu_backward(d_out, input), out);
        }
        geglu::cube::backward_with_output(d_out, input)
    }

    fn layer_norm_rows(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::LayerNorm) {
            return layer_norm::fallback::forward::<Self>(input, weight, eps, out);
        }
        layer_norm::cube::forward(input, weight, eps, out)
    }

    fn layer_norm_rows_backward(
        d_out: FloatTensor<Self>,
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::LayerNorm) {
            return layer_norm::fallback::backward::<Self>(d_out, input, weight, eps);
        }
        layer_norm::cube::backward(d_out, input, weight, eps)
    }

    fn add_layer_norm_forward(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::LayerNorm) {
            return layer_norm::fallback::add_forward::<Self>(x, branch, weight, eps, out);
        }
        layer_norm::cube::add_forward(x, branch, weight, eps, out)
    }

    fn add_layer_norm_backward(
        d_sum: FloatTensor<Self>,
        d_normed: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        inv_std: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        spec: AddNormBackward,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::LayerNorm) {
            return layer_norm::fallback::add_backward::<Self>(
                d_sum, d_normed, saved, inv_std, weight, &spec,
            );
        }
        layer_norm::cube::add_backward(d_sum, d_normed, saved, inv_std, weight, spec)
    }

    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::forward::<Self>(logits, targets);
        }
        cross_entropy::cube::forward(logits, targets)
    }

    fn cross_entropy_rows_backward(
        d_loss: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::backward::<Self>(d_loss, logits, targets);
        }
        cross_entropy::cube::backward(d_loss, logits, targets)
    }

    fn cross_entropy_scores(
        logits: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        spec: ScoreSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::scores::<Self>(logits, bias, targets, weights, spec);
        }
        cross_entropy::cube::scores(logits, bias, targets, weights, spec)
    }

    fn column_sums(input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::column_sums::<Self>(input);
        }
        cross_entropy::cube::column_sums(input)
    }

    fn gather_rows(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::GatherRows) {
            return gather_rows::fallback::forward::<Self>(table, ids);
        }
        let _ = order;
        gather_rows::cube::forward(table, ids)
    }

    fn gather_rows_backward(
        d_out: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
        rows: usize,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::GatherRows) {
            return gather_rows::fallback::backward::<Self>(d_out, ids, rows);
        }
        gather_rows::cube::backward(d_out, ids, order, rows)
    }

    fn adamw_steps(
        group: ParameterGroup<Self>,
        apply: FloatTensor<Self>,
        gated: bool,
    ) -> SteppedGroup<Self> {
        if uses_fallback(Op::Optimizer) {
            return optimizer::fallback::steps::<Self>(group, gated.then_some(apply));
        }
        optimizer::cube::steps(group, apply, gated)
    }

    fn sum(input: FloatTensor<Self>, squared: bool) -> FloatTensor<Self> {
        if uses_fallback(Op::Sum) {
            return sum::fallback::sum::<Self>(input, squared);
        }
        sum::cube::sum(input, squared)
    }

    fn dropout(input: FloatTensor<Self>, spec: DropoutSpec) -> FloatTensor<Self> {
        if uses_fallback(Op::Dropout) {
            return dropout::fallback::forward::<Self>(input, spec);
        }
        dropout::cube::forward(input, spec)
    }
}
