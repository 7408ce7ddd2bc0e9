//! Right operands as panels of 32 columns.
//!
//! A panel is a sequence of *steps* along the inner dimension, each of two tiles of 16 columns, each of 16 rows (f32: one row) of 64 bytes:
//!
//! ```text
//! step 0                                   step 1 …
//! tile of columns 0..16   columns 16..32
//! row 0: c0 c0' c1 c1' …  c16 c16' …       bf16: k = 0, 1 of each column side by side (i8: k = 0..4; f32: k = 0)
//! row 1: …                                 bf16: k = 2, 3
//! ```
//!
//! This is the right operand of `TDPBF16PS` and `TDPBSSD`, and each row is the operand of `VDPBF16PS` and `VPDPBUSD`.

use std::sync::{Mutex, PoisonError};

use half::bf16;
use multiversion::multiversion;

use crate::aligned::Aligned;
use crate::element::{Element, Float, quantize_row};
use crate::kernel::PANEL;
use crate::team::Team;

/// Columns of a tile.
pub(crate) const TILE: usize = 16;

/// A right operand `[k, n]`, packed; both dimensions are padded with zeros.
#[derive(Debug)]
pub struct Panels<E: Element> {
    depth: usize,
    columns: usize,
    data: Aligned<E>,
    /// Sum of each column's elements, of i8 operands: `VPDPBUSD` takes unsigned left operands, which are 128 more than ours.
    column_sums: Vec<i32>,
    /// Factor of each column, of i8 operands.
    scales: Vec<f32>,
}

/// One panel, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a, E> {
    /// `[steps, 2, rows, 16, group]`.
    pub(crate) data: &'a [E],
    /// Sums of the 32 columns; empty for floats.
    pub(crate) column_sums: &'a [i32],
}

impl<'a, E: Element> Panel<'a, E> {
    /// A panel of floats whose elements are in this order: see the module.
    pub fn of(data: &'a [E]) -> Self {
        Self {
            data,
            column_sums: &[],
        }
    }

    /// The same panel with the sums of its 32 columns, which i8 operands need.
    pub fn with_sums(self, column_sums: &'a [i32]) -> Self {
        Self {
            column_sums,
            ..self
        }
    }

    /// The elements.
    pub fn data(&self) -> &'a [E] {
        self.data
    }

    /// Prefetches slice `slice` of `slices` of the panel into the L2 cache. Callers distribute the slices of the next panel over the tiles of the
    /// present panel: the first tile of a panel would otherwise wait for the memory.
    pub fn prefetch(&self, slice: usize, slices: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            const LINE: usize = 64;
            let lines = size_of_val(self.data) / LINE;
            let start = self.data.as_ptr().cast::<i8>();
            for line in lines * slice / slices..lines * (slice + 1) / slices {
                // SAFETY: prefetching has no effect but on caches; SSE is part of the architecture.
                unsafe {
                    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                    _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line * LINE));
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (slice, slices);
    }

    /// The part of the panel from step `first` on, `count` steps long.
    ///
    /// # Panics
    /// If the panel has fewer steps.
    pub fn steps(self, first: usize, count: usize) -> Self {
        Self {
            data: &self.data[first * step_len::<E>()..][..count * step_len::<E>()],
            ..self
        }
    }
}

/// Elements of one step of a panel.
pub const fn step_len<E: Element>() -> usize {
    E::STEP * PANEL
}

impl<E: Element> Panels<E> {
    /// Zeros.
    pub fn zeros(depth: usize, columns: usize) -> Self {
        let panels = columns.div_ceil(PANEL);
        let padded = if E::IS_QUANTIZED { panels * PANEL } else { 0 };
        Self {
            depth,
            columns,
            data: Aligned::in_huge_pages(panels * depth.div_ceil(E::STEP) * step_len::<E>()),
            column_sums: vec![0; padded],
            scales: vec![0.0; padded],
        }
    }

