//! The order in which the micro-batches of a step are summed.
//!
//! A tree over `n` leaves is a leaf where `n` is 1. Otherwise its left subtree holds the largest power of two below `n`, its right subtree the
//! other leaves:
//!
//! ```text
//! 7 leaves:          +
//!              ┌─────┴─────┐
//!              +           +
//!           ┌──┴──┐     ┌──┴──┐
//!           +     +     +     6
//!          0 1   2 3   4 5
//! ```
//!
//! A rank holds a contiguous range of the leaves, hence some subtrees completely: the [`subtrees`]. The rank sums these subtrees without the
//! other ranks. With 1, 2, 4 or 8 ranks and a power of two of micro-batches a rank holds one subtree.

use std::ops::Range;

/// The share of `rank` of `size` in `count` items: contiguous ranges that differ in length by at most one.
pub fn range_of_rank(count: usize, rank: usize, size: usize) -> Range<usize> {
    count * rank / size..count * (rank + 1) / size
}

/// Returns the end of the left subtree of the tree over `range`.
fn middle(range: &Range<usize>) -> usize {
    range.start + range.len().next_power_of_two() / 2
}

/// The largest subtrees over `leaves` leaves that are within `own`, in order. Empty where `own` is empty.
pub fn subtrees(leaves: usize, own: &Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    collect(0..leaves, own, &mut found);
    found
}

fn collect(node: Range<usize>, own: &Range<usize>, found: &mut Vec<Range<usize>>) {
    if node.is_empty() || node.end <= own.start || own.end <= node.start {
        return;
    }
    if own.start <= node.start && node.end <= own.end {
        found.push(node);
        return;
    }
    let middle = middle(&node);
    collect(node.start..middle, own, found);
    collect(middle..node.end, own, found);
}

/// Sums a tree of which some subtrees are known: `add(left, right)` adds `right` to `left`. `None` for no leaves.
///
/// # Panics
/// If the known subtrees are not [`subtrees`] of ranges that cover all leaves.
pub fn sum<T>(
    leaves: usize,
    known: Vec<(Range<usize>, T)>,
    mut add: impl FnMut(&mut T, T),
) -> Option<T> {
    if leaves == 0 {
        return None;
    }
    let mut known = known.into_iter().peekable();
    let sum = fold(0..leaves, &mut known, &mut add);
    assert!(known.next().is_none(), "subtrees of another tree");
    Some(sum)
}

fn fold<T>(
    node: Range<usize>,
    known: &mut std::iter::Peekable<impl Iterator<Item = (Range<usize>, T)>>,
    add: &mut impl FnMut(&mut T, T),
) -> T {
    if let Some((_, value)) = known.next_if(|(range, _)| *range == node) {
        return value;
    }
    assert!(
        node.len() > 1,
        "micro-batch {} was not summed by any rank",
        node.start
    );
    let middle = middle(&node);
    let mut left = fold(node.start..middle, known, add);
    let right = fold(middle..node.end, known, add);
    add(&mut left, right);
    left
}

/// Sums values that arrive one after the other, in the order of the tree, keeping as few partial sums as possible: at most one for each
/// power of two.
#[derive(Debug)]
pub struct Accumulator<T> {
    /// The subtrees that this accumulator sums, those not begun in reverse order.
    left: Vec<Range<usize>>,
    /// Partial sums of the subtree that is being summed, each with the leaves it covers.
    stack: Vec<(Range<usize>, T)>,
    done: Vec<T>,
    next: usize,
}

impl<T> Accumulator<T> {
    /// For the leaves `own` of a tree over `leaves` leaves.
    pub fn new(leaves: usize, own: &Range<usize>) -> Self {
        let mut left = subtrees(leaves, own);
        left.reverse();
        Self {
            left,
            stack: Vec::new(),
            done: Vec::new(),
            next: own.start,
        }
    }

    /// Adds the value of the next leaf; `add(left, right)` is their sum.
    ///
    /// # Panics
    /// After the last leaf.
    pub fn push(&mut self, value: T, mut add: impl FnMut(T, T) -> T) {
        let part = self
            .left
            .last()
            .expect("no more leaves than announced")
            .clone();
        let mut top = (self.next..self.next + 1, value);
        self.next += 1;
        // The parent of a node is summed as soon as its right subtree is complete.
        while top.0 != part
            && let Some((left, _)) = self.stack.last()
        {
            let parent = left.start..top.0.end;
            if !is_node(&part, &parent) {
                break;
            }
            let (_, left) = self.stack.pop().expect("it was just looked at");
            top = (parent, add(left, top.1));
        }
        if top.0 == part {
            self.done.push(top.1);
            self.left.pop();
        } else {
            self.stack.push(top);
        }
    }

    /// The sums of [`subtrees`].
    ///
    /// # Panics
    /// If leaves are missing.
    pub fn finish(self) -> Vec<T> {
        assert!(self.left.is_empty(), "leaf {} is missing", self.next);
        self.done
    }
}

/// Returns whether `node` is a node of the tree over `root`.
fn is_node(root: &Range<usize>, node: &Range<usize>) -> bool {
    if root == node {
        return true;
    }
    if root.len() <= 1 {
        return false;
    }
    let middle = middle(root);
    if node.end <= middle {
        is_node(&(root.start..middle), node)
    } else if node.start >= middle {
        is_node(&(middle..root.end), node)
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text, from its definition.
    fn text(range: Range<usize>) -> String {
        if range.len() == 1 {
            return range.start.to_string();
        }
        let mut left = 1;
        while 2 * left < range.len() {
            left *= 2;
        }
        let middle = range.start + left;
        format!(
            "({}+{})",
            text(range.start..middle),
            text(middle..range.end)
        )
    }

    #[test]
    fn the_left_part_is_a_power_of_two() {
        assert_eq!(text(0..7), "(((0+1)+(2+3))+((4+5)+6))");
        let known = (0..7).map(|i| (i..i + 1, i.to_string())).collect();
        let sum = sum(7, known, |a: &mut String, b| *a = format!("({a}+{b})"));
        assert_eq!(sum.as_deref(), Some("(((0+1)+(2+3))+((4+5)+6))"));
    }

    #[test]
    fn any_number_of_ranks_sums_the_same_tree() {
        for leaves in 1..=33 {
            for size in 1..=9 {
                let mut known = Vec::new();
                for rank in 0..size {
                    let own = range_of_rank(leaves, rank, size);
                    let mut accumulator = Accumulator::new(leaves, &own);
                    for leaf in own.clone() {
                        accumulator.push(leaf.to_string(), |a, b| format!("({a}+{b})"));
                        assert!(accumulator.stack.len() <= 6, "{:?}", accumulator.stack);
                    }
                    known.extend(subtrees(leaves, &own).into_iter().zip(accumulator.finish()));
                }
                let sum = sum(leaves, known, |a: &mut String, b| *a = format!("({a}+{b})"));
                assert_eq!(sum, Some(text(0..leaves)), "{leaves} leaves, {size} ranks");
            }
        }
    }

    #[test]
    fn powers_of_two_need_one_part_a_rank() {
        for (leaves, size) in [(8, 1), (8, 2), (8, 4), (8, 8), (16, 4), (64, 8)] {
            for rank in 0..size {
                assert_eq!(
                    subtrees(leaves, &range_of_rank(leaves, rank, size)).len(),
                    1
                );
            }
        }
        assert!(
            subtrees(2, &range_of_rank(2, 0, 3)).is_empty(),
            "a rank without a micro-batch"
        );
    }
}
