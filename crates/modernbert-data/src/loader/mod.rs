//! From token shards to masked micro-batches, on threads of their own.
//!
//! The stream is a pure function of shards and settings: sources drawn from in their proportions, each in shuffled epochs, packed
//! greedily into rows of a fixed number of tokens, masked with a key per row. One row is one micro-batch. The number of loader
//! threads, of ranks, and of rows a step takes changes nothing about the rows; a [`Position`] is where to go on.

mod error;
mod evaluation;
mod position;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod threads;

pub use error::LoaderError;
pub use evaluation::{evaluation_items, evaluation_items_of};
pub use position::Position;
pub use source::Source;
pub use stream::{LoaderOptions, TrainSteps, TrainStream};
pub use threads::{Prefetched, TrainLoader};

use packed_layout::{Dropout, SequenceLayout};

use crate::mask::CappedLabels;

/// One masked micro-batch on the host; the training step moves it to its device.
#[derive(Clone, Debug)]
pub struct MlmItem {
    /// Masked ids, a whole row.
    pub input_ids: Vec<u32>,
    /// Sequences of the row; an unfilled tail is one more sequence.
    pub layout: SequenceLayout,
    /// Labelled positions, filled up to a fixed number of rows with weight 0.
    pub labels: CappedLabels,
    /// Tokens that are not padding.
    pub real_tokens: usize,
    /// Labelled tokens of this micro-batch.
    pub labelled: usize,
    /// Labelled tokens of all micro-batches of the step: the denominator of its loss. See [`Self::share_denominator`].
    pub step_labelled: usize,
    /// Number of the row, counted from 0 over the whole run and all ranks.
    pub row: u64,
    /// What the training step drops; `None` in evaluation.
    pub dropout: Option<Dropout>,
    batch: Option<stream::Batch>,
}

impl MlmItem {
    /// Where the stream stands once `rows` rows from this one on are done: what a checkpoint holds of the data. One rank alone counts
    /// 1; of several ranks, those of the rows between this one and this rank's next.
    ///
    /// `None` for an item that is not of a [`TrainStream`].
    pub fn position_after(&self, rows: u64) -> Option<Position> {
        self.batch.as_ref().map(|batch| batch.at(self.row + rows))
    }

    /// Gives every item of a step the labelled tokens of all of them as its denominator. The loader doesn't know where a step ends:
    /// whoever forms it calls this.
    pub fn share_denominator(items: &mut [Self]) {
        let total = items.iter().map(|item| item.labelled).sum();
        for item in items {
            item.step_labelled = total;
        }
    }
}
