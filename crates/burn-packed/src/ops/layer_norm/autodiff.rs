//! The derivatives of LayerNorm and of the fused residual addition with LayerNorm as nodes of Burn's autodiff graph.
//!
//! A node of that graph has one output, but the fused op has two. It is therefore three nodes: a hidden node for the op, and an
//! output node each for `sum` and `normed`. In the backward pass the output nodes run first and store their gradients in
//! [`OutputGradients`]; the hidden node then computes all gradients in one pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::DType;
use std::sync::{Arc, Mutex, PoisonError};

use super::{AddNormBackward, SavedNorm};
use crate::ops::PackedBackend;
use crate::ops::primitive::cast;

#[derive(Debug)]
struct LayerNormBackward;

impl<B: PackedBackend> Backward<B, 2> for LayerNormBackward {
    type State = (NodeId, NodeId, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [input_node, weight_node] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let (input, weight, eps) = ops.state;
        let input = checkpointer.retrieve_node_output(input);
        let weight = checkpointer.retrieve_node_output(weight);
        let (d_input, d_weight) = B::layer_norm_rows_backward(d_out, input, weight, eps);
        if let Some(node) = input_node {
            grads.register::<B>(node.id, d_input);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, d_weight);
        }
    }
}

pub(crate) fn layer_norm<B: PackedBackend, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    eps: f64,
    out: DType,
) -> FloatTensor<Autodiff<B, C>> {
    match LayerNormBackward
        .prepare::<C>([input.node(), weight.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&input), prep.checkpoint(&weight), eps);
            let out = B::layer_norm_rows(input.into_primitive(), weight.into_primitive(), eps, out);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::layer_norm_rows(
            input.into_primitive(),
            weight.into_primitive(),
            eps,
            out,
        )),
    }
}

/// Gradients of the two outputs; `None` for an output that has none.
#[derive(Debug)]
struct OutputGradients<B: Backend> {
    sum: Option<FloatTensor<B>>,
    normed: Option<FloatTensor<B>>,
}

type SharedGradients<B> = Arc<Mutex<OutputGradients<B>>>;

#[derive(Clone, Copy, Debug)]
enum Output {
    Sum,
    Normed,
}

#[derive(Debug)]
struct OutputNode;

impl<B: PackedBackend> Backward<B, 1> for OutputNode {
    type State = (Output, SharedGradients<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [op] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let Some(op) = op else { return };
        let (output, shared) = ops.state;
        let mut gradients = shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Burn runs a node only if a gradient is registered for it. The hidden node discards this one.
        if gradients.sum.is_none() && gradients.normed.is_none() {
            grads.register::<B>(op.id, grad.clone());
        }
        match output {
            Output::Sum => gradients.sum = Some(grad),
            Output::Normed => gradients.normed = Some(grad),
        }
    }
}

#[derive(Debug)]
struct AddLayerNormBackward;

#[derive(Clone, Debug)]
struct AddLayerNormState<B: PackedBackend> {
    gradients: SharedGradients<B>,
    saved: FloatTensor<B>,
    inv_std: FloatTensor<B>,
    weight: NodeId,
    spec: AddNormBackward,
}

impl<B: PackedBackend> Backward<B, 3> for AddLayerNormBackward {
    type State = AddLayerNormState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x, branch, weight_node] = ops.parents;
        drop(grads.consume::<B>(&ops.node));
        let state = ops.state;
        let weight = checkpointer.retrieve_node_output(state.weight);
        let (d_sum, d_normed) = {
            let shared = &state.gradients;
            let mut gradients = shared.lock().unwrap_or_else(PoisonError::into_inner);
            (gradients.sum.take(), gradients.normed.take())
        };
        let mut spec = state.spec;
        spec.has_d_sum = d_sum.is_some();
        let (d_x, d_branch, d_weight) = match (d_sum, d_normed) {
            (None, None) => return,
            (Some(d_sum), None) => {
                let d_branch = cast::<B>(d_sum.clone(), spec.branch);
                (d_sum, d_branch, None)
            }
            (d_sum, Some(d_normed)) => {
                let d_sum = d_sum.unwrap_or_else(|| d_normed.clone());
                let (d_x, d_branch, d_weight) = B::add_layer_norm_backward(
                    d_sum,
                    d_normed,
                    state.saved,
                    state.inv_std,
                    weight,
                    spec,
                );
                (d_x, d_branch, Some(d_weight))
            }
        };
        if let Some(node) = x {
            grads.register::<B>(node.id, d_x);
        }
        if let Some(node) = branch {
            grads.register::<B>(node.id, d_branch);
        }
        if let (Some(node), Some(d_weight)) = (weight_node, d_weight) {
            grads.register::<B>(node.id, d_weight);
        }
    }
}

/// `(x + branch, norm(x + branch) * weight)`.
#[allow(clippy::type_complexity)] // two tensors of this backend
pub(crate) fn add_layer_norm<B: PackedBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    branch: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    eps: f64,
    out: DType,
) -> (FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>) {
    let gradients = Arc::new(Mutex::new(OutputGradients {
        sum: None,
        normed: None,
    }));
    let spec = AddNormBackward {
        eps,
        saved: SavedNorm::for_output(out),
        has_d_sum: true,
        sum: x.dtype(),
        branch: branch.dtype(),
    };
    let (op, normed) = match AddLayerNormBackward
        .prepare::<C>([x.node(), branch.node(), weight.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let weight_id = prep.checkpoint(&weight);
            let (sum, normed, inv_std) = B::add_layer_norm_forward(
                x.into_primitive(),
                branch.into_primitive(),
                weight.into_primitive(),
                eps,
                out,
            );
            let state = AddLayerNormState {
                gradients: gradients.clone(),
                saved: match spec.saved {
                    SavedNorm::Sum => sum.clone(),
                    SavedNorm::Normed => normed.clone(),
                },
                inv_std,
                weight: weight_id,
                spec,
            };
            (prep.finish(state, sum), normed)
        }
        OpsKind::UnTracked(prep) => {
            let (sum, normed) = B::add_layer_norm(
                x.into_primitive(),
                branch.into_primitive(),
                weight.into_primitive(),
                eps,
                out,
            );
            (prep.finish(sum), normed)
        }
    };
    let output_node = |output, value| match OutputNode
        .prepare::<C>([op.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((output, gradients.clone()), value),
        OpsKind::UnTracked(prep) => prep.finish(value),
    };
    let sum = output_node(Output::Sum, op.primitive().clone());
    (sum, output_node(Output::Normed, normed))
}
