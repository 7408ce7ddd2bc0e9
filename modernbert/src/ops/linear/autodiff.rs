//! The derivative of `linear` as a node of Burn's graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::Transpose;
use crate::ops::ModernBertBackend;

#[derive(Debug)]
struct LinearBackward;

impl<B: ModernBertBackend> Backward<B, 2> for LinearBackward {
    /// Input where the weight needs a gradient, weight where the input does.
    type State = (Option<NodeId>, Option<NodeId>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [input_node, weight_node] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let (input, weight) = ops.state;
        if let (Some(node), Some(weight)) = (input_node, weight) {
            let weight = checkpointer.retrieve_node_output(weight);
            grads.register::<B>(node.id, B::gemm(d_out.clone(), weight, Transpose::None));
        }
        if let (Some(node), Some(input)) = (weight_node, input) {
            let input = checkpointer.retrieve_node_output(input);
            grads.register::<B>(node.id, B::gemm(d_out, input, Transpose::Lhs));
        }
    }
}

pub(crate) fn linear<B: ModernBertBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let (input_tracked, weight_tracked) = (input.is_tracked(), weight.is_tracked());
    match LinearBackward
        .prepare::<C>([input.node(), weight.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = (
                weight_tracked.then(|| prep.checkpoint(&input)),
                input_tracked.then(|| prep.checkpoint(&weight)),
            );
            let out = B::linear_weight(input.into_primitive(), weight.into_primitive());
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::linear_weight(
            input.into_primitive(),
            weight.into_primitive(),
        )),
    }
}
