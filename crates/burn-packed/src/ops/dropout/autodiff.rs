//! The derivative of dropout as a node of Burn's autodiff graph: dropout of the gradient. Nothing is saved for backward.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::DropoutSpec;
use crate::ops::PackedBackend;

#[derive(Debug)]
struct DropoutBackward;

impl<B: PackedBackend> Backward<B, 1> for DropoutBackward {
    type State = DropoutSpec;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::dropout(d_out, ops.state));
        }
    }
}

pub(crate) fn dropout<B: PackedBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    spec: DropoutSpec,
) -> FloatTensor<Autodiff<B, C>> {
    match DropoutBackward
        .prepare::<C>([input.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(spec, B::dropout(input.into_primitive(), spec)),
        OpsKind::UnTracked(prep) => prep.finish(B::dropout(input.into_primitive(), spec)),
    }
}
