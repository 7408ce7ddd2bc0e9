//! Conversion of padded batches to packed ones and back.

use burn::tensor::{IndexingUpdateOp, Tensor};

use super::{LayoutError, SequenceLayout, int_tensor};

/// Label of positions that do not count: the default `ignore_index` of PyTorch's losses.
pub const NO_LABEL: i64 = -100;

/// The real tokens of a padded batch, and their positions in it.
#[derive(Clone, Debug)]
pub struct Unpadded {
    /// Ids of the real tokens, row after row.
    pub ids: Vec<u32>,
    /// One sequence per row of the padded batch; a row of nothing but padding is an empty sequence.
    pub layout: SequenceLayout,
    /// Flat position `row * width + column` of each real token.
    pub indices: Vec<u32>,
    rows: usize,
    width: usize,
}

/// Reasons why a padded batch can't be unpadded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaddingError {
    /// Ids and mask differ in size, or don't fill the rows.
    #[error(
        "a batch of {rows} x {width} needs {rows} x {width} ids and mask entries, got {ids} ids and {mask} entries"
    )]
    Shape {
        /// Rows of the batch.
        rows: usize,
        /// Columns of the batch.
        width: usize,
        /// Number of ids.
        ids: usize,
        /// Number of mask entries.
        mask: usize,
    },
    /// The real tokens of a row are not contiguous.
    #[error(
        "row {row} of the attention mask has a hole at column {column}: padding may be before or after the tokens of a \
         row, not between them; remove the masked tokens from the row instead"
    )]
    Hole {
        /// The row.
        row: usize,
        /// Column of the row's first padding that has tokens on both sides.
        column: usize,
    },
    /// Too many tokens for one batch.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Unpadded {
    /// Collects the tokens of `ids [rows, width]` (row-major) whose mask entry is true, in order.
    ///
    /// Padding may be left, right or between tokens. Padding between tokens moves the positions of the tokens after it: callers for
    /// which that would be wrong call [`Unpadded::refuse_holes`].
    ///
    /// # Errors
    /// [`PaddingError::Shape`] if ids or mask don't have `rows * width` entries.
    pub fn new(
        ids: &[u32],
        mask: &[bool],
        rows: usize,
        width: usize,
    ) -> Result<Self, PaddingError> {
        if ids.len() != rows * width || mask.len() != ids.len() {
            return Err(PaddingError::Shape {
                rows,
                width,
                ids: ids.len(),
                mask: mask.len(),
            });
        }
        let indices: Vec<u32> = (0..ids.len())
            .filter(|&i| mask[i])
            .map(|i| i as u32)
            .collect();
        let lengths = (0..rows).map(|row| {
            let mask = &mask[row * width..(row + 1) * width];
            mask.iter().filter(|&&real| real).count()
        });
        Ok(Self {
            ids: indices.iter().map(|&i| ids[i as usize]).collect(),
            layout: SequenceLayout::from_lengths(lengths)?,
            indices,
            rows,
            width,
        })
    }

    /// Refuses masks with padding between the tokens of a row.
    ///
    /// # Errors
    /// [`PaddingError::Hole`] with the first such row and column.
    pub fn refuse_holes(self) -> Result<Self, PaddingError> {
        for (row, range) in self.layout.ranges().enumerate() {
            for pair in self.indices[range].windows(2) {
                if pair[1] != pair[0] + 1 {
                    return Err(PaddingError::Hole {
                        row,
                        column: pair[0] as usize + 1 - row * self.width,
                    });
                }
            }
        }
        Ok(self)
    }

    /// Returns packed rows `[total, features]` as `[rows, width, features]`, with zeros at the padding.
    ///
    /// Differentiable: the gradient of a real position is that of its token; the gradient of padding is dropped.
    pub fn repad(&self, packed: Tensor<2>) -> Tensor<3> {
        let [tokens, features] = packed.dims();
        crate::ops::row_moves::scattered(tokens);
        let device = packed.device();
        let zeros = Tensor::<2>::zeros(
            [self.rows * self.width, features],
            (&device, packed.dtype()),
        );
        let indices = int_tensor(self.indices.iter().map(|&i| i as i32), &device);
        zeros
            .select_assign(0, indices, packed, IndexingUpdateOp::Add)
            .reshape([self.rows, self.width, features])
    }

    /// Returns one label per real token as `[rows, width]` (row-major), with [`NO_LABEL`] at the padding.
    ///
    /// # Panics
    /// If the number of labels differs from the number of real tokens.
    pub fn repad_labels(&self, labels: &[i64]) -> Vec<i64> {
        assert_eq!(labels.len(), self.indices.len(), "one label per token");
        let mut padded = vec![NO_LABEL; self.rows * self.width];
        for (&i, &label) in self.indices.iter().zip(labels) {
            padded[i as usize] = label;
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn repad_restores_every_token(mask in prop::collection::vec(any::<bool>(), 24)) {
            let (rows, width) = (4, 6);
            let ids: Vec<u32> = (1..=24).collect();
            let unpadded = Unpadded::new(&ids, &mask, rows, width).unwrap();
            let labels: Vec<i64> = unpadded.ids.iter().map(|&id| i64::from(id)).collect();
            let labels = unpadded.repad_labels(&labels);
            for i in 0..24 {
                prop_assert_eq!(labels[i], if mask[i] { i64::from(ids[i]) } else { NO_LABEL });
            }
            let device = test_support::device();
            let packed: Vec<f32> = unpadded.ids.iter().map(|&id| id as f32).collect();
            let packed = Tensor::<1>::from_floats(packed.as_slice(), &device).reshape([-1, 1]);
            if unpadded.ids.is_empty() { return Ok(()); }
            let padded: Vec<f32> = unpadded.repad(packed).into_data().try_to_vec().unwrap();
            for i in 0..24 {
                prop_assert_eq!(padded[i], if mask[i] { ids[i] as f32 } else { 0.0 });
            }
        }
    }

    #[test]
    fn left_and_right_padding_and_an_empty_row() {
        let mask = [false, true, true, true, true, false, false, false, false];
        let ids = [9, 1, 2, 3, 4, 9, 9, 9, 9];
        let unpadded = Unpadded::new(&ids, &mask, 3, 3)
            .unwrap()
            .refuse_holes()
            .unwrap();
        assert_eq!(unpadded.ids, [1, 2, 3, 4]);
        assert_eq!(unpadded.layout.cu_seqlens(), [0, 2, 4, 4]);
    }

    #[test]
    fn a_hole_is_refused_with_its_row_and_column() {
        let mask = [true, true, true, true, false, true];
        let unpadded = Unpadded::new(&[1; 6], &mask, 2, 3).unwrap();
        assert_eq!(
            unpadded.refuse_holes().unwrap_err(),
            PaddingError::Hole { row: 1, column: 1 }
        );
    }
}
