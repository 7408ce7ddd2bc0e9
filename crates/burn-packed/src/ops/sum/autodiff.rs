//! The derivative of a sum as a node of Burn's autodiff graph.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::{DType, Scalar, Shape};

use crate::ops::PackedBackend;
use crate::ops::primitive::cast;

#[derive(Debug)]
struct TotalBackward;

#[derive(Clone, Debug)]
struct State {
    shape: Shape,
    dtype: DType,
    /// The input, saved if squares are summed.
    input: Option<NodeId>,
}

impl<B: PackedBackend> Backward<B, 1> for TotalBackward {
    type State = State;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let Some(node) = parent else { return };
        let State {
            shape,
            dtype,
            input,
        } = ops.state;
        let d_out = B::float_reshape(d_out, Shape::from(vec![1; shape.num_dims()]));
        let d_out = cast::<B>(B::float_expand(d_out, shape), dtype);
        let d_input = match input {
            Some(input) => {
                let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
                B::float_mul_scalar(B::float_mul(d_out, input), Scalar::from(2.0))
            }
            None => d_out,
        };
        grads.register::<B>(node.id, d_input);
    }
}

pub(crate) fn sum<B: PackedBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    squared: bool,
) -> FloatTensor<Autodiff<B, C>> {
    match TotalBackward
        .prepare::<C>([input.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let state = State {
                shape: input.shape(),
                dtype: input.dtype(),
                input: squared.then(|| prep.checkpoint(&input)),
            };
            prep.finish(state, B::sum(input.into_primitive(), squared))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::sum(input.into_primitive(), squared)),
    }
}
