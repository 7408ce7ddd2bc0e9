//! `PackedBackend` for `Autodiff`: the differentiable entries.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};

use super::PackedBackend;
use crate::batch::TokenOrder;
use crate::ops::attention::{self, AttentionSpec};
use crate::ops::cross_entropy::{self, DecoderSpec};
use crate::ops::dropout::{self, DropoutSpec};
use crate::ops::{convert, gather_rows, geglu, layer_norm, linear, sum};

impl<B: PackedBackend, C: CheckpointStrategy> PackedBackend for Autodiff<B, C> {
    fn packed_attention(
        qkv: FloatTensor<Self>,
        rotary: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        attention::autodiff::attention::<B, C>(qkv, rotary, spec)
    }

    fn convert(input: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        convert::autodiff::convert::<B, C>(input, dtype)
    }

    fn sum(input: FloatTensor<Self>, squared: bool) -> FloatTensor<Self> {
        sum::autodiff::sum::<B, C>(input, squared)
    }

    fn geglu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::autodiff::geglu::<B, C>(input)
    }

    fn geglu_mlp(
        input: FloatTensor<Self>,
        wi: FloatTensor<Self>,
        wo: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        geglu::autodiff::geglu_mlp::<B, C>(input, wi, wo)
    }

    fn layer_norm_rows(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> FloatTensor<Self> {
        layer_norm::autodiff::layer_norm::<B, C>(input, weight, eps, out)
    }

    fn add_layer_norm(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        out: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        layer_norm::autodiff::add_layer_norm::<B, C>(x, branch, weight, eps, out)
    }

    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::autodiff::cross_entropy::<B, C>(logits, targets)
    }

    fn decoder_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        spec: DecoderSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::autodiff::decoder_loss::<B, C>(hidden, weight, bias, targets, weights, spec)
    }

    fn gather_rows(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
    ) -> FloatTensor<Self> {
        gather_rows::autodiff::gather_rows::<B, C>(table, ids, order)
    }

    fn gather_rows_backward(
        d_out: FloatTensor<Self>,
        ids: IntTensor<Self>,
        order: TokenOrder,
        rows: usize,
    ) -> FloatTensor<Self> {
        gather_rows::autodiff::sum_rows::<B, C>(d_out, ids, order, rows)
    }

    fn dropout(input: FloatTensor<Self>, spec: DropoutSpec) -> FloatTensor<Self> {
        dropout::autodiff::dropout::<B, C>(input, spec)
    }

    fn linear_weight(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::autodiff::linear::<B, C>(input, weight)
    }
}
