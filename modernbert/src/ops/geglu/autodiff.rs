//! The derivative of GeGLU as a node of Burn's graph; it keeps its input alone.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::ModernBertBackend;

#[derive(Debug)]
struct GegluBackward;

impl<B: ModernBertBackend> Backward<B, 1> for GegluBackward {
    type State = NodeId;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let input = checkpointer.retrieve_node_output(ops.state);
            grads.register::<B>(node.id, B::geglu_backward(d_out, input));
        }
    }
}

pub(crate) fn geglu<B: ModernBertBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    match GegluBackward
        .prepare::<C>([input.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&input);
            prep.finish(saved, B::geglu(input.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::geglu(input.into_primitive())),
    }
}
