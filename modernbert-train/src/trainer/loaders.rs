//! The data loaders of pretraining as burn-train's `DataLoader`.

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use std::sync::Arc;

use crate::loader::{MlmItem, Prefetched, TrainLoader};

/// Endless training rows; see [`TrainLoader`].
pub struct RowLoader(pub Arc<TrainLoader>);

struct Rows(Prefetched);

impl DataLoader<MlmItem> for RowLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MlmItem> + 'a> {
        Box::new(Rows(self.0.rows()))
    }

    fn num_items(&self) -> usize {
        self.0.total_tokens()
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<MlmItem>> {
        // Items live on the host until the training step.
        Arc::new(Self(self.0.clone()))
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<MlmItem>> {
        // An endless stream has no range to cut; ranks take every n-th row of it instead.
        Arc::new(Self(self.0.clone()))
    }
}

impl Iterator for Rows {
    type Item = Result<MlmItem, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|row| row.map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<MlmItem> for Rows {
    fn progress(&self) -> Progress {
        let (seen, total) = self.0.tokens();
        Progress::new(seen, total, Some("tokens".to_string()))
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
