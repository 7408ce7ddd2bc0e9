//! What forward and backward share: tiles in shared memory, masks, and accumulators as operands of the next product.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::ptx::*;

/// Keys (or, in the walk over keys, queries) that arrive at once.
pub(super) const KEYS: u32 = 64;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Shape {
    /// Warp groups of a cube, each with 64 rows.
    pub(in super::super) groups: u32,
    /// Whether queries and keys are turned as they arrive.
    pub(in super::super) inside: bool,
    /// Whether gradients of queries and keys are turned back.
    pub(in super::super) rotated: bool,
    /// Whether scores are softly bounded.
    pub(in super::super) capped: bool,
    /// f16 instead of bf16.
    pub(in super::super) half: bool,
}

impl Shape {
    /// Units of a cube.
    pub(in super::super) fn units(self) -> u32 {
        self.groups * 128
    }

    /// Rows of a cube.
    pub(in super::super) fn rows(self) -> u32 {
        self.groups * 64
    }
}

/// How rows lie in shared memory: 64 elements under the 128-byte swizzle.
pub(super) fn row_shape(threads: u32) -> RowShape {
    RowShape {
        head_dim: 64,
        pitch: ROW_BYTES,
        swizzled: true,
        threads,
    }
}

/// Starts the copy of `rows` rows of 64 elements, from row `first` of a sequence on, into shared memory under the 128-byte
/// swizzle. Rows outside the sequence become zeros. Where they are to be turned there, each unit copies what it turns.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn load_tile(
    base: u64,
    row_bytes: u32,
    sequence: u32,
    first: i32,
    length: i32,
    shared: u32,
    #[comptime] rows: u32,
    #[comptime] threads: u32,
    #[comptime] turned: bool,
) {
    if comptime!(turned) {
        load_rows(
            base,
            row_bytes,
            sequence,
            first,
            length,
            shared,
            rows,
            comptime!(row_shape(threads)),
        );
    } else {
        load_whole_rows(
            base, row_bytes, sequence, first, length, shared, rows, threads,
        );
    }
}

/// As [`load_tile`], neighbouring units taking neighbouring chunks of a row.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn load_whole_rows(
    base: u64,
    row_bytes: u32,
    sequence: u32,
    first: i32,
    length: i32,
    shared: u32,
    #[comptime] rows: u32,
    #[comptime] threads: u32,
) {
    let chunk = UNIT_POS % 8u32;
    let unit_row = UNIT_POS / 8u32;
    let to = shared + unit_row * ROW_BYTES + ((chunk ^ (unit_row % 8u32)) * 16u32);
    let from = base + u64::cast_from(chunk * 16u32);
    #[unroll]
    for i in 0..comptime!((rows * 8).div_ceil(threads)) {
        let row = unit_row + comptime!(i * (threads / 8));
        let position = first + i32::cast_from(row);
        let inside = position < length && position >= 0i32;
        let packed_row = sequence + select(inside, u32::cast_from(position), 0u32);
        let bytes = select(inside, 16u32, 0u32);
        let source = from + u64::cast_from(packed_row) * u64::cast_from(row_bytes);
        let target = to + comptime!(i * (threads / 8) * ROW_BYTES);
        if comptime!(!(rows * 8).is_multiple_of(threads) && (i + 1) * (threads / 8) > rows) {
            if row < rows {
                copy_async_16(target, source, bytes);
            }
        } else {
            copy_async_16(target, source, bytes);
        }
    }
}

/// Turns the cube's own rows once they have come. The barrier after it is that of the first [`arrive`].
#[cube]
pub(super) fn turn_own(
    shared: u32,
    rotary: u64,
    first: i32,
    length: i32,
    #[comptime] rows: u32,
    #[comptime] threads: u32,
    #[comptime] ty: &str,
) {
    let shape = comptime!(row_shape(threads));
    let angles = load_angles(rotary, first, length, rows, shape);
    copy_async_wait(0u32);
    rotate_rows(shared, &angles, rows, shape, ty);
}

/// Waits for the copies under way and lets the tensor cores see what they brought.
#[cube]
pub(super) fn arrive() {
    copy_async_wait(0u32);
    fence_tensor_cores();
    sync_cube();
}

