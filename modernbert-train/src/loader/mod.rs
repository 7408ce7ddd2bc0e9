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
pub use threads::TrainLoader;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use modernbert::batch::{Dropout, SequenceLayout};
use std::sync::Arc;

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

/// A fixed list of evaluation batches for burn-train.
#[derive(Clone)]
pub struct FixedLoader {
    items: Arc<Vec<MlmItem>>,
}

impl FixedLoader {
    /// A loader that yields these items each time.
    pub fn new(items: Vec<MlmItem>) -> Self {
        Self {
            items: Arc::new(items),
        }
    }
}

impl DataLoader<MlmItem> for FixedLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MlmItem> + 'a> {
        Box::new(FixedIterator {
            items: self.items.clone(),
            next: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.items.len()
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<MlmItem>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<MlmItem>> {
        let end = end.min(self.items.len());
        Arc::new(Self::new(self.items[start.min(end)..end].to_vec()))
    }
}

struct FixedIterator {
    items: Arc<Vec<MlmItem>>,
    next: usize,
}

impl Iterator for FixedIterator {
    type Item = Result<MlmItem, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.items.get(self.next)?.clone();
        self.next += 1;
        Some(Ok(item))
    }
}

impl DataLoaderIterator<MlmItem> for FixedIterator {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.items.len(), Some("batches".to_string()))
    }
}
