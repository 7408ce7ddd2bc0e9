//! Learned embeddings of token types: the first and the second text of a pair. BERT and RoBERTa have them, the published architecture has none.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::linear::zeros;
use crate::batch::{PackedBatch, int_tensor};
use crate::ops::gather_rows::gather_rows;

/// One row per type of token, `[types, hidden]`.
#[derive(Module, Debug)]
pub(super) struct TypeEmbedding {
    weight: Param<Tensor<2>>,
}

impl TypeEmbedding {
    pub(super) fn new(rows: usize, hidden: usize, device: &Device) -> Self {
        Self {
            weight: zeros([rows, hidden], device),
        }
    }

    /// The vectors of a batch's tokens, `[total, hidden]`, or `[1, hidden]` where all have type 0.
    pub(super) fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let table = self.weight.val();
        let [rows, _] = table.dims();
        match &batch.types {
            Some(types) if rows > 1 => {
                let device = table.device();
                let ids = int_tensor(types.ids().iter().map(|&id| id as i32), &device);
                gather_rows(table, ids, types.clone())
            }
            _ => table.narrow(0, 0, 1),
        }
    }
}
