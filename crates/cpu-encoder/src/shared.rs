//! Buffers whose rows several threads write.

use cpu_gemm::{PANEL, ROWS};

use crate::rows::TileMut;

/// A buffer whose rows several threads write, each row one thread between two barriers.
pub(crate) struct SharedRows<T> {
    start: *mut T,
    len: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
}

// SAFETY: plain memory; the users of `rows` and `row_mut` promise that no row is written by one thread and used by another between two barriers.
unsafe impl<T: Send> Sync for SharedRows<T> {}

impl<T> SharedRows<T> {
    pub(crate) fn of(values: &mut [T], stride: usize) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            stride,
        }
    }

    /// The rows `first..first + count`.
    ///
    /// # Safety
    /// No thread writes these rows before the next barrier.
    pub(crate) unsafe fn rows(&self, first: usize, count: usize) -> &[T] {
        let range = first * self.stride..(first + count) * self.stride;
        assert!(range.end <= self.len, "rows of a buffer");
        // SAFETY: inside of the buffer; the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// The `len` elements from `column` on of row `row`.
    ///
    /// # Safety
    /// No other thread uses these elements before the next barrier, and this one has no other reference to them.
    #[allow(clippy::mut_from_ref)] // the caller's promise makes the borrow exclusive
    pub(crate) unsafe fn row_mut(&self, row: usize, column: usize, len: usize) -> &mut [T] {
        let start = row * self.stride + column;
        assert!(start + len <= self.len, "a row of a buffer");
        // SAFETY: inside of the buffer; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The destination of a tile.
    pub(crate) fn tile_mut(
        &self,
        row: usize,
        rows: usize,
        column: usize,
        width: usize,
    ) -> TileMut<T> {
        let last = (row + rows - 1) * self.stride + column + width;
        assert!(
            rows <= ROWS && width <= PANEL && last <= self.len,
            "a tile of a buffer"
        );
        TileMut {
            start: self.start.wrapping_add(row * self.stride + column),
            stride: self.stride,
            rows,
            width,
        }
    }
}
