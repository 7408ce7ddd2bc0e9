//! Labelled sequences in batches of similar length.

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::tensor::Device;
use modernbert::model::ClassificationLabels;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::order::epoch_order;

/// What a sequence should give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A class id.
    Class(u32),
    /// A number.
    Score(f32),
}

/// A tokenised sequence and its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// What the model should say.
    pub target: Target,
}

/// Sequences of one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Token ids of each sequence.
    pub sequences: Vec<Vec<u32>>,
    /// Their labels.
    pub labels: ClassificationLabels,
    /// What dropout depends on: the seed and the number of the batch in the run; `None` where nothing is trained.
    pub dropout_key: Option<(u64, u64)>,
}

impl Batch {
    fn new(samples: Vec<Sample>, dropout_key: Option<(u64, u64)>) -> Self {
        let targets: Vec<Target> = samples.iter().map(|sample| sample.target).collect();
        let scores = targets.iter().map(|target| match target {
            Target::Class(class) => *class as f32,
            Target::Score(score) => *score,
        });
        let classes: Option<Vec<u32>> = targets
            .iter()
            .map(|target| match target {
                Target::Class(class) => Some(*class),
                Target::Score(_) => None,
            })
            .collect();
        let labels = match classes {
            Some(classes) => ClassificationLabels::Classes(classes),
            None => ClassificationLabels::Scores(scores.collect()),
        };
        Self {
            sequences: samples.into_iter().map(|sample| sample.ids).collect(),
            labels,
            dropout_key,
        }
    }
}

/// Batches for burn-train, over a burn-dataset.
///
/// In training each epoch has a new order: samples are shuffled, sorted by length within pools of some batches, cut into
/// batches, and the batches shuffled. Batches are then of similar lengths and still random. The order is a function of
/// seed and epoch.
#[derive(Clone)]
pub struct BatchLoader {
    samples: Arc<InMemDataset<Sample>>,
    batch_size: usize,
    seed: Option<u64>,
    epoch: Arc<AtomicU64>,
}

/// Batches of a pool that is sorted by length at once.
const POOL: usize = 16;

impl BatchLoader {
    /// Training batches.
    pub fn shuffled(samples: Vec<Sample>, batch_size: usize, seed: u64) -> Self {
        Self::new(samples, batch_size, Some(seed))
    }

    /// Evaluation batches, in the order of the samples.
    pub fn in_order(samples: Vec<Sample>, batch_size: usize) -> Self {
        Self::new(samples, batch_size, None)
    }

    fn new(samples: Vec<Sample>, batch_size: usize, seed: Option<u64>) -> Self {
        Self {
            samples: Arc::new(InMemDataset::new(samples)),
            batch_size: batch_size.max(1),
            seed,
            epoch: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Indices of the samples of each batch of an epoch.
    fn plan(&self, epoch: u64) -> Result<Vec<Vec<usize>>, DatasetError> {
        let count = self.samples.len();
        let Some(seed) = self.seed else {
            let all: Vec<usize> = (0..count).collect();
            return Ok(all.chunks(self.batch_size).map(<[usize]>::to_vec).collect());
        };
        let mut lengths = Vec::with_capacity(count);
        for i in 0..count {
            lengths.push(self.samples.get(i)?.ids.len());
        }
        let mut order: Vec<usize> = epoch_order(count as u32, seed, epoch)
            .into_iter()
            .map(|i| i as usize)
            .collect();
        let mut batches = Vec::new();
        for pool in order.chunks_mut(POOL * self.batch_size) {
            pool.sort_by_key(|&i| lengths[i]);
            batches.extend(pool.chunks(self.batch_size).map(<[usize]>::to_vec));
        }
        // Another stream than the samples': the seed's complement.
        let shuffled = epoch_order(batches.len() as u32, !seed, epoch);
        Ok(shuffled
            .into_iter()
            .map(|i| std::mem::take(&mut batches[i as usize]))
            .collect())
    }
}

impl DataLoader<Batch> for BatchLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        let (plan, failure) = match self.plan(epoch) {
            Ok(plan) => (plan, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Box::new(Iter {
            samples: self.samples.clone(),
            plan: plan.into_iter(),
            failure,
            done: 0,
            // Batches of all epochs in one count.
            dropout_key: self
                .seed
                .map(|seed| (seed, epoch * self.samples.len() as u64)),
        })
    }

    fn num_items(&self) -> usize {
        self.samples.len()
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Batch>> {
        // Batches live on the host until the training step.
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let range = start..end.min(self.samples.len());
        let samples = range.filter_map(|i| self.samples.get(i).ok()).collect();
        Arc::new(Self::new(samples, self.batch_size, self.seed))
    }
}

struct Iter {
    samples: Arc<InMemDataset<Sample>>,
    plan: std::vec::IntoIter<Vec<usize>>,
    failure: Option<DatasetError>,
    done: usize,
    dropout_key: Option<(u64, u64)>,
}

impl Iterator for Iter {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        let indices = self.plan.next()?;
        let mut samples = Vec::with_capacity(indices.len());
        for i in indices {
            match self.samples.get(i) {
                Ok(sample) => samples.push(sample),
                Err(error) => return Some(Err(error)),
            }
        }
        self.done += samples.len();
        let dropout_key = self.dropout_key;
        self.dropout_key = dropout_key.map(|(seed, batch)| (seed, batch + 1));
        Some(Ok(Batch::new(samples, dropout_key)))
    }
}

impl DataLoaderIterator<Batch> for Iter {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.samples.len(), Some("samples".to_string()))
    }
}
