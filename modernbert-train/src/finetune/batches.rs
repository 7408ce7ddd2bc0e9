//! Labelled sequences in batches of similar length.

use modernbert::model::ClassificationLabels;

use crate::order::epoch_order;

/// The target of a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A class id.
    Class(u32),
    /// A number.
    Score(f32),
}

/// A tokenized sequence and its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// The target.
    pub target: Target,
}

/// A micro-batch: sequences and labels on the host.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Token ids of each sequence.
    pub sequences: Vec<Vec<u32>>,
    /// Their labels.
    pub labels: ClassificationLabels,
    /// Share of the step's sequences, by which the mean loss is weighted; 1 for a step of one micro-batch.
    pub share: f64,
    /// Key of dropout: the seed and the number of the micro-batch in the run.
    pub dropout_key: (u64, u64),
}

impl Batch {
    fn new(samples: &[&Sample], share: f64, dropout_key: (u64, u64)) -> Self {
        let scores = samples.iter().map(|sample| match sample.target {
            Target::Class(class) => class as f32,
            Target::Score(score) => score,
        });
        let classes: Option<Vec<u32>> = samples
            .iter()
            .map(|sample| match sample.target {
                Target::Class(class) => Some(class),
                Target::Score(_) => None,
            })
            .collect();
        let labels = match classes {
            Some(classes) => ClassificationLabels::Classes(classes),
            None => ClassificationLabels::Scores(scores.collect()),
        };
        Self {
            sequences: samples.iter().map(|sample| sample.ids.clone()).collect(),
            labels,
            share,
            dropout_key,
        }
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.sequences.iter().map(|ids| ids.len() as u64).sum()
    }
}

/// The training batches of a run: a function of the samples, the seed and the step.
///
/// Each epoch has an order of its own: samples are shuffled, sorted by length within pools of some batches, cut into batches, and the
/// batches shuffled. Batches are then of similar lengths and still random.
#[derive(Clone, Debug)]
pub struct Batches {
    samples: Vec<Sample>,
    batch_size: usize,
    micro_batches: usize,
    seed: u64,
    /// The epoch planned last, with the indices of the samples of each of its batches.
    planned: Option<(u64, Vec<Vec<usize>>)>,
}

/// Batches of a pool that is sorted by length at once.
const POOL: usize = 16;
/// Bits of a dropout key below those of the micro-batch's number within its step.
const STEP_BITS: u32 = 48;

impl Batches {
    /// Batches of `batch_size` sequences, each in `micro_batches` micro-batches; 0 of either counts as 1.
    pub fn new(samples: Vec<Sample>, batch_size: usize, micro_batches: usize, seed: u64) -> Self {
        Self {
            samples,
            batch_size: batch_size.max(1),
            micro_batches: micro_batches.max(1),
            seed,
            planned: None,
        }
    }

    /// Steps of an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.samples.len().div_ceil(self.batch_size) as u64
    }

    /// Micro-batches of the step after `step` steps; none where there are no samples.
    pub fn after(&mut self, step: u64) -> Vec<Batch> {
        let per_epoch = self.per_epoch().max(1);
        let (epoch, index) = (step / per_epoch, step % per_epoch);
        if self.planned.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.planned = Some((epoch, self.plan(epoch)));
        }
        let plan = self.planned.as_ref().map(|(_, plan)| plan);
        let Some(indices) = plan.and_then(|plan| plan.get(index as usize)) else {
            return Vec::new();
        };
        // Batches of all epochs in one count.
        let number = epoch * self.samples.len() as u64 + index;
        let whole = indices.len();
        let cut = indices.chunks(whole.div_ceil(self.micro_batches).max(1));
        cut.enumerate()
            .map(|(i, indices)| {
                let samples: Vec<&Sample> = indices.iter().map(|&i| &self.samples[i]).collect();
                let share = samples.len() as f64 / whole as f64;
                Batch::new(
                    &samples,
                    share,
                    (self.seed, number + ((i as u64) << STEP_BITS)),
                )
            })
            .collect()
    }

    /// Indices of the samples of each batch of an epoch.
    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        let count = self.samples.len();
        let mut order: Vec<usize> = epoch_order(count as u32, self.seed, epoch)
            .into_iter()
            .map(|i| i as usize)
            .collect();
        let mut batches = Vec::new();
        for pool in order.chunks_mut(POOL * self.batch_size) {
            pool.sort_by_key(|&i| self.samples[i].ids.len());
            batches.extend(pool.chunks(self.batch_size).map(<[usize]>::to_vec));
        }
        // The seed's complement gives another stream than the samples'.
        let shuffled = epoch_order(batches.len() as u32, !self.seed, epoch);
        shuffled
            .into_iter()
            .map(|i| std::mem::take(&mut batches[i as usize]))
            .collect()
    }
}
