//! Packing sequences of many lengths into rows of one length.
//!
//! Each sequence goes into the row whose free space it fills best (greedy best fit over a buffer of sequences), so that
//! little padding is left. The rules, and the order of the rows, are those of ModernBERT's own training code
//! (`GreedyBestFitSequencePacker` in <https://github.com/AnswerDotAI/ModernBERT>, `src/sequence_packer.py`); a golden
//! case of its tests is kept here.

mod error;
mod fill;

#[cfg(test)]
mod tests;

pub use error::PackError;
pub use fill::{BestFit, FilledRow, Length};

/// Settings of the packer.
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
    /// Emit the remaining sequences at the end of the data too, although the last batch may lack rows or have rows of mostly padding. For evaluation,
    /// where every sequence counts; in training these rows would only change the batch size.
    pub flush: bool,
    /// Maximum number of sequences in a row, even if more would fit; `None` for as many as fit.
    pub sequences: Option<usize>,
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
            sequences: None,
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

/// One row: consecutive sequences, then padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRow {
    /// Exactly `row_length` ids; fewer where [`PackOptions::sequences`] is set.
    pub ids: Vec<u32>,
    /// Start of each sequence, and the row length at the end. Padding, if any, is the last sequence.
    pub cu_seqlens: Vec<u32>,
    /// Tokens that are not padding.
    pub real_tokens: usize,
}

/// Fill rate of the rows emitted so far.
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
    rows: BestFit<I, Vec<u32>>,
}

impl<I: Iterator<Item = Vec<u32>>> Packer<I> {
    /// Packs the sequences of `source`; empty ones are dropped.
    ///
    /// # Errors
    /// Sizes of 0, and a buffer that could never be filled.
    pub fn new(
        options: PackOptions,
        source: impl IntoIterator<IntoIter = I>,
    ) -> Result<Self, PackError> {
        let rows = BestFit::new(options, source.into_iter(), Vec::new())?;
        Ok(Self { rows })
    }

    /// Fill rate of the rows emitted so far.
    pub fn stats(&self) -> PackStats {
        self.rows.stats()
    }

    /// The sequences that made no full batch, once the iterator has ended.
    pub fn into_left_over(self) -> Vec<Vec<u32>> {
        self.rows.into_left_over()
    }
}

impl<I: Iterator<Item = Vec<u32>>> Iterator for Packer<I> {
    type Item = Result<Vec<PackedRow>, PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.next()?;
        let options = self.rows.options();
        Some(rows.map(|rows| {
            rows.into_iter()
                .map(|row| PackedRow::new(row.sequences, options))
                .collect()
        }))
    }
}

impl PackedRow {
    /// Consecutive sequences, which must fit, and padding after them; none where [`PackOptions::sequences`] bounds their
    /// number, since most of such a row would be padding.
    pub(crate) fn new(sequences: Vec<Vec<u32>>, options: &PackOptions) -> Self {
        let PackOptions {
            row_length, pad_id, ..
        } = *options;
        let mut ids = Vec::with_capacity(row_length);
        let mut cu_seqlens = vec![0];
        for sequence in sequences {
            ids.extend_from_slice(&sequence);
            cu_seqlens.push(ids.len() as u32);
        }
        let real_tokens = ids.len();
        if real_tokens < row_length && options.sequences.is_none() {
            ids.resize(row_length, pad_id);
            cu_seqlens.push(row_length as u32);
        }
        Self {
            ids,
            cu_seqlens,
            real_tokens,
        }
    }
}
