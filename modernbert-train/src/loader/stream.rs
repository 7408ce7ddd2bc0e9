//! The order in which samples are met, packed and masked: a pure function of the shard and the settings.

use modernbert::batch::{LayoutError, SequenceLayout};
use std::sync::Arc;

use super::MlmItem;
use crate::mask::{MaskError, MaskKey, Masker, label_cap};
use crate::order::epoch_order;
use crate::pack::{PackError, PackOptions, PackedRow, Packer};
use crate::shard::Shard;

/// Why no batch could be made.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The shard is empty.
    #[error("{place} holds no samples; give the corpus more text")]
    Empty {
        /// The shard.
        place: String,
    },
    /// More samples than the shuffle can order.
    #[error("{place} holds {samples} samples; a shard is limited to {max}", max = u32::MAX)]
    TooMany {
        /// The shard.
        place: String,
        /// Samples in it.
        samples: usize,
    },
    /// A sample doesn't fit, or the packer's settings don't.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Masking failed.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A row's boundaries contradict each other.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The packer ended, which an endless stream must not.
    #[error("the packer ended before the run did; this is a defect of the program")]
    Ended,
}

/// Settings of a stream.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Tokens of a packed row.
    pub row_length: usize,
    /// Rows of a step.
    pub micro_batches: usize,
    /// Padding id.
    pub pad_id: u32,
    /// Seed of order and masks.
    pub seed: u64,
}

/// Endless steps of masked rows from one shard; each iteration starts from the beginning.
#[derive(Clone)]
pub struct TrainStream {
    shard: Arc<Shard>,
    masker: Masker,
    options: LoaderOptions,
}

/// A stream under way.
pub struct TrainSteps {
    masker: Masker,
    options: LoaderOptions,
    packer: Packer<Epochs>,
    row: u64,
}

impl TrainStream {
    /// A stream from the beginning.
    ///
    /// # Errors
    /// A shard without samples, or with more than can be shuffled.
    pub fn new(
        shard: Arc<Shard>,
        masker: Masker,
        options: LoaderOptions,
    ) -> Result<Self, LoaderError> {
        let place = shard.path().display().to_string();
        let samples = shard.len();
        if samples == 0 {
            return Err(LoaderError::Empty { place });
        }
        if u32::try_from(samples).is_err() {
            return Err(LoaderError::TooMany { place, samples });
        }
        Ok(Self {
            shard,
            masker,
            options,
        })
    }

    /// The steps from the first one on.
    ///
    /// # Errors
    /// Settings the packer can't work with.
    pub fn steps(&self) -> Result<TrainSteps, LoaderError> {
        let options = &self.options;
        let per_step = options.row_length * options.micro_batches;
        let mean = (self.shard.tokens() / self.shard.len()).max(1);
        let source_batch = (per_step / mean).max(1);
        let pack = PackOptions::new(
            options.micro_batches,
            options.row_length,
            source_batch,
            options.pad_id,
        );
        let epochs = Epochs {
            shard: self.shard.clone(),
            seed: options.seed,
            epoch: 0,
            order: Vec::new().into_iter(),
        };
        Ok(TrainSteps {
            masker: self.masker.clone(),
            options: options.clone(),
            packer: Packer::new(pack, epochs)?,
            row: 0,
        })
    }
}

impl TrainSteps {
    /// Rows of the next optimizer step.
    ///
    /// # Errors
    /// A sample longer than a row, or more labels than a row's cap allows.
    pub fn next_step(&mut self) -> Result<Vec<MlmItem>, LoaderError> {
        let rows = self.packer.next().ok_or(LoaderError::Ended)??;
        let cap = label_cap(self.options.row_length, self.masker.mask_prob());
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let key = MaskKey {
                seed: self.options.seed,
                epoch: 0,
                row: self.row,
            };
            self.row += 1;
            items.push(item(&row, &self.masker, key, cap)?);
        }
        let total = items.iter().map(|item| item.labelled).sum();
        for item in &mut items {
            item.step_labelled = total;
        }
        Ok(items)
    }
}

/// The samples of a shard, shuffled anew each epoch, without end.
struct Epochs {
    shard: Arc<Shard>,
    seed: u64,
    epoch: u64,
    order: std::vec::IntoIter<u32>,
}

impl Iterator for Epochs {
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Vec<u32>> {
        loop {
            if let Some(i) = self.order.next() {
                return Some(self.shard.get(i as usize));
            }
            let samples = u32::try_from(self.shard.len()).ok().filter(|&n| n > 0)?;
            self.order = epoch_order(samples, self.seed, self.epoch).into_iter();
            self.epoch += 1;
        }
    }
}

/// Packed and masked evaluation batches over the first samples of a shard, at most `max_tokens` tokens of them.
///
/// Every sample that fits comes once; the last row is filled up with padding.
///
/// # Errors
/// As [`TrainSteps::next_step`].
pub fn evaluation_items(
    shard: &Shard,
    masker: &Masker,
    options: &LoaderOptions,
    max_tokens: usize,
) -> Result<Vec<MlmItem>, LoaderError> {
    if shard.is_empty() {
        return Err(LoaderError::Empty {
            place: shard.path().display().to_string(),
        });
    }
    let mut budget = max_tokens;
    let samples = shard.iter().take_while(|sample| {
        let fits = budget >= sample.len();
        budget = budget.saturating_sub(sample.len());
        fits
    });
    let samples: Vec<Vec<u32>> = samples.collect();
    let pack = PackOptions::new(1, options.row_length, 8, options.pad_id).with_flush();
    let cap = label_cap(options.row_length, masker.mask_prob());
    let mut items = Vec::new();
    for rows in Packer::new(pack, samples)? {
        for row in rows? {
            let key = MaskKey {
                seed: options.seed,
                epoch: 0,
                row: items.len() as u64,
            };
            items.push(item(&row, masker, key, cap)?);
        }
    }
    Ok(items)
}

fn item(
    row: &PackedRow,
    masker: &Masker,
    key: MaskKey,
    cap: usize,
) -> Result<MlmItem, LoaderError> {
    let masked = masker.mask(row, key);
    let labelled = masked.labels.len();
    Ok(MlmItem {
        labels: masked.capped(cap)?,
        input_ids: masked.input_ids,
        layout: SequenceLayout::from_cu_seqlens(row.cu_seqlens.clone())?,
        real_tokens: row.real_tokens,
        labelled,
        step_labelled: labelled,
    })
}
