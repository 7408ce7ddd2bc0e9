//! Held-out samples as reproducible batches.

use packed_layout::SequenceLayout;

use super::{LoaderError, LoaderOptions, MlmItem};
use crate::mask::{CappedLabels, MaskKey, MaskedRow, Masker, label_cap};
use crate::pack::PackedRow;
use crate::shard::{Cut, Samples, Shard};
use std::sync::Arc;

/// Masked evaluation batches over the first samples of a shard, at most `max_tokens` tokens of them.
///
/// Samples are not packed by best fit: they keep their order, each whole and masked by its own key, so that neither the
/// masked tokens nor the loss of a sample depends on the row length or on its neighbors. A row contains the
/// consecutive samples that fit into it.
///
/// # Errors
/// A shard without samples, a first sample longer than a row or than `max_tokens`.
pub fn evaluation_items(
    shard: &Arc<Shard>,
    masker: &Masker,
    options: &LoaderOptions,
    max_tokens: usize,
) -> Result<Vec<MlmItem>, LoaderError> {
    shard.check_length()?;
    let samples = Samples::new([shard.clone()], Cut::WHOLE);
    evaluation_items_of(&samples, masker, options, max_tokens)
}

/// [`evaluation_items`] of any samples.
///
/// # Errors
/// As [`evaluation_items`].
pub fn evaluation_items_of(
    samples: &Samples,
    masker: &Masker,
    options: &LoaderOptions,
    max_tokens: usize,
) -> Result<Vec<MlmItem>, LoaderError> {
    let place = || {
        let shards = samples
            .shards()
            .map(|shard| shard.path().display().to_string());
        shards.collect::<Vec<_>>().join(", ")
    };
    if samples.is_empty() {
        return Err(LoaderError::Empty { place: place() });
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut budget = max_tokens;
    for index in 0..samples.len() {
        samples.check_length(index)?;
        let length = samples.sample_len(index);
        if length > options.row_length {
            return Err(crate::pack::PackError::TooLong {
                index: index as usize,
                length,
                row_length: options.row_length,
            }
            .into());
        }
        if length > budget {
            break;
        }
        budget -= length;
        let fits = |row: &Row| row.ids.len() + length <= options.row_length;
        if !rows.last().is_some_and(fits) {
            rows.push(Row::default());
        }
        let sample = PackedRow {
            cu_seqlens: vec![0, length as u32],
            ids: samples.get(index),
            real_tokens: length,
        };
        let key = MaskKey {
            seed: options.seed,
            epoch: 0,
            row: index,
        };
        if let Some(row) = rows.last_mut() {
            row.push(masker.mask(&sample, key));
        }
    }
    if rows.is_empty() {
        return Err(LoaderError::TooFewTokens {
            place: place(),
            tokens: max_tokens,
        });
    }
    // Every row is known, so the cap grows to the fullest one instead of failing at it.
    let fullest = rows.iter().map(|row| row.labels.len()).max();
    let cap = label_cap(options.row_length, masker.mask_prob()).max(fullest.unwrap_or(0));
    rows.into_iter()
        .enumerate()
        .map(|(number, row)| row.close(number as u64, options, cap))
        .collect()
}

/// A row while samples are added.
struct Row {
    ids: Vec<u32>,
    cu_seqlens: Vec<u32>,
    positions: Vec<u32>,
    labels: Vec<u32>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            cu_seqlens: vec![0],
            positions: Vec::new(),
            labels: Vec::new(),
        }
    }
}

impl Row {
    fn push(&mut self, sample: MaskedRow) {
        let start = self.ids.len() as u32;
        self.ids.extend(sample.input_ids);
        self.cu_seqlens.push(self.ids.len() as u32);
        self.positions
            .extend(sample.positions.iter().map(|position| start + position));
        self.labels.extend(sample.labels);
    }

    fn close(
        mut self,
        number: u64,
        options: &LoaderOptions,
        cap: usize,
    ) -> Result<MlmItem, LoaderError> {
        let real_tokens = self.ids.len();
        if real_tokens < options.row_length {
            self.ids.resize(options.row_length, options.pad_id);
            self.cu_seqlens.push(options.row_length as u32);
        }
        let labelled = self.labels.len();
        let masked = MaskedRow {
            input_ids: self.ids,
            positions: self.positions,
            labels: self.labels,
        };
        let labels: CappedLabels = masked.capped(cap)?;
        Ok(MlmItem {
            input_ids: masked.input_ids,
            layout: SequenceLayout::from_cu_seqlens(self.cu_seqlens)?,
            labels,
            real_tokens,
            labelled,
            step_labelled: labelled,
            row: number,
            dropout: None,
            batch: None,
        })
    }
}
