//! Batches in which no text occurs twice.

use modernbert_train::order::epoch_order;
use std::collections::{HashSet, VecDeque};

use super::rows::TrainRow;

/// The batches of a run: a function of the rows, the seed and the step.
///
/// Each epoch has an order of its own. A row with a text that the batch already has, in any column, is deferred to a later batch; deferred
/// rows come first there, in their order. A text that occurs twice in a batch would be its own negative. The last rows of an epoch, too
/// few for a batch without repetition, are left out.
#[derive(Clone, Debug)]
pub struct Sampler {
    texts: Vec<Vec<u32>>,
    batch: usize,
    seed: u64,
    allows_duplicates: bool,
    planned: Option<(u64, Vec<Vec<u32>>)>,
    per_epoch: u64,
}

impl Sampler {
    /// Batches of `batch` rows; 0 counts as 1. With `allows_duplicates` rows are taken in the epoch's order, and a smaller last batch is
    /// kept.
    pub fn new(rows: &[TrainRow], batch: usize, seed: u64, allows_duplicates: bool) -> Self {
        let distinct = |row: &TrainRow| {
            let mut texts: Vec<u32> = row.texts().collect();
            texts.sort_unstable();
            texts.dedup();
            texts
        };
        let mut sampler = Self {
            texts: rows.iter().map(distinct).collect(),
            batch: batch.max(1),
            seed,
            allows_duplicates,
            planned: None,
            per_epoch: 0,
        };
        let first = sampler.plan(0);
        sampler.per_epoch = first.len() as u64;
        sampler.planned = Some((0, first));
        sampler
    }

    /// Batches of the first epoch, by which epochs are counted.
    pub fn per_epoch(&self) -> u64 {
        self.per_epoch
    }

    /// Rows of the batch with this number, counted over all epochs; `None` without a single batch.
    pub fn batch(&mut self, number: u64) -> Option<Vec<u32>> {
        if self.per_epoch == 0 {
            return None;
        }
        let (epoch, index) = (number / self.per_epoch, number % self.per_epoch);
        if self.planned.as_ref().is_none_or(|(of, _)| *of != epoch) {
            // An order in which no batch is full gives that of the first epoch, which has one.
            let plan = match self.plan(epoch) {
                empty if empty.is_empty() => self.plan(0),
                plan => plan,
            };
            self.planned = Some((epoch, plan));
        }
        let plan = &self.planned.as_ref()?.1;
        // An epoch in which more rows were left out than in the first one repeats its batches.
        plan.get(index as usize % plan.len().max(1)).cloned()
    }

    fn plan(&self, epoch: u64) -> Vec<Vec<u32>> {
        let order = epoch_order(self.texts.len() as u32, self.seed, epoch);
        if self.allows_duplicates {
            return order.chunks(self.batch).map(<[u32]>::to_vec).collect();
        }
        let mut rest = order.into_iter();
        let mut deferred: VecDeque<u32> = VecDeque::new();
        let mut batches = Vec::new();
        loop {
            let (mut batch, mut seen) = (Vec::new(), HashSet::<u32>::new());
            let mut fits = |row: u32| {
                let texts = &self.texts[row as usize];
                if texts.iter().any(|text| seen.contains(text)) {
                    return false;
                }
                seen.extend(texts);
                true
            };
            let mut kept = VecDeque::new();
            while batch.len() < self.batch {
                match deferred.pop_front() {
                    Some(row) if fits(row) => batch.push(row),
                    Some(row) => kept.push_back(row),
                    None => break,
                }
            }
            kept.append(&mut deferred);
            while batch.len() < self.batch {
                match rest.next() {
                    Some(row) if fits(row) => batch.push(row),
                    Some(row) => kept.push_back(row),
                    None => break,
                }
            }
            deferred = kept;
            if batch.len() < self.batch {
                break;
            }
            batches.push(batch);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn rows(texts: &[Vec<u32>]) -> Vec<TrainRow> {
        let row = |texts: &Vec<u32>| TrainRow {
            query: texts[0],
            documents: texts[1..].to_vec(),
            scores: Vec::new(),
        };
        texts.iter().map(row).collect()
    }

    #[test]
    fn a_row_that_conflicts_comes_in_a_later_batch() {
        // Every second row has the text 0.
        let texts: Vec<Vec<u32>> = (0..16u32)
            .map(|i| vec![100 + i, if i % 2 == 0 { 0 } else { 200 + i }])
            .collect();
        let mut sampler = Sampler::new(&rows(&texts), 2, 7, false);
        assert_eq!(sampler.per_epoch(), 8);
        let mut all: Vec<u32> = (0..8).flat_map(|i| sampler.batch(i).unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..16).collect::<Vec<u32>>());
        let again = Sampler::new(&rows(&texts), 2, 7, false).batch(3);
        assert_eq!(sampler.batch(3), again);
        assert_ne!(sampler.batch(3), sampler.batch(11));
    }

    #[test]
    fn rows_that_all_conflict_make_no_batch() {
        let same = rows(&vec![vec![1, 2]; 5]);
        assert_eq!(Sampler::new(&same, 2, 0, false).batch(0), None);
        let mut allowed = Sampler::new(&same, 2, 0, true);
        assert_eq!(allowed.per_epoch(), 3);
        assert_eq!(allowed.batch(0).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_occurs_twice_in_a_batch(
            texts in prop::collection::vec(prop::collection::vec(0u32..40, 2..4), 1..60),
            batch in 1usize..8,
            seed in 0u64..4,
        ) {
            let rows = rows(&texts);
            let mut sampler = Sampler::new(&rows, batch, seed, false);
            let mut used = HashSet::new();
            for number in 0..sampler.per_epoch() {
                let chosen = sampler.batch(number).unwrap();
                prop_assert_eq!(chosen.len(), batch);
                let mut seen = HashSet::new();
                for row in chosen {
                    prop_assert!(used.insert(row), "row {} twice in an epoch", row);
                    let own: HashSet<u32> = rows[row as usize].texts().collect();
                    for text in own {
                        prop_assert!(seen.insert(text), "text {} twice", text);
                    }
                }
            }
        }
    }
}