    /// Length of the inner dimension.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Steps of a panel.
    pub fn steps(&self) -> usize {
        self.depth.div_ceil(E::STEP)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + size_of_val(&*self.column_sums) + size_of_val(&*self.scales)
    }

    /// Panel `index`.
    ///
    /// # Panics
    /// If there is no such panel.
    pub fn panel(&self, index: usize) -> Panel<'_, E> {
        let len = self.steps() * step_len::<E>();
        Panel {
            data: &self.data[index * len..][..len],
            column_sums: match self.column_sums.is_empty() {
                true => &[],
                false => &self.column_sums[index * PANEL..][..PANEL],
            },
        }
    }

    /// Factors of the 32 columns of a panel, for i8 operands; empty for floats.
    pub fn scales(&self, index: usize) -> &[f32] {
        match self.scales.is_empty() {
            true => &[],
            false => &self.scales[index * PANEL..][..PANEL],
        }
    }

    /// Packs columns with the threads of `team`. `fill(j, to)` writes column j, `inner` zeros before, and returns its scale and the sum of its elements,
    /// which count for i8 alone.
    fn of_columns(
        team: &Team,
        depth: usize,
        columns: usize,
        fill: impl Fn(usize, &mut [E]) -> (f32, i32) + Sync,
    ) -> Self {
        let mut packed = Self::zeros(depth, columns);
        let (steps, count) = (packed.steps(), packed.count());
        let (len, padded) = (steps * step_len::<E>(), steps * E::STEP);
        if len == 0 {
            return packed;
        }
        let mut sums = packed.column_sums.chunks_exact_mut(PANEL);
        let mut scales = packed.scales.chunks_exact_mut(PANEL);
        let panels = packed.data.chunks_exact_mut(len);
        let panels: Vec<_> = panels
            .map(|data| Mutex::new((data, sums.next(), scales.next())))
            .collect();
        team.run(&|worker| {
            let mut rows = Aligned::<E>::zeros(PANEL * padded);
            worker.parallel_for(count, |panel| {
                // Each panel is one thread's task.
                let mut panel_mut = panels[panel].lock().unwrap_or_else(PoisonError::into_inner);
                let (data, sums, scales) = &mut *panel_mut;
                rows.fill(E::default());
                for (c, row) in rows.chunks_exact_mut(padded).enumerate() {
                    let column = panel * PANEL + c;
                    if column < columns {
                        let (scale, sum) = fill(column, &mut row[..depth]);
                        if let (Some(sums), Some(scales)) = (sums.as_mut(), scales.as_mut()) {
                            (sums[c], scales[c]) = (sum, scale);
                        }
                    }
                }
                transpose(&rows, data);
            });
        });
        drop(panels);
        packed
    }
}

/// Writes a panel from its 32 columns, each of whole steps.
///
/// # Panics
/// If the panel is shorter than its columns.
pub fn transpose<E: Element>(columns: &[E], panel: &mut [E]) {
    let rows = E::STEP / E::GROUP;
    let (columns, panel) = (words(columns), words_mut(panel));
    let height = columns.len() / PANEL;
    assert!(panel.len() >= columns.len(), "a panel of its columns");
    for half in 0..2 {
        let columns = &columns[half * TILE * height..][..TILE * height];
        if rows == TILE {
            // A step's tile is a block of 16 by 16 words.
            for step in 0..height / TILE {
                let from = Words {
                    values: &columns[step * TILE..],
                    stride: height,
                };
                let to = &mut panel[(step * 2 + half) * TILE * TILE..][..TILE * TILE];
                transpose_block(from, to, TILE);
            }
        } else {
            for index in 0..height {
                let tile = index / rows * 2 + half;
                let row = &mut panel[(tile * rows + index % rows) * TILE..][..TILE];
                for (c, word) in row.iter_mut().enumerate() {
                    *word = columns[c * height + index];
                }
            }
        }
    }
}

