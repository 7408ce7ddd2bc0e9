//! Ids grouped on the host, so that the gradient of a lookup can be summed in parallel and in a fixed order.

use std::sync::{Arc, OnceLock};

/// The ids of a lookup on the host, and the order that groups equal ids. The ids are sorted once, at the first use.
#[derive(Clone, Debug)]
pub struct TokenOrder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ids: Vec<u32>,
    runs: OnceLock<Runs>,
}

/// Positions grouped by id: positions with equal ids are adjacent, in the order of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Every position once.
    pub positions: Vec<u32>,
    /// The ids that occur, ascending, each with the index of its first position in `positions`.
    pub starts: Vec<(u32, u32)>,
}

impl TokenOrder {
    /// Returns the order of these ids; nothing is sorted yet.
    pub fn new(ids: Vec<u32>) -> Self {
        Self(Arc::new(Inner {
            ids,
            runs: OnceLock::new(),
        }))
    }

    /// The ids, in the order of the batch.
    pub fn ids(&self) -> &[u32] {
        &self.0.ids
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.0.ids.len()
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.0.ids.is_empty()
    }

    /// Returns the positions grouped by id.
    pub fn runs(&self) -> &Runs {
        self.0.runs.get_or_init(|| Runs::of(&self.0.ids))
    }
}

impl Runs {
    fn of(ids: &[u32]) -> Self {
        let mut positions: Vec<u32> = (0..ids.len() as u32).collect();
        // Stable: equal ids keep the order of the batch.
        positions.sort_by_key(|&position| ids[position as usize]);
        let mut starts: Vec<(u32, u32)> = Vec::new();
        for (place, &position) in positions.iter().enumerate() {
            let id = ids[position as usize];
            if starts.last().is_none_or(|&(last, _)| last != id) {
                starts.push((id, place as u32));
            }
        }
        Self { positions, starts }
    }

    /// Returns each id with its positions.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let ends = self.starts.iter().skip(1).map(|&(_, start)| start);
        let ends = ends.chain([self.positions.len() as u32]);
        self.starts
            .iter()
            .zip(ends)
            .map(|(&(id, start), end)| (id, &self.positions[start as usize..end as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ids_are_adjacent_in_the_order_of_the_batch() {
        let order = TokenOrder::new(vec![7, 2, 7, 0, 2, 7]);
        let runs: Vec<(u32, Vec<u32>)> = order
            .runs()
            .iter()
            .map(|(id, positions)| (id, positions.to_vec()))
            .collect();
        assert_eq!(runs, [(0, vec![3]), (2, vec![1, 4]), (7, vec![0, 2, 5])]);
    }

    #[test]
    fn no_ids_have_no_runs() {
        let order = TokenOrder::new(vec![]);
        assert!(order.is_empty());
        assert_eq!(order.runs().iter().count(), 0);
    }
}
