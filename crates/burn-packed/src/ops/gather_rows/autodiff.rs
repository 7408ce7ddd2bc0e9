//! The derivatives of the row gather and of its gradient, the sum of rows, as nodes of Burn's autodiff graph. Only the ids are saved for
//! backward.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::DType;

use crate::batch::TokenOrder;
use crate::ops::PackedBackend;
use crate::ops::primitive::cast;

#[derive(Debug)]
struct GatherRowsBackward;

#[derive(Clone, Debug)]
struct State<B: PackedBackend> {
    ids: IntTensor<B>,
    order: TokenOrder,
    rows: usize,
    dtype: DType,
}

impl<B: PackedBackend> Backward<B, 1> for GatherRowsBackward {
    type State = State<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [table] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        if let Some(node) = table {
            let state = ops.state;
            let d_table = B::gather_rows_backward(d_out, state.ids, state.order, state.rows);
            grads.register::<B>(node.id, cast::<B>(d_table, state.dtype));
        }
    }
}

pub(crate) fn gather_rows<B: PackedBackend, C: CheckpointStrategy>(
    table: FloatTensor<Autodiff<B, C>>,
    ids: IntTensor<B>,
    order: TokenOrder,
) -> FloatTensor<Autodiff<B, C>> {
    match GatherRowsBackward
        .prepare::<C>([table.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let state = State {
                ids: ids.clone(),
                order: order.clone(),
                rows: table.shape()[0],
                dtype: table.dtype(),
            };
            prep.finish(state, B::gather_rows(table.into_primitive(), ids, order))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::gather_rows(table.into_primitive(), ids, order)),
    }
}

#[derive(Debug)]
struct SumRowsBackward;

#[derive(Clone, Debug)]
struct SumState<B: PackedBackend> {
    ids: IntTensor<B>,
    order: TokenOrder,
    dtype: DType,
}

impl<B: PackedBackend> Backward<B, 1> for SumRowsBackward {
    type State = SumState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [values] = ops.parents;
        let d_sums = grads.consume::<B>(&ops.node);
        if let Some(node) = values {
            let SumState { ids, order, dtype } = ops.state;
            let d_values = B::gather_rows(d_sums, ids, order);
            grads.register::<B>(node.id, cast::<B>(d_values, dtype));
        }
    }
}

/// Sums of the rows with equal ids: each row of `values` is added to one row of the result, whose gradient it reads.
pub(crate) fn sum_rows<B: PackedBackend, C: CheckpointStrategy>(
    values: FloatTensor<Autodiff<B, C>>,
    ids: IntTensor<B>,
    order: TokenOrder,
    rows: usize,
) -> FloatTensor<Autodiff<B, C>> {
    match SumRowsBackward
        .prepare::<C>([values.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let state = SumState {
                ids: ids.clone(),
                order: order.clone(),
                dtype: values.dtype(),
            };
            let sums = B::gather_rows_backward(values.into_primitive(), ids, order, rows);
            prep.finish(state, sums)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::gather_rows_backward(
            values.into_primitive(),
            ids,
            order,
            rows,
        )),
    }
}
