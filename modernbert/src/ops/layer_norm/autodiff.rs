//! The derivative of LayerNorm as a node of Burn's graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::ModernBertBackend;

#[derive(Debug)]
struct LayerNormBackward;

impl<B: ModernBertBackend> Backward<B, 2> for LayerNormBackward {
    type State = (NodeId, NodeId, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [input_node, weight_node] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let (input, weight, eps) = ops.state;
        let input = checkpointer.retrieve_node_output(input);
        let weight = checkpointer.retrieve_node_output(weight);
        let (d_input, d_weight) = B::layer_norm_rows_backward(d_out, input, weight, eps);
        if let Some(node) = input_node {
            grads.register::<B>(node.id, d_input);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, d_weight);
        }
    }
}

pub(crate) fn layer_norm<B: ModernBertBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    eps: f64,
) -> FloatTensor<Autodiff<B, C>> {
    match LayerNormBackward
        .prepare::<C>([input.node(), weight.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&input), prep.checkpoint(&weight), eps);
            let out = B::layer_norm_rows(input.into_primitive(), weight.into_primitive(), eps);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::layer_norm_rows(
            input.into_primitive(),
            weight.into_primitive(),
            eps,
        )),
    }
}
