//! The derivatives of GeGLU and of the MLP around it as nodes of Burn's autodiff graph.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::DType;

use crate::ops::PackedBackend;
use crate::ops::linear::Transpose;
use crate::ops::linear::autodiff::weight_gradient;
use crate::ops::primitive::converted;

#[derive(Debug)]
struct GegluBackward;

impl<B: PackedBackend> Backward<B, 1> for GegluBackward {
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

pub(crate) fn geglu<B: PackedBackend, C: CheckpointStrategy>(
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

#[derive(Debug)]
struct MlpBackward;

#[derive(Clone, Debug)]
struct MlpState<B: PackedBackend> {
    input: NodeId,
    /// Both weights in the dtype of the input: a pass casts each once.
    wi: FloatTensor<B>,
    wo: FloatTensor<B>,
    /// Dtypes of their gradients.
    weight_dtypes: [DType; 2],
    /// Input of the activation, `[tokens, 2 * width]`.
    u: FloatTensor<B>,
}

impl<B: PackedBackend> Backward<B, 3> for MlpBackward {
    type State = MlpState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [input_node, wi_node, wo_node] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let state = ops.state;
        let input: FloatTensor<B> = checkpointer.retrieve_node_output(state.input);
        let [wi_dtype, wo_dtype] = state.weight_dtypes;
        let d_gated = B::gemm(d_out.clone(), state.wo, Transpose::None);
        let d_u = match wo_node {
            Some(node) => {
                let (d_u, gated) = B::geglu_backward_with_output(d_gated, state.u);
                grads.register::<B>(node.id, weight_gradient::<B>(d_out, gated, wo_dtype));
                d_u
            }
            None => B::geglu_backward(d_gated, state.u),
        };
        if let Some(node) = wi_node {
            let d_wi = weight_gradient::<B>(d_u.clone(), input, wi_dtype);
            grads.register::<B>(node.id, d_wi);
        }
        if let Some(node) = input_node {
            grads.register::<B>(node.id, B::gemm(d_u, state.wi, Transpose::None));
        }
    }
}

pub(crate) fn geglu_mlp<B: PackedBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    wi: FloatTensor<Autodiff<B, C>>,
    wo: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    match MlpBackward
        .prepare::<C>([input.node(), wi.node(), wo.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&input);
            let dtype = input.dtype();
            let weight_dtypes = [wi.dtype(), wo.dtype()];
            let wi = converted::<B>(wi.into_primitive(), dtype);
            let wo = converted::<B>(wo.into_primitive(), dtype);
            let u = B::gemm(input.into_primitive(), wi.clone(), Transpose::Rhs);
            let gated = B::geglu(u.clone());
            let out = B::gemm(gated, wo.clone(), Transpose::Rhs);
            let state = MlpState {
                input: saved,
                wi,
                wo,
                weight_dtypes,
                u,
            };
            prep.finish(state, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::geglu_mlp(
            input.into_primitive(),
            wi.into_primitive(),
            wo.into_primitive(),
        )),
    }
}
