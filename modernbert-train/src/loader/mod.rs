//! From token shards to masked micro-batches, on a thread of its own.
//!
//! The stream is a pure function of shard and settings: epochs in shuffled order, packed greedily into rows of a fixed
//! number of tokens, masked with a key per row. One row is one micro-batch; `micro_batches` rows make a step.

mod stream;
#[cfg(test)]
mod tests;

pub use stream::{LoaderError, LoaderOptions, TrainSteps, TrainStream, evaluation_items};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use modernbert::batch::SequenceLayout;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

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
    /// Labelled tokens of all micro-batches of the step: the denominator of its loss.
    pub step_labelled: usize,
}

/// Rows prepared ahead of the training step.
const PREFETCH: usize = 8;

/// Endless training data for burn-train, prepared ahead on another thread.
pub struct TrainLoader {
    stream: TrainStream,
    total_tokens: usize,
    first_row: u64,
}

impl TrainLoader {
    /// A loader over `stream`; `total_tokens` is what progress is measured against.
    pub fn new(stream: TrainStream, total_tokens: u64) -> Self {
        Self {
            stream,
            total_tokens: total_tokens as usize,
            first_row: 0,
        }
    }

    /// The same from row number `row` on, counted from 0; the rows before it are made again and thrown away.
    #[must_use]
    pub fn starting_at(self, row: u64) -> Self {
        Self {
            first_row: row,
            ..self
        }
    }
}

impl DataLoader<MlmItem> for TrainLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MlmItem> + 'a> {
        let (sender, receiver) = sync_channel(PREFETCH);
        let (stream, mut passed_over) = (self.stream.clone(), self.first_row);
        // The thread ends with the first error, which the trainer receives, or when the receiver is dropped.
        std::thread::spawn(move || {
            let mut steps = match stream.steps() {
                Ok(steps) => steps,
                Err(error) => return drop(sender.send(Err(error))),
            };
            loop {
                match steps.next_step() {
                    Ok(items) => {
                        for item in items {
                            if passed_over > 0 {
                                passed_over -= 1;
                                continue;
                            }
                            if sender.send(Ok(item)).is_err() {
                                return;
                            }
                        }
                    }
                    Err(error) => return drop(sender.send(Err(error))),
                }
            }
        });
        Box::new(Prefetched {
            receiver,
            tokens: 0,
            total: self.total_tokens,
        })
    }

    fn num_items(&self) -> usize {
        self.total_tokens
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<MlmItem>> {
        // Items live on the host until the training step.
        Arc::new(Self {
            stream: self.stream.clone(),
            total_tokens: self.total_tokens,
            first_row: self.first_row,
        })
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<MlmItem>> {
        // An endless stream has no range to cut; ranks take every n-th step of it instead.
        self.to_device(&Device::default())
    }
}

struct Prefetched {
    receiver: Receiver<Result<MlmItem, LoaderError>>,
    tokens: usize,
    total: usize,
}

impl Iterator for Prefetched {
    type Item = Result<MlmItem, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.receiver.recv().ok()?;
        Some(match item {
            Ok(item) => {
                self.tokens += item.real_tokens;
                Ok(item)
            }
            Err(error) => Err(DatasetError::new(error)),
        })
    }
}

impl DataLoaderIterator<MlmItem> for Prefetched {
    fn progress(&self) -> Progress {
        Progress::new(
            self.tokens.min(self.total),
            self.total,
            Some("tokens".to_string()),
        )
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
