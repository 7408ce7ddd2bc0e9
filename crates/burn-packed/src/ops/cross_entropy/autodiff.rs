//! The derivatives of cross-entropy, alone and fused with a decoder, as nodes of Burn's autodiff graph.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};

use super::DecoderSpec;
use crate::ops::PackedBackend;
use crate::ops::primitive::{converted, reshape};

#[derive(Debug)]
struct CrossEntropyBackward;

impl<B: PackedBackend> Backward<B, 1> for CrossEntropyBackward {
    type State = (NodeId, IntTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_loss = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let (logits, targets) = ops.state;
            let logits = checkpointer.retrieve_node_output(logits);
            let d_logits = B::cross_entropy_rows_backward(d_loss, logits, targets);
            grads.register::<B>(node.id, d_logits);
        }
    }
}

pub(crate) fn cross_entropy<B: PackedBackend, C: CheckpointStrategy>(
    logits: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match CrossEntropyBackward
        .prepare::<C>([logits.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&logits), targets.clone());
            let loss = B::cross_entropy_rows(logits.into_primitive(), targets);
            prep.finish(saved, loss)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::cross_entropy_rows(logits.into_primitive(), targets))
        }
    }
}

#[derive(Debug)]
struct DecoderBackward;

#[derive(Clone, Debug)]
struct DecoderState<B: Backend> {
    d_hidden: FloatTensor<B>,
    d_weight: FloatTensor<B>,
    d_bias: FloatTensor<B>,
    spec: DecoderSpec,
}

impl<B: PackedBackend> Backward<B, 3> for DecoderBackward {
    type State = DecoderState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [hidden, weight, bias] = ops.parents;
        let d_loss = grads.consume::<B>(&ops.node);
        let state = ops.state;
        // Multiplied in f32 and then rounded to the gradient's dtype: d_loss may be as small as 1 / tokens.
        let matrix = |gradient: FloatTensor<B>| {
            let dtype = gradient.dtype();
            let factor = reshape::<B, 2>(d_loss.clone(), [1, 1]);
            let wide = converted::<B>(gradient, factor.dtype());
            converted::<B>(B::float_mul(wide, factor), dtype)
        };
        if let Some(node) = hidden {
            grads.register::<B>(node.id, matrix(state.d_hidden));
        }
        if let Some(node) = weight {
            grads.register::<B>(node.id, matrix(state.d_weight));
        }
        if let (Some(node), true) = (bias, state.spec.bias) {
            grads.register::<B>(node.id, B::float_mul(state.d_bias, d_loss));
        }
    }
}

/// Sum of the losses, differentiable in hidden states, weight and bias; and sum of the hits, a constant.
#[allow(clippy::type_complexity)] // two tensors of this backend
pub(crate) fn decoder_loss<B: PackedBackend, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    weights: FloatTensor<Autodiff<B, C>>,
    spec: DecoderSpec,
) -> (FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>) {
    let constant = <Autodiff<B, C> as AutodiffBackend>::from_inner;
    let nodes = [hidden.node(), weight.node(), bias.node()];
    let (weight_dtype, bias_dtype) = (weight.dtype(), bias.dtype());
    let (hidden, weight, bias) = (
        hidden.into_primitive(),
        weight.into_primitive(),
        bias.into_primitive(),
    );
    let weights = weights.into_primitive();
    match DecoderBackward
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (loss, hits, d_hidden, d_weight, d_bias) =
                B::decoder_loss_gradients(hidden, weight, bias, targets, weights, spec);
            let state = DecoderState {
                d_hidden,
                d_weight: converted::<B>(d_weight, weight_dtype),
                d_bias: converted::<B>(d_bias, bias_dtype),
                spec,
            };
            (prep.finish(state, loss), constant(hits))
        }
        OpsKind::UnTracked(prep) => {
            let (loss, hits) = B::decoder_loss(hidden, weight, bias, targets, weights, spec);
            (prep.finish(loss), constant(hits))
        }
    }
}
