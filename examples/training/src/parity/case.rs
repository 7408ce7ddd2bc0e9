//! A case folder's config and inputs.

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use modernbert::batch::{PackedBatch, Unpadded};
use modernbert::checkpoint::read_config;
use modernbert::config::ModernBertConfig;
use std::path::{Path, PathBuf};

use super::Tensors;

/// One case: its folder and the inputs of the model.
pub struct Case {
    /// The folder.
    pub folder: PathBuf,
    /// Its config.json.
    pub config: ModernBertConfig,
    /// Its inputs.safetensors.
    pub inputs: Tensors,
    /// The real tokens.
    pub unpadded: Unpadded,
    /// Rows of the padded batch; questions × choices for multiple choice.
    pub rows: usize,
    /// Columns of the padded batch.
    pub width: usize,
    /// Choices per question where the ids are `[questions, choices, tokens]`.
    pub choices: Option<usize>,
}

impl Case {
    /// Reads config and inputs of a folder.
    ///
    /// # Errors
    /// Missing or damaged files, ids outside the vocabulary, a mask with holes or with other values than 0 and 1.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = read_config(folder)?;
        let inputs = Tensors::open(folder.join("inputs.safetensors"))?;
        let place = inputs.path().display().to_string();
        let (shape, ids) = inputs.integers("input_ids")?;
        let (rows, width, choices) = match *shape.as_slice() {
            [rows, width] => (rows, width, None),
            [questions, choices, width] => (questions * choices, width, Some(choices)),
            _ => anyhow::bail!(
                "{place}: `input_ids` has shape {shape:?}; give [batch, tokens], or [questions, choices, tokens]"
            ),
        };
        let mask = if inputs.has("attention_mask") {
            let (mask_shape, mask) = inputs.integers("attention_mask")?;
            ensure!(
                mask_shape == shape,
                "{place}: `attention_mask` has shape {mask_shape:?}, `input_ids` {shape:?}"
            );
            ensure!(
                mask.iter().all(|&m| m == 0 || m == 1),
                "{place}: `attention_mask` holds other values than 0 and 1"
            );
            mask.iter().map(|&m| m == 1).collect()
        } else {
            vec![true; ids.len()]
        };
        let ids = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| {
                // Padding may have any id; the model never reads it.
                let id = if mask[i] { id } else { 0 };
                let known = u32::try_from(id)
                    .ok()
                    .filter(|&id| (id as usize) < config.vocab_size);
                known.with_context(|| {
                    format!(
                        "{place}: id {id} is outside the vocabulary of {}",
                        config.vocab_size
                    )
                })
            })
            .collect::<Result<Vec<u32>>>()?;
        let unpadded = Unpadded::new(&ids, &mask, rows, width)
            .and_then(Unpadded::refuse_holes)
            .with_context(|| place.clone())?;
        Ok(Self {
            folder: folder.to_path_buf(),
            config,
            inputs,
            unpadded,
            rows,
            width,
            choices,
        })
    }

    /// Returns the real tokens on a device.
    pub fn batch(&self, device: &Device) -> PackedBatch {
        PackedBatch::new(&self.unpadded.ids, self.unpadded.layout.clone(), device)
    }

    /// Returns the leading axes of a reference tensor with a row per token, and of one with a row per sequence.
    pub fn leading(&self) -> (Vec<usize>, Vec<usize>) {
        let sequences = match self.choices {
            Some(choices) => vec![self.rows / choices.max(1), choices],
            None => vec![self.rows],
        };
        let tokens = [sequences.clone(), vec![self.width]].concat();
        (tokens, sequences)
    }

    /// Returns the column at which the tokens of a row start; `None` for a row of nothing but padding.
    pub fn first_column(&self, row: usize) -> Option<usize> {
        let range = self.unpadded.layout.ranges().nth(row)?;
        let first = *self
            .unpadded
            .indices
            .get(range.clone())
            .and_then(|r| r.first())?;
        Some(first as usize - row * self.width)
    }

    /// Returns the rows that have tokens.
    pub fn real_rows(&self) -> Vec<usize> {
        let lengths = self.unpadded.layout.lengths().enumerate();
        lengths
            .filter(|(_, length)| *length > 0)
            .map(|(row, _)| row)
            .collect()
    }
}