/// Rows of 16 words in a larger matrix.
#[derive(Clone, Copy)]
struct Words<'a> {
    values: &'a [[u8; 4]],
    /// Words from one row to the next.
    stride: usize,
}

/// Transposes 16 by 16 words of 4 bytes; rows of the result begin `to_stride` words apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn transpose_block(from: Words<'_>, to: &mut [[u8; 4]], to_stride: usize) {
    // Four rounds, which exchange words that are 1, 2, 4, 8 off the diagonal: loops of fixed lengths, which become shuffles.
    let mut block = [[0u32; TILE]; TILE];
    for (i, row) in block.iter_mut().enumerate() {
        let from = &from.values[i * from.stride..][..TILE];
        for (x, word) in row.iter_mut().zip(from) {
            *x = u32::from_ne_bytes(*word);
        }
    }
    let block = exchange::<8>(&exchange::<4>(&exchange::<2>(&exchange::<1>(&block))));
    for (i, row) in block.iter().enumerate() {
        let to = &mut to[i * to_stride..][..TILE];
        for (word, x) in to.iter_mut().zip(row) {
            *word = x.to_ne_bytes();
        }
    }
}

/// One round of a transposition: swaps elements (i, j + D) and (i + D, j) where bit D of i and j is 0.
#[inline(always)]
fn exchange<const D: usize>(block: &[[u32; TILE]; TILE]) -> [[u32; TILE]; TILE] {
    let mut out = [[0u32; TILE]; TILE];
    for (i, out) in out.iter_mut().enumerate() {
        let other = &block[i ^ D];
        for (j, x) in out.iter_mut().enumerate() {
            *x = match (i & D == 0, j & D == 0) {
                (true, true) | (false, false) => block[i][j],
                (true, false) => other[j - D],
                (false, true) => other[j + D],
            };
        }
    }
    out
}

/// Writes the rows of a left operand from its transpose: element (m, k) of the result is `from[k * stride + m]`. `rows` and `depth` elements are written, to
/// rows that begin `to_stride` elements apart.
///
/// # Panics
/// If an operand is shorter.
pub fn transpose_left(
    from: &[bf16],
    stride: usize,
    rows: usize,
    depth: usize,
    to: &mut [bf16],
    to_stride: usize,
) {
    const STEP: usize = bf16::STEP;
    let mut pairs = [[0u8; 4]; TILE * TILE];
    for first in (0..rows).step_by(TILE) {
        let count = TILE.min(rows - first);
        for k in (0..depth).step_by(STEP) {
            let steps = STEP.min(depth - k);
            if count == TILE && steps == STEP {
                // Pairs along the inner dimension as words `[16 pairs, 16 rows]`, whose transpose is 16 rows.
                interleave(&from[k * stride + first..], stride, &mut pairs);
                let from = Words {
                    values: &pairs,
                    stride: TILE,
                };
                let mut block = [[0u8; 4]; TILE * TILE];
                transpose_block(from, &mut block, TILE);
                for (row, words) in block.chunks_exact(TILE).enumerate() {
                    let to = &mut to[(first + row) * to_stride + k..][..STEP];
                    words_mut(to).copy_from_slice(words);
                }
                continue;
            }
            for i in k..k + steps {
                for row in 0..count {
                    to[(first + row) * to_stride + i] = from[i * stride + first + row];
                }
            }
        }
    }
}

/// Words of elements of two rows each, from 32 rows of 16 elements.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn interleave(from: &[bf16], stride: usize, to: &mut [[u8; 4]; TILE * TILE]) {
    for (pair, to) in to.chunks_exact_mut(TILE).enumerate() {
        let low = &from[2 * pair * stride..][..TILE];
        let high = &from[(2 * pair + 1) * stride..][..TILE];
        for ((word, low), high) in to.iter_mut().zip(low).zip(high) {
            let (low, high) = (u32::from(low.to_bits()), u32::from(high.to_bits()));
            *word = (low | high << 16).to_le_bytes();
        }
    }
}

