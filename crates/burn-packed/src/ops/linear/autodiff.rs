//! The derivative of `linear` as a node of Burn's autodiff graph.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::DType;

use super::Transpose;
use crate::ops::PackedBackend;
use crate::ops::primitive::converted;

#[derive(Debug)]
struct LinearBackward;

/// Activations and weights saved for the backward pass.
#[derive(Debug)]
struct SavedLinear<B: Backend> {
    /// Saved if the weight needs a gradient.
    input: Option<NodeId>,
    /// Saved if the input needs a gradient, in the dtype of the input: a pass casts each weight once.
    weight: Option<FloatTensor<B>>,
    weight_dtype: DType,
}

impl<B: Backend> Clone for SavedLinear<B> {
    fn clone(&self) -> Self {
        Self {
            input: self.input,
            weight: self.weight.clone(),
            weight_dtype: self.weight_dtype,
        }
    }
}

impl<B: PackedBackend> Backward<B, 2> for LinearBackward {
    type State = SavedLinear<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [input_node, weight_node] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let SavedLinear {
            input,
            weight,
            weight_dtype,
        } = ops.state;
        if let (Some(node), Some(weight)) = (input_node, weight) {
            grads.register::<B>(node.id, B::gemm(d_out.clone(), weight, Transpose::None));
        }
        if let (Some(node), Some(input)) = (weight_node, input) {
            let input: FloatTensor<B> = checkpointer.retrieve_node_output(input);
            let d_weight = weight_gradient::<B>(d_out, input, weight_dtype);
            grads.register::<B>(node.id, d_weight);
        }
    }
}

/// `d_outᵀ · input` in the dtype of the weight: accumulated and returned in f32 for an f32 weight of a half-precision pass.
pub(in crate::ops) fn weight_gradient<B: PackedBackend>(
    d_out: FloatTensor<B>,
    input: FloatTensor<B>,
    dtype: DType,
) -> FloatTensor<B> {
    if dtype == DType::F32 && d_out.dtype() != DType::F32 {
        B::gemm_f32(d_out, input, Transpose::Lhs)
    } else {
        converted::<B>(B::gemm(d_out, input, Transpose::Lhs), dtype)
    }
}

pub(crate) fn linear<B: PackedBackend, C: CheckpointStrategy>(
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
            let saved_input = weight_tracked.then(|| prep.checkpoint(&input));
            let (input, weight) = (input.into_primitive(), weight.into_primitive());
            let weight_dtype = weight.dtype();
            let weight = converted::<B>(weight, input.dtype());
            let saved = SavedLinear {
                input: saved_input,
                weight: input_tracked.then(|| weight.clone()),
                weight_dtype,
            };
            let out = B::linear_weight(input, weight);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::linear_weight(
            input.into_primitive(),
            weight.into_primitive(),
        )),
    }
}
