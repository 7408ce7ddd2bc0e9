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

use crate::aligned::Aligned;
use crate::element::{Element, Float, quantize_row};
use crate::kernel::PANEL;

/// Columns of a tile.
pub(crate) const TILE: usize = 16;

/// A right operand `[k, n]`, packed; both dimensions are padded with zeros.
#[derive(Debug)]
pub struct Panels<E: Element> {
    inner: usize,
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

    /// The elements.
    pub fn data(&self) -> &'a [E] {
        self.data
    }

    /// Asks the processor to bring part `part` of `parts` of the panel into the L2 cache. Callers spread the parts of the next panel over the tiles of the
    /// present one: the first tile of a panel would otherwise wait for the memory.
    pub fn prefetch(&self, part: usize, parts: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            const LINE: usize = 64;
            let lines = size_of_val(self.data) / LINE;
            let start = self.data.as_ptr().cast::<i8>();
            for line in lines * part / parts..lines * (part + 1) / parts {
                // SAFETY: prefetching has no effect but on caches; SSE is part of the architecture.
                unsafe {
                    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                    _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line * LINE));
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (part, parts);
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

/// Offset of an element in a panel.
#[inline(always)]
fn offset<E: Element>(k: usize, column: usize) -> usize {
    let (step, within) = (k / E::STEP, k % E::STEP);
    let tile = step * 2 + column / TILE;
    let row = tile * (E::STEP / E::GROUP) + within / E::GROUP;
    (row * TILE + column % TILE) * E::GROUP + within % E::GROUP
}

impl<E: Element> Panels<E> {
    /// Zeros.
    pub fn zeros(inner: usize, columns: usize) -> Self {
        let panels = columns.div_ceil(PANEL);
        let padded = if E::IS_QUANTIZED { panels * PANEL } else { 0 };
        Self {
            inner,
            columns,
            data: Aligned::zeros(panels * inner.div_ceil(E::STEP) * step_len::<E>()),
            column_sums: vec![0; padded],
            scales: vec![0.0; padded],
        }
    }

    /// Length of the inner dimension.
    pub fn inner(&self) -> usize {
        self.inner
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
        self.inner.div_ceil(E::STEP)
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

    fn column(&mut self, column: usize, values: &[E]) {
        let start = column / PANEL * self.steps() * step_len::<E>();
        let panel = &mut self.data[start..];
        for (k, value) in values.iter().enumerate() {
            panel[offset::<E>(k, column % PANEL)] = *value;
        }
    }
}

impl<E: Float> Panels<E> {
    /// Packs a transposed operand: `row(j)` is column j of the operand, with `inner` elements; `None` is a column of zeros.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn of_rows<'a>(
        inner: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<&'a [f32]>,
    ) -> Self {
        let mut packed = Self::zeros(inner, columns);
        let mut rounded = vec![E::of(0.0); inner];
        for column in 0..columns {
            if let Some(row) = row(column) {
                assert_eq!(row.len(), inner, "a column has another length");
                E::round(row, &mut rounded);
                packed.column(column, &rounded);
            }
        }
        packed
    }
}

impl Panels<i8> {
    /// Packs a transposed operand as [`Panels::of_rows`] does, each column quantized with its own scale.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn quantized<'a>(
        inner: usize,
        columns: usize,
        row: impl Fn(usize) -> Option<&'a [f32]>,
    ) -> Self {
        let mut packed = Self::zeros(inner, columns);
        let mut codes = vec![0i8; inner];
        for column in 0..columns {
            if let Some(row) = row(column) {
                assert_eq!(row.len(), inner, "a column has another length");
                packed.scales[column] = quantize_row(row, &mut codes);
                packed.column_sums[column] = codes.iter().map(|&code| i32::from(code)).sum();
                packed.column(column, &codes);
            }
        }
        packed
    }
}

/// Writes row `column` of a transposed operand into panels of steps of [`Element::STEP`], for operands that are packed anew for each pass: the keys of
/// attention. `values` is padded with zeros to whole steps.
pub fn pack_row<E: Element>(panels: &mut [E], column: usize, values: &[E]) {
    let steps = values.len() / E::STEP;
    let rows = E::STEP / E::GROUP;
    let start = (column / PANEL * steps * 2 + column % PANEL / TILE) * rows * TILE * E::GROUP
        + column % TILE * E::GROUP;
    for (step, values) in values.chunks_exact(E::STEP).enumerate() {
        // As words: a group has 4 bytes in every type, and copies of a length known at run time alone are calls.
        let tile = words_mut(&mut panels[start + step * step_len::<E>()..]);
        for (row, group) in words(values).iter().enumerate() {
            tile[row * TILE] = *group;
        }
    }
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

/// Writes the rows `first..first + E::GROUP` of an operand `[inner, columns]` into panels of `steps` steps: the values of attention. `rows` holds
/// [`Element::GROUP`] rows, `columns` elements each.
pub fn pack_group<E: Element>(
    panels: &mut [E],
    steps: usize,
    first: usize,
    rows: &[E],
    columns: usize,
) {
    let (step, within) = (first / E::STEP, first % E::STEP / E::GROUP);
    for tile in 0..columns.div_ceil(TILE) {
        let (panel, half) = (tile / 2, tile % 2);
        let start = ((panel * steps + step) * 2 + half) * TILE * E::STEP + within * TILE * E::GROUP;
        let width = TILE.min(columns - tile * TILE);
        let target = &mut panels[start..][..width * E::GROUP];
        for (c, group) in target.chunks_exact_mut(E::GROUP).enumerate() {
            for (lane, element) in group.iter_mut().enumerate() {
                *element = rows[lane * columns + tile * TILE + c];
            }
        }
    }
}
