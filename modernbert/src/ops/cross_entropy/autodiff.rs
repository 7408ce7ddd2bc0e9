//! The derivative of cross-entropy as a node of Burn's graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::ops::ModernBertBackend;

#[derive(Debug)]
struct CrossEntropyBackward;

impl<B: ModernBertBackend> Backward<B, 1> for CrossEntropyBackward {
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

pub(crate) fn cross_entropy<B: ModernBertBackend, C: CheckpointStrategy>(
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
