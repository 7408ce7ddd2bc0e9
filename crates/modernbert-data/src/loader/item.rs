//! A masked micro-batch, the loader's output.

use std::sync::Arc;

use packed_layout::{Dropout, SequenceLayout};

use super::Position;
use crate::mask::CappedLabels;

/// One masked micro-batch on the host; the training step moves it to its device.
#[derive(Clone, Debug)]
pub struct MlmItem {
    /// Masked ids, a whole row.
    pub input_ids: Vec<u32>,
    /// Boundaries of the sequences in the row; padding at the end is one more sequence.
    pub layout: SequenceLayout,
    /// Labelled positions, padded to a fixed number with weight 0.
    pub labels: CappedLabels,
    /// Tokens that are not padding.
    pub real_tokens: usize,
    /// Labelled tokens of this micro-batch.
    pub labelled: usize,
    /// Labelled tokens of all micro-batches of the step: the denominator of its loss. See [`Self::share_denominator`].
    pub step_labelled: usize,
    /// Number of the row, counted from 0 over the whole run and all ranks.
    pub row: u64,
    /// Dropout of the training step; `None` in evaluation.
    pub dropout: Option<Dropout>,
    pub(super) batch: Option<RowBatch>,
}

impl MlmItem {
    /// Returns the data-loader position `rows` rows after this one, which a checkpoint stores. A single rank passes 1; one of
    /// several ranks passes the number of rows up to its next one.
    ///
    /// `None` for an item that is not of a [`super::TrainStream`].
    pub fn position_after(&self, rows: u64) -> Option<Position> {
        self.batch.as_ref().map(|batch| batch.at(self.row + rows))
    }

    /// Sets the denominator of every item of a step to the labelled tokens of all items. The loader doesn't know the size of a step: the
    /// caller that groups micro-batches into one calls this.
    pub fn share_denominator(items: &mut [Self]) {
        let total = items.iter().map(|item| item.labelled).sum();
        for item in items {
            item.step_labelled = total;
        }
    }
}

/// A batch of rows that were packed together.
#[derive(Clone, Debug)]
pub(super) struct RowBatch {
    /// Position of the packer before the batch.
    pub(super) start: Arc<Position>,
    /// Epoch of the first source after the batch was packed.
    pub(super) epoch: u64,
}

impl RowBatch {
    /// The position before `row`, which is one of this batch or later.
    pub(super) fn at(&self, row: u64) -> Position {
        Position {
            row,
            epoch: self.epoch,
            ..(*self.start).clone()
        }
    }
}
