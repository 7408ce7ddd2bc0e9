//! Offsets of a vector's pieces in one tensor.

use burn::tensor::Tensor;
use std::ops::Range;

/// A vector as one flat tensor. Each of its pieces begins at a multiple of `alignment` elements, so that Burn's `slice` is a view.
pub(crate) struct FlatLayout<'a> {
    pub(crate) lengths: &'a [usize],
    /// First element of each piece.
    pub(crate) starts: Vec<usize>,
    /// Number of elements, those between the pieces included: a multiple of `alignment`.
    pub(crate) total: usize,
    alignment: usize,
}

impl<'a> FlatLayout<'a> {
    /// Of pieces of these lengths, in order.
    pub(crate) fn new(lengths: &'a [usize], alignment: usize) -> Self {
        let mut total = 0;
        let starts = lengths.iter().map(|length| {
            let start = total;
            total += length.next_multiple_of(alignment);
            start
        });
        let starts = starts.collect();
        Self {
            lengths,
            starts,
            total: total.max(alignment),
            alignment,
        }
    }

    /// The elements that `rank` of `size` sums: contiguous, in the order of the ranks, together all elements.
    pub(crate) fn range_of_rank(&self, rank: usize, size: usize) -> Range<usize> {
        let units = self.total / self.alignment;
        let at = |rank| units * rank / size * self.alignment;
        at(rank)..at(rank + 1)
    }

    /// The pieces of a vector `[total]`. Where both ends of a piece are aligned it shares the vector's memory.
    pub(crate) fn pieces(&self, vector: &Tensor<1>) -> Vec<Tensor<1>> {
        let places = self.starts.iter().zip(self.lengths);
        places
            .map(|(&start, &length)| vector.clone().slice(start..start + length))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::FlatLayout;
    use burn::tensor::Tensor;

    #[test]
    fn shares_of_all_ranks_are_all_elements_once() {
        let layout = FlatLayout::new(&[3, 0, 130, 128, 1], 128);
        assert_eq!(layout.starts, [0, 128, 128, 384, 512]);
        assert_eq!(layout.total, 640);
        for size in 1..8 {
            let shares: Vec<_> = (0..size)
                .map(|rank| layout.range_of_rank(rank, size))
                .collect();
            assert_eq!(shares[0].start, 0);
            assert_eq!(shares[size - 1].end, layout.total);
            assert!(shares.windows(2).all(|both| both[0].end == both[1].start));
            assert!(shares.iter().all(|share| share.start % 128 == 0));
        }
    }

    #[test]
    fn pieces_are_at_their_places() {
        let layout = FlatLayout::new(&[2, 1, 3], 4);
        let vector = Tensor::<1>::from_floats(
            [0., 1., -1., -1., 2., -1., -1., -1., 3., 4., 5., -1.],
            &Default::default(),
        );
        let pieces = layout.pieces(&vector).into_iter();
        let pieces: Vec<Vec<f32>> = pieces
            .map(|piece| piece.try_into_vec_as().unwrap_or_default())
            .collect();
        assert_eq!(pieces, [vec![0., 1.], vec![2.], vec![3., 4., 5.]]);
    }
}