/// As [`arrive`]; the tile at `shared` is turned before.
#[cube]
pub(super) fn arrive_and_turn(
    shared: u32,
    rotary: u64,
    first: i32,
    length: i32,
    #[comptime] threads: u32,
    #[comptime] ty: &str,
) {
    let shape = comptime!(row_shape(threads));
    let angles = load_angles(rotary, first, length, KEYS, shape);
    copy_async_wait(0u32);
    rotate_rows(shared, &angles, KEYS, shape, ty);
    fence_tensor_cores();
    sync_cube();
}

/// Hides what lies outside the window or the sequence: `row` and `row + 8` are this unit's queries, `column` its first key.
#[cube]
pub(super) fn mask(
    s: &mut Vector<f32, Const<32>>,
    row: i32,
    column: i32,
    half_window: i32,
    length: i32,
) {
    let first0 = row - half_window;
    let last0 = min(row + half_window, length - 1i32);
    let first1 = first0 + 8i32;
    let last1 = min(row + 8i32 + half_window, length - 1i32);
    #[unroll]
    for j in 0..16usize {
        let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
        let key = column + comptime!((j / 2 * 8 + j % 2) as i32);
        s.insert(
            i0,
            select(
                key >= first0 && key <= last0,
                s.extract(i0),
                f32::new(NEG_INF),
            ),
        );
        s.insert(
            i1,
            select(
                key >= first1 && key <= last1,
                s.extract(i1),
                f32::new(NEG_INF),
            ),
        );
    }
}

/// An accumulator `[64, 64]` rounded to `ty`, as the left operand of the next product.
#[cube]
pub(super) fn fragments(
    s: &Vector<f32, Const<32>>,
    #[comptime] ty: &str,
) -> Sequence<Vector<u32, Const<4>>> {
    let mut out = Sequence::<Vector<u32, Const<4>>>::new();
    #[unroll]
    for slice in 0..4usize {
        let mut a = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for r in 0..4usize {
            let i = comptime!(slice * 8 + r * 2);
            a.insert(r, pack(s.extract(i), s.extract(comptime!(i + 1)), ty));
        }
        out.push(a);
    }
    out
}

/// Writes this unit's part of an accumulator `[64, 64]`, rounded, to rows `row` and `row + 8` of a sequence: `word` is where
/// the unit's first pair stands in row 0 of the batch, in units of two elements, and `row_words` the distance of rows.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn store_rows(
    out: &mut [u32],
    acc: &Vector<f32, Const<32>>,
    row: i32,
    sequence: u32,
    length: i32,
    word: u32,
    row_words: u32,
    factor0: f32,
    factor1: f32,
    #[comptime] ty: &str,
) {
    if row < length {
        let at = (sequence + u32::cast_from(row)) * row_words + word;
        #[unroll]
        for j in 0..8usize {
            let (low, high) = (
                acc.extract(comptime!(j * 4)),
                acc.extract(comptime!(j * 4 + 1)),
            );
            out[(at + comptime!(j as u32 * 4)) as usize] = pack(low * factor0, high * factor0, ty);
        }
    }
    if row + 8i32 < length {
        let at = (sequence + u32::cast_from(row + 8i32)) * row_words + word;
        #[unroll]
        for j in 0..8usize {
            let (low, high) = (
                acc.extract(comptime!(j * 4 + 2)),
                acc.extract(comptime!(j * 4 + 3)),
            );
            out[(at + comptime!(j as u32 * 4)) as usize] = pack(low * factor1, high * factor1, ty);
        }
    }
}

/// Turns the pairs (d, d + 32) of an accumulator's rows back by their angles: the derivative of the rotation.
#[cube]
pub(super) fn rotate_back(
    acc: &mut Vector<f32, Const<32>>,
    rotary: &[f32],
    row: i32,
    length: i32,
    lane: u32,
) {
    // Rows beyond the end are not stored; they take the last row's angles.
    let position0 = u32::cast_from(min(row, length - 1i32)) * 64u32 + (lane % 4u32) * 2u32;
    let position1 = u32::cast_from(min(row + 8i32, length - 1i32)) * 64u32 + (lane % 4u32) * 2u32;
    #[unroll]
    for j in 0..4usize {
        #[unroll]
        for e in 0..4usize {
            let at =
                select(comptime!(e < 2), position0, position1) + comptime!((j * 8 + e % 2) as u32);
            let cos = rotary[at as usize];
            let sin = rotary[(at + 32u32) as usize];
            let (i, k) = comptime!((j * 4 + e, j * 4 + e + 16));
            let (a, b) = (acc.extract(i), acc.extract(k));
            acc.insert(i, a * cos + b * sin);
            acc.insert(k, b * cos - a * sin);
        }
    }
}
