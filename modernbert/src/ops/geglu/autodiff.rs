//! The derivatives of GeGLU and of the MLP around it as nodes of Burn's graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::ModernBertBackend;
use crate::ops::linear::Transpose;

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

#[derive(Debug)]
struct MlpBackward;

#[derive(Clone, Debug)]
struct MlpState<B: ModernBertBackend> {
    input: NodeId,
    wi: NodeId,
    wo: NodeId,
    /// What enters the activation, `[tokens, 2 * width]`.
    u: FloatTensor<B>,
}

impl<B: ModernBertBackend> Backward<B, 3> for MlpBackward {
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
        let input = checkpointer.retrieve_node_output(state.input);
        let wi = checkpointer.retrieve_node_output(state.wi);
        let wo = checkpointer.retrieve_node_output(state.wo);
        let d_gated = B::gemm(d_out.clone(), wo, Transpose::None);
        let d_u = match wo_node {
            Some(node) => {
                let (d_u, gated) = B::geglu_backward_again(d_gated, state.u);
                grads.register::<B>(node.id, B::gemm(d_out, gated, Transpose::Lhs));
                d_u
            }
            None => B::geglu_backward(d_gated, state.u),
        };
        if let Some(node) = wi_node {
            grads.register::<B>(node.id, B::gemm(d_u.clone(), input, Transpose::Lhs));
        }
        if let Some(node) = input_node {
            grads.register::<B>(node.id, B::gemm(d_u, wi, Transpose::None));
        }
    }
}

pub(crate) fn geglu_mlp<B: ModernBertBackend, C: CheckpointStrategy>(
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
            let saved = [&input, &wi, &wo].map(|tensor| prep.checkpoint(tensor));
            let u = B::gemm(input.into_primitive(), wi.into_primitive(), Transpose::Rhs);
            let gated = B::geglu(u.clone());
            let out = B::gemm(gated, wo.into_primitive(), Transpose::Rhs);
            let [input, wi, wo] = saved;
            prep.finish(MlpState { input, wi, wo, u }, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::geglu_mlp(
            input.into_primitive(),
            wi.into_primitive(),
            wo.into_primitive(),
        )),
    }
}
