//! Labelled examples in batches of similar length.

use super::example::Example;
use crate::order::epoch_order;

/// A micro-batch: examples on the host.
#[derive(Clone, Debug)]
pub struct Batch<E> {
    /// The examples.
    pub examples: Vec<E>,
    /// Share of the step's targets, by which the mean loss is weighted; 1 for a step of one micro-batch.
    pub share: f64,
    /// Key of dropout: the seed and the number of the micro-batch in the run.
    pub dropout_key: (u64, u64),
}

impl<E: Example> Batch<E> {
    /// Token ids of the sequences of all examples, in order.
    pub fn sequences(&self) -> Vec<&[u32]> {
        self.examples.iter().flat_map(E::sequences).collect()
    }

    /// Position of the first token of type 1 in each sequence.
    pub fn seconds(&self) -> impl Iterator<Item = usize> {
        self.examples.iter().flat_map(E::seconds)
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.examples.iter().map(|e| e.tokens() as u64).sum()
    }
}

/// The training batches of a run: a function of the examples, the seed and the step.
///
/// Each epoch has an order of its own: examples are shuffled, sorted by length within pools of some batches, cut into batches, and the
/// batches shuffled. Batches are then of similar lengths and still random.
#[derive(Clone, Debug)]
pub struct Batches<E> {
    examples: Vec<E>,
    batch_size: usize,
    micro_batches: usize,
    seed: u64,
    /// The epoch planned last, with the indices of the examples of each of its batches.
    planned: Option<(u64, Vec<Vec<usize>>)>,
}

/// Batches of a pool that is sorted by length at once.
const POOL: usize = 16;
/// Bits of a dropout key below those of the micro-batch's number within its step.
const STEP_BITS: u32 = 48;

impl<E: Example> Batches<E> {
    /// Batches of `batch_size` examples, each in `micro_batches` micro-batches; 0 of either counts as 1.
    pub fn new(examples: Vec<E>, batch_size: usize, micro_batches: usize, seed: u64) -> Self {
        Self {
            examples,
            batch_size: batch_size.max(1),
            micro_batches: micro_batches.max(1),
            seed,
            planned: None,
        }
    }

    /// Steps of an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.batch_size) as u64
    }

    /// Micro-batches of the step after `step` steps; none where there are no examples.
    pub fn after(&mut self, step: u64) -> Vec<Batch<E>> {
        let per_epoch = self.per_epoch().max(1);
        let (epoch, index) = (step / per_epoch, step % per_epoch);
        if self.planned.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.planned = Some((epoch, self.plan(epoch)));
        }
        let plan = self.planned.as_ref().map(|(_, plan)| plan);
        let Some(indices) = plan.and_then(|plan| plan.get(index as usize)) else {
            return Vec::new();
        };
        // Unique among the batches of all epochs, of which an epoch has at most one per example.
        let number = epoch * self.examples.len() as u64 + index;
        let targets = |indices: &[usize]| -> usize {
            indices.iter().map(|&i| self.examples[i].targets()).sum()
        };
        // A step without a single target has a loss of 0.
        let whole = targets(indices).max(1);
        let cut = indices.chunks(indices.len().div_ceil(self.micro_batches).max(1));
        cut.enumerate()
            .map(|(i, indices)| Batch {
                examples: indices.iter().map(|&i| self.examples[i].clone()).collect(),
                share: targets(indices) as f64 / whole as f64,
                dropout_key: (self.seed, number + ((i as u64) << STEP_BITS)),
            })
            .collect()
    }

    /// Indices of the examples of each batch of an epoch.
    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        let count = self.examples.len();
        let mut order: Vec<usize> = epoch_order(count as u32, self.seed, epoch)
            .into_iter()
            .map(|i| i as usize)
            .collect();
        let mut batches = Vec::new();
        for pool in order.chunks_mut(self.batch_size.saturating_mul(POOL)) {
            pool.sort_by_key(|&i| self.examples[i].tokens());
            batches.extend(pool.chunks(self.batch_size).map(<[usize]>::to_vec));
        }
        // The seed's complement gives another stream than the examples'.
        let shuffled = epoch_order(batches.len() as u32, !self.seed, epoch);
        shuffled
            .into_iter()
            .map(|i| std::mem::take(&mut batches[i as usize]))
            .collect()
    }
}
