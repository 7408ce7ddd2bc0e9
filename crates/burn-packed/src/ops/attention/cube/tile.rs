//! The rows of a thread block and the positions that they see, on the device, for all kernels of this folder.

use cubecl::prelude::*;

/// The queries of `qkv`: projection 0 of the 3 projections of a token.
pub(super) const Q: (usize, usize) = (0, 3);
/// The keys of `qkv`.
pub(super) const K: (usize, usize) = (1, 3);
/// The values of `qkv`.
pub(super) const V: (usize, usize) = (2, 3);
/// The output or its gradient, which have one projection.
pub(super) const OUT: (usize, usize) = (0, 1);

/// The tile of a thread block: rows of one sequence (queries, or keys in the kernel for the gradients of k and v), and the window.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct AttentionTile {
    /// Position of the tile's first row in its sequence.
    pub(super) first: i32,
    /// Row of the batch at which the sequence starts.
    pub(super) sequence: u32,
    /// Rows of the sequence.
    pub(super) length: i32,
    /// Rows visible on each side of a row, inclusive.
    pub(super) half_window: i32,
}

/// Positions from `first` to `last`, both inclusive.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct VisibleRange {
    pub(super) first: i32,
    pub(super) last: i32,
}

#[cube]
impl VisibleRange {
    pub(super) fn contains(&self, position: i32) -> bool {
        position >= self.first && position <= self.last
    }
}

#[cube]
impl AttentionTile {
    /// Returns this block's entry of the host's tile table (see `tile_table`).
    pub(super) fn of_block(table: &[u32], half_window: i32) -> AttentionTile {
        AttentionTile::of_entry(table, CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y, half_window)
    }

    /// Returns an entry of the host's tile table.
    pub(super) fn of_entry(table: &[u32], index: u32, half_window: i32) -> AttentionTile {
        let entry = index * 3u32;
        let row = table[entry as usize];
        let sequence = table[(entry + 1u32) as usize];
        let end = table[(entry + 2u32) as usize];
        AttentionTile {
            first: i32::cast_from(row - sequence),
            sequence,
            length: i32::cast_from(end - sequence),
            half_window,
        }
    }

    /// Returns whether the sequence has the position, which is not negative.
    pub(super) fn has(&self, position: i32) -> bool {
        position < self.length
    }

    /// Returns the keys that query `row` sees; since the window is symmetric, these are also the queries that see key `row`. This is the only
    /// implementation of the visibility rule in device code.
    pub(super) fn visible(&self, row: i32) -> VisibleRange {
        VisibleRange {
            first: max(row - self.half_window, 0i32),
            last: min(row + self.half_window, self.length - 1i32),
        }
    }

    /// Returns the positions that at least one of the tile's `rows` rows sees; none (`last` is below `first`) in a tile without rows.
    pub(super) fn visible_to_any(&self, #[comptime] rows: u32) -> VisibleRange {
        let last = min(self.first + comptime!(rows as i32 - 1), self.length - 1i32);
        VisibleRange {
            first: self.visible(self.first).first,
            last: self.visible(last).last,
        }
    }

    /// Returns whether any of `rows` rows from `first` on sees any of `others` positions from `other` on.
    pub(super) fn meets(
        &self,
        first: i32,
        #[comptime] rows: u32,
        other: i32,
        #[comptime] others: u32,
    ) -> bool {
        // Calls as operands of `&&` would be short-circuited, which CubeCL compiles to a branch.
        let last_visible = self.visible(first + comptime!(rows as i32 - 1)).last;
        let first_visible = self.visible(first).first;
        other <= last_visible && other + comptime!(others as i32 - 1) >= first_visible
    }

    /// Returns whether any of `rows` rows from `first` on does not see all of `others` positions from `other` on.
    pub(super) fn needs_mask(
        &self,
        first: i32,
        #[comptime] rows: u32,
        other: i32,
        #[comptime] others: u32,
    ) -> bool {
        let first_limit = self.visible(first).last;
        let last_limit = self.visible(first + comptime!(rows as i32 - 1)).first;
        other + comptime!(others as i32 - 1) > first_limit || other < last_limit
    }

    /// Returns `row`, or the nearest row of the sequence if `row` is outside: such threads read that row and store nothing.
    pub(super) fn clamped(&self, row: i32) -> u32 {
        u32::cast_from(max(min(row, self.length - 1i32), 0i32))
    }
}
