//! `PackedBackend` for `Flex`: the native CPU versions.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};

use super::PackedBackend;
use super::fallback::{Op, uses_fallback};
use crate::batch::TokenOrder;
use crate::ops::attention::{self, AttentionSpec};
use crate::ops::convert;
use crate::ops::cross_entropy::{self, ScoreSpec};
use crate::ops::dropout::{self, DropoutSpec};
use crate::ops::gather_rows;
use crate::ops::geglu;
use crate::ops::layer_norm::{self, AddNormBackward};
use crate::ops::linear::{self, Transpose};
use crate::ops::optimizer::{self, ParameterGroup, SteppedGroup};
use crate::ops::sum;

impl PackedBackend for burn::backend::Flex {
    fn convert(input: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        convert::flex::convert(input, dtype)
    }

    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::Attention) {
            return attention::fallback::forward::<Self>(qkv, rotary, &spec);
        }
        attention::flex::forward(qkv, rotary, &spec)
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
        attention::flex::backward(d_out, qkv, out, lse, rotary, &spec)
    }

    fn geglu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::Geglu) {
            return geglu::fallback::forward::<Self>(input);
        }
        geglu::flex::forward(input)
    }

    fn geglu_backward(d_out: FloatTensor<Self>, input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::Geglu) {
            return geglu::fallback::backward::<Self>(d_out, input);
        }
        geglu::flex::backward(d_out, input)
    }

    fn geglu_backward_with_output(
        d_out: FloatTensor<Self>,
        input: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if uses_fallback(Op::Geglu) {
            let out = geglu::fallback::forward::<Self>(input.clone());
            return (geglu::fallback::backward::<Self>(d_out, input), out);
        }
        geglu::flex::backward_with_output(d_out, input)
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
        layer_norm::flex::forward(input, weight, eps, out)
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
        layer_norm::flex::add_forward(x, branch, weight, eps, out)
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
        layer_norm::flex::add_backward(d_sum, d_normed, saved, inv_std, weight, &spec)
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
        layer_norm::flex::backward(d_out, input, weight, eps)
    }

    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::forward::<Self>(logits, targets);
        }
        cross_entropy::flex::forward(logits, targets)
    }

    fn cross_entropy_rows_backward(
        d_loss: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::backward::<Self>(d_loss, logits, targets);
        }
        cross_entropy::flex::backward(d_loss, logits, targets)
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
        cross_entropy::flex::scores(logits, bias, targets, weights, spec)
    }

    fn column_sums(input: FloatTensor<Self>) -> FloatTensor<Self> {
        if uses_fallback(Op::CrossEntropy) {
            return cross_entropy::fallback::column_sums::<Self>(input);
        }
        cross_entropy::flex::column_sums(input)
    }

    fn sum(input: FloatTensor<Self>, squared: bool) -> FloatTensor<Self> {
        if uses_fallback(Op::Sum) {
            return sum::fallback::sum::<Self>(input, squared);
        }
        sum::flex::sum(input, squared)
    }

    fn gather_rows(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::GatherRows) {
            return gather_rows::fallback::forward::<Self>(table, ids);
        }
        gather_rows::flex::forward(table, ids, &order)
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
        gather_rows::flex::backward(d_out, ids, &order, rows)
    }

    fn adamw_steps(
        group: ParameterGroup<Self>,
        apply: FloatTensor<Self>,
        gated: bool,
    ) -> SteppedGroup<Self> {
        let apply = gated.then_some(apply);
        if uses_fallback(Op::Optimizer) {
            return optimizer::fallback::steps::<Self>(group, apply);
        }
        optimizer::flex::steps(group, apply)
    }

    fn dropout(input: FloatTensor<Self>, spec: DropoutSpec) -> FloatTensor<Self> {
        if uses_fallback(Op::Dropout) {
            return dropout::fallback::forward::<Self>(input, spec);
        }
        dropout::flex::forward(input, spec)
    }

    fn gemm(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::Linear) || !linear::flex::supports(&lhs, &rhs) {
            return linear::fallback::gemm::<Self>(lhs, rhs, transpose);
        }
        linear::flex::gemm(lhs, rhs, transpose, DType::BF16)
    }

    fn gemm_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        transpose: Transpose,
    ) -> FloatTensor<Self> {
        if uses_fallback(Op::Linear) || !linear::flex::supports(&lhs, &rhs) {
            return linear::fallback::gemm_f32::<Self>(lhs, rhs, transpose);
        }
        linear::flex::gemm(lhs, rhs, transpose, DType::F32)
    }
}
