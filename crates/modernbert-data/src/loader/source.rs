//! Sources of samples, and the order in which a stream draws from them.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::LoaderError;
use crate::order::EpochOrder;
use crate::pack::Length;
use crate::shard::{Cut, Samples, Shard, ShardError};

/// Shards that form one source, and its share of the tokens.
#[derive(Debug, Clone)]
pub struct DataSource {
    /// Its name in messages.
    pub name: String,
    /// Its share of the tokens, in proportion to those of the other sources.
    pub proportion: f64,
    /// Its samples.
    pub samples: Samples,
}

impl DataSource {
    /// A source of everything in `shards`.
    pub fn new(
        name: impl Into<String>,
        proportion: f64,
        shards: impl IntoIterator<Item = Arc<Shard>>,
        cut: Cut,
    ) -> Self {
        Self {
            name: name.into(),
            proportion,
            samples: Samples::new(shards, cut),
        }
    }

    pub(super) fn check(&self) -> Result<(), LoaderError> {
        let place = || self.name.clone();
        if self.samples.is_empty() {
            return Err(LoaderError::Empty { place: place() });
        }
        if !(self.proportion > 0.0 && self.proportion.is_finite()) {
            return Err(LoaderError::Proportion {
                place: place(),
                proportion: self.proportion,
            });
        }
        Ok(())
    }

    /// SHA-256 of each shard, in hexadecimal.
    pub(super) fn hashes(&self) -> Vec<String> {
        let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.samples
            .shards()
            .map(|shard| hex(shard.sha256()))
            .collect()
    }
}

/// A sample that is assigned to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: u32,
    pub(super) sample: u64,
    pub(super) tokens: u32,
}

impl Length for Piece {
    fn tokens(&self) -> usize {
        self.tokens as usize
    }
}

/// Counts of the samples drawn from a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drawn {
    /// Samples, over all epochs.
    pub(super) samples: u64,
    /// Tokens of them.
    pub(super) tokens: u64,
}

/// Endless samples. Each is of the source whose share of the tokens drawn so far is furthest below its proportion, so that
/// the shares are exact at any moment to within a sample; within a source, epoch follows epoch, each in an order of its own.
#[derive(Debug, Clone)]
pub(super) struct Draws {
    sources: Arc<[DataSource]>,
    seed: u64,
    drawn: Vec<Drawn>,
    orders: Arc<Orders>,
    /// Tokens of a longer sample beyond this number are not counted: it will be cut.
    longest: usize,
    /// Reason why no sample was drawn.
    failed: Option<Arc<ShardError>>,
}

impl Draws {
    pub(super) fn new(
        sources: Arc<[DataSource]>,
        seed: u64,
        drawn: Vec<Drawn>,
        orders: Arc<Orders>,
    ) -> Self {
        Self {
            sources,
            seed,
            drawn,
            orders,
            longest: usize::MAX,
            failed: None,
        }
    }

    /// Sets the longest sequence of the rows that are packed next.
    pub(super) fn set_longest(&mut self, longest: usize) {
        self.longest = longest;
    }

    /// Reason why the draws ended.
    ///
    /// # Errors
    /// The shard that became shorter.
    pub(super) fn check(&self) -> Result<(), LoaderError> {
        self.failed
            .clone()
            .map_or(Ok(()), |error| Err(error.into()))
    }

    pub(super) fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }
}

impl Iterator for Draws {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let progress =
            |index: &usize| self.drawn[*index].tokens as f64 / self.sources[*index].proportion;
        let chosen = (0..self.sources.len()).min_by(|a, b| progress(a).total_cmp(&progress(b)))?;
        let samples = &self.sources[chosen].samples;
        let drawn = &mut self.drawn[chosen];
        let (epoch, place) = (drawn.samples / samples.len(), drawn.samples % samples.len());
        let sample = self
            .orders
            .get(samples.len(), self.seed, epoch, chosen)
            .at(place);
        if let Err(error) = samples.check_length(sample) {
            self.failed = Some(Arc::new(error));
            return None;
        }
        let tokens = samples.sample_len(sample);
        drawn.samples += 1;
        drawn.tokens += tokens.min(self.longest) as u64;
        Some(Piece {
            source: chosen as u32,
            sample,
            tokens: tokens as u32,
        })
    }
}

/// Epoch orders that several threads share, each made once.
#[derive(Debug, Default)]
pub(super) struct Orders {
    made: Mutex<Vec<(usize, u64, Arc<EpochOrder>)>>,
}

impl Orders {
    /// The order of `epoch` of source `source`. Of each source the two latest are kept: one thread may be an epoch ahead.
    fn get(&self, n: u64, seed: u64, epoch: u64, source: usize) -> Arc<EpochOrder> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let found = made
            .iter()
            .find(|(of, at, _)| *of == source && *at == epoch);
        if let Some((.., order)) = found {
            return order.clone();
        }
        let order = Arc::new(EpochOrder::new(n, seed, epoch, source as u64));
        made.retain(|(of, at, _)| *of != source || at.abs_diff(epoch) <= 1);
        made.push((source, epoch, order.clone()));
        order
    }
}
