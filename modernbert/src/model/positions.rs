//! Learned position embeddings: a vector for each position. The published architecture has none; it uses rotary embeddings alone.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::linear::zeros;
use crate::batch::{SequenceLayout, TokenOrder, int_tensor};
use crate::ops::gather_rows::gather_rows;

/// One row per position of a sequence, `[max_position_embeddings, hidden]`, after the rows before the first position.
#[derive(Module, Debug)]
pub(super) struct PositionEmbedding {
    weight: Param<Tensor<2>>,
    /// Row of a sequence's first token.
    #[module(skip)]
    first: usize,
}

impl PositionEmbedding {
    pub(super) fn new(rows: usize, first: usize, hidden: usize, device: &Device) -> Self {
        Self {
            weight: zeros([rows, hidden], device),
            first,
        }
    }

    /// The vectors of a batch's tokens, `[total, hidden]`.
    ///
    /// # Panics
    /// If a sequence has more tokens than there are positions: a mistake of the calling code, which truncates texts to
    /// `max_position_embeddings`.
    pub(super) fn forward(&self, layout: &SequenceLayout) -> Tensor<2> {
        let table = self.weight.val();
        let ([rows, _], longest) = (table.dims(), layout.max_seqlen());
        let known = rows - self.first;
        assert!(
            longest <= known,
            "a sequence of {longest} tokens in a model with {known} learned positions; truncate it to max_position_embeddings"
        );
        let first = self.first as i32;
        let positions: Vec<i32> = layout.positions().into_iter().map(|p| p + first).collect();
        let order = TokenOrder::new(positions.iter().map(|&p| p as u32).collect());
        let device = table.device();
        gather_rows(table, int_tensor(positions.into_iter(), &device), order)
    }
}