impl<E: Float> Panels<E> {
    /// Packs a transposed operand with the threads of `team`: `row(j)` is column j of the operand, with `depth` elements; `None` is a column of zeros.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn of_rows<'a>(
        team: &Team,
        depth: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<&'a [f32]> + Sync,
    ) -> Self {
        Self::of_columns(team, depth, columns, |column, to| {
            if let Some(row) = row(column) {
                assert_eq!(row.len(), depth, "a column has another length");
                E::slice_from_f32(row, to);
            }
            (0.0, 0)
        })
    }
}

impl Panels<i8> {
    /// Packs a transposed operand as [`Panels::of_rows`] does, each column quantized with its own scale.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn quantized<'a>(
        team: &Team,
        depth: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<&'a [f32]> + Sync,
    ) -> Self {
        Self::of_columns(team, depth, columns, |column, to| match row(column) {
            Some(row) => {
                assert_eq!(row.len(), depth, "a column has another length");
                let scale = quantize_row(row, to);
                (scale, sum(to))
            }
            None => (0.0, 0),
        })
    }

    /// Packs a transposed operand that is quantized already: `row(j)` has the codes of column j, `inner` of them, and its scale.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn of_codes<'a>(
        team: &Team,
        depth: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<(&'a [i8], f32)> + Sync,
    ) -> Self {
        Self::of_columns(team, depth, columns, |column, to| match row(column) {
            Some((codes, scale)) => {
                to.copy_from_slice(codes);
                (scale, sum(codes))
            }
            None => (0.0, 0),
        })
    }
}

fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|&code| i32::from(code)).sum()
}

/// Groups of 4 bytes, unaligned.
fn words<E: Element>(values: &[E]) -> &[[u8; 4]] {
    let len = size_of_val(values) / 4;
    // SAFETY: elements are plain bytes ([`crate::aligned::Zero`]), and arrays of bytes have no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), len) }
}

/// [`words`], mutable.
fn words_mut<E: Element>(values: &mut [E]) -> &mut [[u8; 4]] {
    let len = size_of_val(values) / 4;
    // SAFETY: as in `words`; any bytes are an element.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), len) }
}

/// Writes the rows `first..first + E::GROUP` of an operand `[inner, columns]` into panels of `steps` steps: the values of attention. `rows` has
/// [`Element::GROUP`] rows.
///
/// # Panics
/// If there are fewer rows, or they have fewer elements.
pub fn pack_group<E: Element>(
    panels: &mut [E],
    steps: usize,
    first: usize,
    rows: &[&[E]],
    columns: usize,
) {
    let (step, within) = (first / E::STEP, first % E::STEP / E::GROUP);
    for tile in 0..columns.div_ceil(TILE) {
        let (panel, half) = (tile / 2, tile % 2);
        let start = ((panel * steps + step) * 2 + half) * TILE * E::STEP + within * TILE * E::GROUP;
        let width = TILE.min(columns - tile * TILE);
        let target = &mut panels[start..][..width * E::GROUP];
        let row = |lane: usize| &rows[lane][tile * TILE..][..width];
        match E::GROUP {
            1 => target.copy_from_slice(row(0)),
            2 if width == TILE => pair(row(0), row(1), target),
            _ => {
                for lane in 0..E::GROUP {
                    for (group, element) in target.chunks_exact_mut(E::GROUP).zip(row(lane)) {
                        group[lane] = *element;
                    }
                }
            }
        }
    }
}

/// Elements of two rows side by side.
#[inline(always)]
fn pair<E: Element>(low: &[E], high: &[E], to: &mut [E]) {
    // Of fixed lengths, so that the loop becomes shuffles.
    let mut pairs = [E::default(); 2 * TILE];
    let (low, high) = (&low[..TILE], &high[..TILE]);
    for i in 0..TILE {
        pairs[2 * i] = low[i];
        pairs[2 * i + 1] = high[i];
    }
    to.copy_from_slice(&pairs);
}
