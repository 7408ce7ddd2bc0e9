//! The derivative of a conversion as a node of Burn's autodiff graph.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::FloatDType;

use crate::ops::PackedBackend;

#[derive(Debug)]
struct ConvertBackward;

impl<B: PackedBackend> Backward<B, 1> for ConvertBackward {
    /// Dtype of the input.
    type State = FloatDType;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::convert(d_out, ops.state));
        }
    }
}

pub(crate) fn convert<B: PackedBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    dtype: FloatDType,
) -> FloatTensor<Autodiff<B, C>> {
    match ConvertBackward
        .prepare::<C>([input.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let state = FloatDType::from(input.dtype());
            prep.finish(state, B::convert(input.into_primitive(), dtype))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::convert(input.into_primitive(), dtype)),
    }
}
