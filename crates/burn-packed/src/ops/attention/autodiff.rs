//! The derivative of packed attention as a node of Burn's graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::AttentionSpec;
use crate::ops::PackedBackend;

#[derive(Debug)]
struct AttentionBackward;

#[derive(Clone, Debug)]
struct State<B: PackedBackend> {
    qkv: NodeId,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    rotary: FloatTensor<B>,
    spec: AttentionSpec,
}

impl<B: PackedBackend> Backward<B, 1> for AttentionBackward {
    type State = State<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let state = ops.state;
        if let Some(node) = parent {
            let qkv = checkpointer.retrieve_node_output(state.qkv);
            let d_qkv = B::packed_attention_backward(
                d_out,
                qkv,
                state.out,
                state.lse,
                state.rotary,
                state.spec,
            );
            grads.register::<B>(node.id, d_qkv);
        }
    }
}

/// Packed attention, differentiable in `qkv`; the rotary table is a constant.
pub(crate) fn attention<B: PackedBackend, C: CheckpointStrategy>(
    qkv: FloatTensor<Autodiff<B, C>>,
    rotary: FloatTensor<Autodiff<B, C>>,
    spec: AttentionSpec,
) -> FloatTensor<Autodiff<B, C>> {
    let rotary = rotary.into_primitive();
    match AttentionBackward
        .prepare::<C>([qkv.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&qkv);
            let (out, lse) =
                B::packed_attention_forward(qkv.into_primitive(), rotary.clone(), spec.clone());
            let state = State {
                qkv: saved,
                out: out.clone(),
                lse,
                rotary,
                spec,
            };
            prep.finish(state, out)
        }
        OpsKind::UnTracked(prep) => {
            let out = B::packed_attention(qkv.into_primitive(), rotary, spec);
            prep.finish(out)
        }
    }
}
