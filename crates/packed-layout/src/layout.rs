//! Boundaries of the sequences in a packed batch, on the host.

use std::ops::Range;
use std::sync::Arc;

/// Boundaries of the sequences in a packed batch; cheap to clone.
///
/// A host copy is needed because kernels and grid sizes are chosen from the lengths, and reading them back from a device would stall
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceLayout {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    cu_seqlens: Vec<u32>,
    max_seqlen: usize,
    bucket: Option<Bucket>,
}

/// A bucket of batches that share one captured graph: the kernels are sized for the bucket and read the boundaries from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Number of the bucket, unique in the process.
    pub id: u64,
    /// Sequences that a batch of the bucket has at most.
    pub sequences: usize,
}

/// Errors of a malformed list of boundaries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The list is empty, without even the leading zero.
    #[error("cu_seqlens is empty; it must start with 0 and end with the number of tokens")]
    Empty,
    /// The first boundary is not zero.
    #[error("cu_seqlens starts with {0}; it must start with 0")]
    Start(u32),
    /// A boundary is less than the one before it.
    #[error(
        "cu_seqlens[{index}] is {value}, less than {previous} before it; boundaries must not decrease"
    )]
    Decreasing {
        /// Index in the list.
        index: usize,
        /// The boundary at that index.
        value: u32,
        /// The boundary before it.
        previous: u32,
    },
    /// More tokens than 32-bit boundaries can count.
    #[error("the batch holds {0} tokens; a packed batch is limited to {max} tokens", max = u32::MAX)]
    TooLong(usize),
}

impl SequenceLayout {
    /// Returns the layout of consecutive sequences with these lengths, in tokens. Empty sequences are allowed.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] if the sum of the lengths exceeds `u32::MAX`.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Result<Self, LayoutError> {
        let mut cu_seqlens = vec![0u32];
        let mut total = 0usize;
        for length in lengths {
            total += length;
            cu_seqlens.push(u32::try_from(total).map_err(|_| LayoutError::TooLong(total))?);
        }
        Self::from_cu_seqlens(cu_seqlens)
    }

    /// Returns the layout with these cumulative lengths: `[0, len_0, len_0 + len_1, …, total]`.
    ///
    /// # Errors
    /// If the list is empty, does not start with 0, or decreases.
    pub fn from_cu_seqlens(cu_seqlens: Vec<u32>) -> Result<Self, LayoutError> {
        match cu_seqlens.first() {
            None => return Err(LayoutError::Empty),
            Some(&first) if first != 0 => return Err(LayoutError::Start(first)),
            Some(_) => {}
        }
        let mut max_seqlen = 0;
        for (i, pair) in cu_seqlens.windows(2).enumerate() {
            if pair[1] < pair[0] {
                return Err(LayoutError::Decreasing {
                    index: i + 1,
                    value: pair[1],
                    previous: pair[0],
                });
            }
            max_seqlen = max_seqlen.max((pair[1] - pair[0]) as usize);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                cu_seqlens,
                max_seqlen,
                bucket: None,
            }),
        })
    }

    /// Returns the layout of a bucket: `tokens` tokens in sequences of at most `longest`, for which kernels reserve room for any batch of
    /// at most this many tokens and `bucket.sequences` sequences of at most `longest` tokens.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] if `tokens` exceeds `u32::MAX`.
    pub fn of_bucket(tokens: usize, longest: usize, bucket: Bucket) -> Result<Self, LayoutError> {
        let longest = longest.clamp(1, tokens.max(1));
        let whole = std::iter::repeat_n(longest, tokens / longest);
        let mut layout = Self::from_lengths(whole.chain([tokens % longest]))?;
        let inner = Arc::make_mut(&mut layout.inner);
        inner.max_seqlen = longest;
        inner.bucket = Some(bucket);
        Ok(layout)
    }

    /// Returns the bucket of a layout made by [`Self::of_bucket`].
    pub fn bucket(&self) -> Option<Bucket> {
        self.inner.bucket
    }

    /// Returns the cumulative lengths, `[sequences + 1]`.
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.inner.cu_seqlens
    }

    /// Returns the length of the longest sequence, in tokens.
    pub fn max_seqlen(&self) -> usize {
        self.inner.max_seqlen
    }

    /// Returns the number of sequences, including empty ones.
    pub fn num_sequences(&self) -> usize {
        self.inner.cu_seqlens.len() - 1
    }

    /// Returns the number of tokens of all sequences.
    pub fn total_tokens(&self) -> usize {
        self.inner
            .cu_seqlens
            .last()
            .map_or(0, |&total| total as usize)
    }

    /// Returns the rows of each sequence in the packed batch.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.inner
            .cu_seqlens
            .windows(2)
            .map(|pair| pair[0] as usize..pair[1] as usize)
    }

    /// Returns the length of each sequence, in tokens.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges().map(|range| range.len())
    }

    /// Returns the position of each token in its sequence, `[total_tokens]`.
    pub fn positions(&self) -> Vec<i32> {
        self.lengths().flat_map(|length| 0..length as i32).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_boundaries_give_the_same_layout() {
        let layout = SequenceLayout::from_lengths([3, 0, 2]).unwrap();
        assert_eq!(layout.cu_seqlens(), [0, 3, 3, 5]);
        assert_eq!(layout.max_seqlen(), 3);
        assert_eq!(layout.num_sequences(), 3);
        assert_eq!(layout.total_tokens(), 5);
        assert_eq!(layout.positions(), [0, 1, 2, 0, 1]);
        assert_eq!(
            layout,
            SequenceLayout::from_cu_seqlens(vec![0, 3, 3, 5]).unwrap()
        );
    }

    #[test]
    fn layout_may_be_without_sequences() {
        let layout = SequenceLayout::from_lengths([]).unwrap();
        assert_eq!(layout.total_tokens(), 0);
        assert_eq!(layout.num_sequences(), 0);
    }

    #[test]
    fn a_bucket_has_its_own_sizes_and_identity() {
        let bucket = Bucket {
            id: 3,
            sequences: 9,
        };
        let layout = SequenceLayout::of_bucket(100, 40, bucket).unwrap();
        assert_eq!(layout.cu_seqlens(), [0, 40, 80, 100]);
        assert_eq!((layout.max_seqlen(), layout.bucket()), (40, Some(bucket)));
        let plain = SequenceLayout::from_lengths([40, 40, 20]).unwrap();
        assert_eq!(plain.bucket(), None);
        assert_ne!(
            plain, layout,
            "a cached table of one must not serve the other"
        );
    }

    #[test]
    fn refuses_malformed_boundaries() {
        assert_eq!(
            SequenceLayout::from_cu_seqlens(vec![]),
            Err(LayoutError::Empty)
        );
        assert_eq!(
            SequenceLayout::from_cu_seqlens(vec![1, 2]),
            Err(LayoutError::Start(1))
        );
        assert!(matches!(
            SequenceLayout::from_cu_seqlens(vec![0, 5, 4]),
            Err(LayoutError::Decreasing {
                index: 2,
                value: 4,
                previous: 5
            })
        ));
        assert!(matches!(
            SequenceLayout::from_lengths([u32::MAX as usize, 1]),
            Err(LayoutError::TooLong(_))
        ));
    }
}
