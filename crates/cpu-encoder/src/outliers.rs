//! The second product of int8 GEMMs: rows with outliers have a second code (see [`crate::rows::quantize`]), and only these rows are multiplied again.
//!
//! A task gathers the second codes of its rows into consecutive memory, multiplies them with each panel before its tiles, and adds the products to the
//! tiles that have these rows. One row in eight with an outlier thus costs an eighth of a GEMM; a second pass over every tile that has such a row would
//! cost a whole one.

use std::ops::Range;

use cpu_gemm::aligned::Aligned;
use cpu_gemm::kernel::{MicrokernelArgs, Multiply};
use cpu_gemm::pack::Panel;
use cpu_gemm::{InstructionSet, PANEL, ROWS};

use crate::rows::{TileValues, add_scaled_row};
use crate::shared::SharedRows;

/// The rows with a second code of one task.
#[derive(Default)]
pub(crate) struct OutlierRows {
    /// Number of the row in the task, ascending, and the scale of its second code.
    rows: Vec<(usize, f32)>,
    /// Their second codes, in whole groups of [`ROWS`] rows.
    codes: Option<Aligned<i8>>,
    /// Elements from one of them to the next.
    stride: usize,
    /// Products with the last panel, `[rows, PANEL]`.
    sums: Vec<i32>,
}

impl OutlierRows {
    /// Gathers the rows of `rows` with a second code: those whose scale is not 0.
    ///
    /// # Safety
    /// No thread writes these rows before the next barrier.
    pub(crate) unsafe fn gather(
        &mut self,
        codes: &SharedRows<i8>,
        scales: &SharedRows<f32>,
        rows: Range<usize>,
    ) {
        self.rows.clear();
        // SAFETY: the caller's promise.
        let scales = unsafe { scales.rows(rows.start, rows.len()) };
        let scaled = scales
            .iter()
            .enumerate()
            .filter(|(_, scale)| **scale != 0.0);
        self.rows.extend(scaled.map(|(row, scale)| (row, *scale)));
        let padded = self.rows.len().next_multiple_of(ROWS);
        self.stride = codes.stride;
        self.sums.resize(padded * PANEL, 0);
        let enough = |codes: &Aligned<i8>| codes.len() >= padded * self.stride;
        if !self.codes.as_ref().is_some_and(enough) {
            self.codes = Some(Aligned::zeros(padded * self.stride));
        }
        let gathered = self
            .codes
            .iter_mut()
            .flat_map(|all| all.chunks_exact_mut(codes.stride));
        for ((row, _), gathered) in self.rows.iter().zip(gathered) {
            // SAFETY: as above.
            gathered.copy_from_slice(unsafe { codes.rows(rows.start + row, 1) });
        }
    }

    /// Multiplies the gathered rows with a panel.
    ///
    /// # Safety
    /// The thread is inside [`InstructionSet::enter`] of a supported instruction set, the panel has the sums of its columns, and its steps are at most
    /// the gathered stride.
    pub(crate) unsafe fn multiply(&mut self, isa: InstructionSet, panel: Panel<'_, i8>) {
        let Some(codes) = &self.codes else {
            return;
        };
        for first in (0..self.rows.len()).step_by(ROWS) {
            let tile = MicrokernelArgs {
                left: codes[first * self.stride..].as_ptr(),
                left_stride: self.stride,
                rows: ROWS.min(self.rows.len() - first),
                to: self.sums[first * PANEL..(first + ROWS) * PANEL].as_mut_ptr(),
                to_stride: PANEL,
            };
            // SAFETY: codes and sums have whole groups of 32 rows; the caller's promise.
            unsafe { i8::tile(isa, tile, panel) }
        }
    }

    /// Adds the products with the last panel to a tile of `count` rows of the task, from `first` on.
    pub(crate) fn add(
        &self,
        first: usize,
        count: usize,
        column_scales: &[f32],
        tile: &mut TileValues,
    ) {
        let start = self.rows.partition_point(|(row, _)| *row < first);
        let sums = self.sums.chunks_exact(PANEL).skip(start);
        for ((row, scale), sums) in self.rows[start..].iter().zip(sums) {
            if *row >= first + count {
                break;
            }
            let to = &mut tile[(row - first) * PANEL..][..PANEL];
            add_scaled_row(sums, *scale, column_scales, to);
        }
    }
}
