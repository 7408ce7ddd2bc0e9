//! Batches: the texts that are computed together.

use std::ops::Range;

/// Sequences in the order in which they are computed, divided into batches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BatchPlan {
    /// Indices of the sequences, longest first; equal lengths stay in their order.
    pub(super) order: Vec<usize>,
    /// Ranges of `order`, one per batch.
    pub(super) batches: Vec<Range<usize>>,
}

/// Sorts sequences by length and fills batches of at most `budget` tokens.
///
/// The plan follows from the lengths alone, so that the content of a text never moves its neighbors. The longest come first:
/// a batch that doesn't fit the device fails at once.
pub(super) fn plan(lengths: &[usize], budget: usize) -> BatchPlan {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0usize);
    for (at, &i) in order.iter().enumerate() {
        if at > start && tokens.saturating_add(lengths[i]) > budget {
            batches.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens = tokens.saturating_add(lengths[i]);
    }
    if start < order.len() {
        batches.push(start..order.len());
    }
    BatchPlan { order, batches }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longest_first_and_full() {
        let found = plan(&[3, 9, 5, 3, 20], 10);
        assert_eq!(found.order, [4, 1, 2, 0, 3]);
        assert_eq!(found.batches, [0..1, 1..2, 2..4, 4..5]);
        assert!(plan(&[], 10).batches.is_empty());
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_batch_within_the_budget(
            lengths in prop::collection::vec(0usize..50, 0..40),
            budget in 1usize..120,
        ) {
            let plan = plan(&lengths, budget);
            let mut seen = plan.order.clone();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            let mut end = 0;
            for batch in &plan.batches {
                prop_assert_eq!(batch.start, end);
                prop_assert!(!batch.is_empty());
                end = batch.end;
                let tokens: usize = plan.order[batch.clone()].iter().map(|&i| lengths[i]).sum();
                prop_assert!(tokens <= budget || batch.len() == 1);
            }
            prop_assert_eq!(end, lengths.len());
        }
    }
}
