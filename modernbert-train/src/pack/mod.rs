//! Packing sequences of many lengths into rows of one length.
//!
//! Each sequence goes into the row whose free space it fills best (greedy best fit over a buffer of sequences), so that
//! hardly any padding is left. The rules, and the order of what comes out, are those of ModernBERT's own training code
//! (`GreedyBestFitSequencePacker` in <https://github.com/AnswerDotAI/ModernBERT>, `src/sequence_packer.py`); a golden
//! case of its tests is kept here.

mod error;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use error::PackError;

/// How rows are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// Rows in each batch.
    pub rows: usize,
    /// Tokens in each row.
    pub row_length: usize,
    /// Sequences taken from the source at a time.
    pub source_batch: usize,
    /// Sequences held back to choose from; more than `source_batch`. Five times `source_batch` packs well.
    pub buffer: usize,
    /// The id that fills the end of a row.
    pub pad_id: u32,
    /// Emit what is left at the end of the data too, although some rows may be missing or far from full. For evaluation,
    /// where every sequence counts; in training the left-over would only change the batch size.
    pub flush: bool,
}

impl PackOptions {
    /// Options for `rows` rows of `row_length` tokens: `source_batch` sequences at a time and a buffer of five times that.
    pub fn new(rows: usize, row_length: usize, source_batch: usize, pad_id: u32) -> Self {
        Self {
            rows,
            row_length,
            source_batch,
            buffer: 5 * source_batch,
            pad_id,
            flush: false,
        }
    }

    /// The same, emitting the left-over at the end as well.
    pub fn with_flush(self) -> Self {
        Self {
            flush: true,
            ..self
        }
    }
}

/// One row: sequences one behind the other, then padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRow {
    /// Exactly `row_length` ids.
    pub ids: Vec<u32>,
    /// Where each sequence begins, and the row length at the end. Padding, if any, is the last sequence.
    pub cu_seqlens: Vec<u32>,
    /// Tokens that are not padding.
    pub real_tokens: usize,
}

/// How well the rows emitted so far are filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Rows emitted.
    pub rows: usize,
    /// Sequences in them.
    pub sequences: usize,
    /// Tokens in them, padding included.
    pub tokens: usize,
    /// Tokens in them that are not padding.
    pub real_tokens: usize,
}

impl PackStats {
    /// The share of tokens that are not padding, from 0 to 1; 1 before the first row.
    pub fn efficiency(&self) -> f64 {
        if self.tokens == 0 {
            1.0
        } else {
            self.real_tokens as f64 / self.tokens as f64
        }
    }
}

/// An iterator over batches of packed rows. Deterministic; each sequence comes out once, or is among
/// [`Packer::into_left_over`] at the end.
#[derive(Debug)]
pub struct Packer<I> {
    options: PackOptions,
    source: I,
    buffer: VecDeque<Vec<u32>>,
    taken: usize,
    stats: PackStats,
    left_over: Vec<Vec<u32>>,
    done: bool,
}

impl<I: Iterator<Item = Vec<u32>>> Packer<I> {
    /// Packs the sequences of `source`; empty ones are dropped.
    pub fn new(
        options: PackOptions,
        source: impl IntoIterator<IntoIter = I>,
    ) -> Result<Self, PackError> {
        let PackOptions {
            rows,
            row_length,
            source_batch,
            buffer,
            ..
        } = options;
        for (name, value) in [
            ("rows", rows),
            ("row_length", row_length),
            ("source_batch", source_batch),
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
            source: source.into_iter(),
            buffer: VecDeque::new(),
            taken: 0,
            stats: PackStats::default(),
            left_over: Vec::new(),
            done: false,
        })
    }

    /// How well the rows emitted so far are filled.
    pub fn stats(&self) -> PackStats {
        self.stats
    }

    /// The sequences that made no full batch, once the iterator has ended.
    pub fn into_left_over(self) -> Vec<Vec<u32>> {
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
                if sequence.is_empty() {
                    continue;
                }
                let (index, length) = (self.taken, sequence.len());
                if length > row_length {
                    return Err(PackError::TooLong {
                        index,
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

    fn batch(&mut self) -> Result<Option<Vec<PackedRow>>, PackError> {
        let PackOptions {
            rows,
            row_length,
            buffer,
            ..
        } = self.options;
        let mut filling: Vec<Filling> = vec![Filling::default(); rows];
        let mut skipped: Vec<Vec<u32>> = Vec::new();
        loop {
            if self.buffer.is_empty() && self.refill(buffer.saturating_sub(skipped.len()))? == 0 {
                break;
            }
            let Some(sequence) = self.buffer.pop_front() else {
                break;
            };
            // The first of the rows with the least space that is enough.
            let best = filling
                .iter_mut()
                .filter(|row| row_length - row.tokens >= sequence.len())
                .min_by_key(|row| row_length - row.tokens);
            match best {
                Some(row) => row.push(sequence),
                None => skipped.push(sequence),
            }
        }
        // One by one to the front, which reverses them: the published order.
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
        Ok(Some(
            filling.into_iter().map(|row| self.close(row)).collect(),
        ))
    }

    fn close(&mut self, row: Filling) -> PackedRow {
        let PackOptions {
            row_length, pad_id, ..
        } = self.options;
        self.stats.rows += 1;
        self.stats.sequences += row.sequences.len();
        self.stats.tokens += row_length;
        self.stats.real_tokens += row.tokens;
        let mut ids = Vec::with_capacity(row_length);
        let mut cu_seqlens = vec![0];
        for sequence in row.sequences {
            ids.extend_from_slice(&sequence);
            cu_seqlens.push(ids.len() as u32);
        }
        if ids.len() < row_length {
            ids.resize(row_length, pad_id);
            cu_seqlens.push(row_length as u32);
        }
        PackedRow {
            ids,
            cu_seqlens,
            real_tokens: row.tokens,
        }
    }
}

impl<I: Iterator<Item = Vec<u32>>> Iterator for Packer<I> {
    type Item = Result<Vec<PackedRow>, PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.batch().transpose();
        self.done = !matches!(batch, Some(Ok(_)));
        batch
    }
}

/// A row while it is filled.
#[derive(Debug, Clone, Default)]
struct Filling {
    sequences: Vec<Vec<u32>>,
    tokens: usize,
}

impl Filling {
    fn push(&mut self, sequence: Vec<u32>) {
        self.tokens += sequence.len();
        self.sequences.push(sequence);
    }
}
