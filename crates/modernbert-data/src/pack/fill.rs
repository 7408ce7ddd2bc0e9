//! Greedy best fit over anything that has a length.

use std::collections::VecDeque;

use super::{PackError, PackOptions, PackStats};

/// Length of a sequence.
pub trait Length {
    /// Its tokens.
    fn tokens(&self) -> usize;
}

impl Length for Vec<u32> {
    fn tokens(&self) -> usize {
        self.len()
    }
}

/// A row while it is filled, and when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledRow<T> {
    /// Its sequences, in order.
    pub sequences: Vec<T>,
    /// Tokens of all of them.
    pub tokens: usize,
}

/// An iterator over batches of rows, each a list of sequences that fit.
///
/// The batches are a pure function of the source and of the buffered sequences: a packer made from [`BestFit::held`] and the rest of the
/// source continues an interrupted one exactly.
#[derive(Debug)]
pub struct BestFit<I, T> {
    options: PackOptions,
    source: I,
    buffer: VecDeque<T>,
    taken: usize,
    stats: PackStats,
    left_over: Vec<T>,
    done: bool,
    /// A longer sequence counts as one of this length: the caller cuts it.
    longest: usize,
}

impl<T: Length, I: Iterator<Item = T>> BestFit<I, T> {
    /// Packs the sequences of `source`, those that an earlier packer `held` first; empty ones are dropped.
    ///
    /// # Errors
    /// Sizes of 0, and a buffer that could never be filled.
    pub fn new(options: PackOptions, source: I, held: Vec<T>) -> Result<Self, PackError> {
        let PackOptions {
            rows,
            row_length,
            source_batch,
            buffer,
            sequences,
            ..
        } = options;
        for (name, value) in [
            ("rows", rows),
            ("row_length", row_length),
            ("source_batch", source_batch),
            ("sequences", sequences.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(PackError::Zero { name });
            }
        }
        if buffer <= source_batch {
            return Err(PackError::Buffer {
                buffer,
                source_batch,
            });
        }
        Ok(Self {
            options,
            source,
            buffer: held.into(),
            taken: 0,
            stats: PackStats::default(),
            left_over: Vec::new(),
            done: false,
            longest: usize::MAX,
        })
    }

    /// Settings of the packer.
    pub fn options(&self) -> &PackOptions {
        &self.options
    }

    /// Source of sequences, without those taken so far.
    pub fn source(&self) -> &I {
        &self.source
    }

    /// As [`Self::source`].
    pub fn source_mut(&mut self) -> &mut I {
        &mut self.source
    }

    /// Sets the length to which the caller cuts the sequences of the batches that follow; a longer one takes this many tokens of a row.
    pub fn set_longest(&mut self, longest: usize) {
        self.longest = longest;
    }

    /// Sequences taken from the source that are in no row yet, in the order in which they will be tried.
    pub fn held(&self) -> impl Iterator<Item = &T> {
        self.buffer.iter()
    }

    /// Fill rate of the rows emitted so far.
    pub fn stats(&self) -> PackStats {
        self.stats
    }

    /// The sequences that made no full batch, once the iterator has ended.
    pub fn into_left_over(self) -> Vec<T> {
        self.left_over.into_iter().chain(self.buffer).collect()
    }

    /// Takes source batches until the buffer is full or `limit` sequences were added; how many were.
    fn refill(&mut self, limit: usize) -> Result<usize, PackError> {
        let PackOptions {
            row_length,
            source_batch,
            buffer,
            ..
        } = self.options;
        let mut added = 0;
        while buffer - self.buffer.len().min(buffer) > source_batch && added + source_batch <= limit
        {
            let mut ended = true;
            for sequence in self.source.by_ref().take(source_batch) {
                ended = false;
                let length = sequence.tokens().min(self.longest);
                if length == 0 {
                    continue;
                }
                if length > row_length {
                    return Err(PackError::TooLong {
                        index: self.taken,
                        length,
                        row_length,
                    });
                }
                self.taken += 1;
                added += 1;
                self.buffer.push_back(sequence);
            }
            if ended {
                break;
            }
        }
        Ok(added)
    }

    fn batch(&mut self) -> Result<Option<Vec<FilledRow<T>>>, PackError> {
        let PackOptions {
            rows,
            row_length,
            buffer,
            sequences,
            ..
        } = self.options;
        let most = sequences.unwrap_or(usize::MAX);
        let empty = || FilledRow {
            sequences: Vec::new(),
            tokens: 0,
        };
        let mut filling: Vec<FilledRow<T>> = (0..rows).map(|_| empty()).collect();
        let mut skipped: Vec<T> = Vec::new();
        loop {
            if self.buffer.is_empty() && self.refill(buffer.saturating_sub(skipped.len()))? == 0 {
                break;
            }
            let Some(sequence) = self.buffer.pop_front() else {
                break;
            };
            let length = sequence.tokens().min(self.longest);
            // The first of the rows with the least space that is enough.
            let best = filling
                .iter_mut()
                .filter(|row| row.sequences.len() < most)
                .filter(|row| row_length - row.tokens >= length)
                .min_by_key(|row| row_length - row.tokens);
            match best {
                Some(row) => {
                    row.tokens += length;
                    row.sequences.push(sequence);
                }
                None => skipped.push(sequence),
            }
        }
        // Each is inserted at the front, which reverses them, as in the published code.
        for sequence in skipped {
            self.buffer.push_front(sequence);
        }
        if filling.iter().any(|row| row.sequences.is_empty()) {
            // Rows stay empty only when the source has ended.
            if !self.options.flush {
                self.left_over = filling.into_iter().flat_map(|row| row.sequences).collect();
                return Ok(None);
            }
            filling.retain(|row| !row.sequences.is_empty());
        }
        if filling.is_empty() {
            return Ok(None);
        }
        for row in &filling {
            self.stats.rows += 1;
            self.stats.sequences += row.sequences.len();
            self.stats.tokens += row_length;
            self.stats.real_tokens += row.tokens;
        }
        Ok(Some(filling))
    }
}

impl<T: Length, I: Iterator<Item = T>> Iterator for BestFit<I, T> {
    type Item = Result<Vec<FilledRow<T>>, PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.batch().transpose();
        self.done = !matches!(batch, Some(Ok(_)));
        batch
    }
}
