//! What both tensor-core families share: tiles of the table, masks' constants, the soft cap, and rotations of rows.
//!
//! Rows of a head pass through shared memory in chunks of sixteen bytes, eight elements. A rotation turns element d with
//! element d + head_dim / 2, so it turns whole chunks: chunk c with chunk c + head_dim / 16.

use cubecl::prelude::*;

use super::ptx::*;

/// Stands for minus infinity in masks.
pub(super) const NEG_INF: f32 = f32::NEG_INFINITY;

pub(super) const LN_2: f32 = std::f32::consts::LN_2;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// PTX's name of the dtype.
pub(super) fn dtype(half: bool) -> &'static str {
    if half { "f16" } else { "bf16" }
}

/// The tile this cube works on, in rows of its sequence.
#[derive(CubeType)]
pub(super) struct Tile {
    /// First row of the tile.
    pub(super) first: i32,
    /// Row of the batch where the sequence starts.
    pub(super) sequence: u32,
    /// Rows of the sequence.
    pub(super) length: i32,
}

/// Entry of the host's table for this cube: first row, first row of the sequence, row after its last.
#[cube]
pub(super) fn tile_of(tiles: &[u32]) -> Tile {
    let entry = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) * 3u32;
    let row = tiles[entry as usize];
    let sequence = tiles[(entry + 1u32) as usize];
    let end = tiles[(entry + 2u32) as usize];
    Tile {
        first: i32::cast_from(row - sequence),
        sequence,
        length: i32::cast_from(end - sequence),
    }
}

/// `bound * tanh(x / bound)` where x has been divided by the bound already and the bound is multiplied in later.
#[cube]
pub(super) fn cap(x: f32, inverse: f32) -> f32 {
    // tanh(y) = 1 - 2 / (e^2y + 1), exact at both ends because e^2y goes to 0 and to infinity.
    let e = exp2(x * inverse * comptime!(2.0 * LOG2_E));
    1.0f32 - 2.0f32 * reciprocal(e + 1.0f32)
}

/// Two chunks of a row, of the first half of a head and of the second, turned by the angles whose cosines and sines are
/// given, each in two parts of four.
#[cube]
pub(super) fn turn(
    a: Vector<u32, Const<4>>,
    b: Vector<u32, Const<4>>,
    cos0: Vector<f32, Const<4>>,
    cos1: Vector<f32, Const<4>>,
    sin0: Vector<f32, Const<4>>,
    sin1: Vector<f32, Const<4>>,
    #[comptime] ty: &str,
) -> (Vector<u32, Const<4>>, Vector<u32, Const<4>>) {
    let mut first = Vector::<u32, Const<4>>::empty();
    let mut second = Vector::<u32, Const<4>>::empty();
    #[unroll]
    for r in 0..4usize {
        let (e0, e1) = comptime!((r % 2 * 2, r % 2 * 2 + 1));
        let cos = if comptime!(r < 2) { cos0 } else { cos1 };
        let sin = if comptime!(r < 2) { sin0 } else { sin1 };
        let (c0, c1) = (cos.extract(e0), cos.extract(e1));
        let (s0, s1) = (sin.extract(e0), sin.extract(e1));
        let (a0, a1) = (unpack_low(a.extract(r), ty), unpack_high(a.extract(r), ty));
        let (b0, b1) = (unpack_low(b.extract(r), ty), unpack_high(b.extract(r), ty));
        first.insert(r, pack(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1, ty));
        second.insert(r, pack(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1, ty));
    }
    (first, second)
}

/// How rows lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowShape {
    /// Elements of a row, a multiple of 16.
    pub(super) head_dim: u32,
    /// Bytes from a row to the next.
    pub(super) pitch: u32,
    /// Whether chunks are exchanged within a row as the 128-byte swizzle does.
    pub(super) swizzled: bool,
    /// Units of a cube.
    pub(super) threads: u32,
}

impl RowShape {
    /// Pairs of chunks that a rotation turns, per row.
    fn pairs(self) -> u32 {
        self.head_dim / 16
    }

    /// Pairs of chunks each unit handles of `rows` rows.
    fn items(self, rows: u32) -> u32 {
        (rows * self.pairs()).div_ceil(self.threads)
    }

    /// Whether the last of them may lie beyond the rows.
    fn uneven(self, rows: u32) -> bool {
        !(rows * self.pairs()).is_multiple_of(self.threads)
    }
}

/// Where chunk `chunk` of row `row` is, from the first row on.
#[cube]
fn place(row: u32, chunk: u32, #[comptime] shape: RowShape) -> u32 {
    let column = if comptime!(shape.swizzled) {
        chunk ^ (row % 8u32)
    } else {
        chunk
    };
    row * comptime!(shape.pitch) + column * 16u32
}

/// Whether `row` is one of `rows`; known beforehand where they divide evenly among the units.
#[cube]
fn exists(row: u32, #[comptime] rows: u32, #[comptime] shape: RowShape) -> bool {
    if comptime!(shape.uneven(rows)) {
        row < rows
    } else {
        true.runtime()
    }
}

/// Starts the copy of `rows` rows of a head, from row `first` of a sequence on, into shared memory. Rows outside the
/// sequence become zeros. Each unit copies the pairs of chunks that it turns in [`rotate_rows`].
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn load_rows(
    base: u64,
    row_bytes: u32,
    sequence: u32,
    first: i32,
    length: i32,
    shared: u32,
    #[comptime] rows: u32,
    #[comptime] shape: RowShape,
) {
    let pairs = comptime!(shape.pairs());
    #[unroll]
    for i in 0..comptime!(shape.items(rows)) {
        let item = UNIT_POS + comptime!(i * shape.threads);
        let row = item / pairs;
        let chunk = item % pairs;
        let position = first + i32::cast_from(row);
        let inside = position < length && position >= 0i32;
        let packed_row = sequence + select(inside, u32::cast_from(position), 0u32);
        let bytes = select(inside, 16u32, 0u32);
        let from = base
            + u64::cast_from(packed_row) * u64::cast_from(row_bytes)
            + u64::cast_from(chunk * 16u32);
        if exists(row, rows, shape) {
            copy_async_16(shared + place(row, chunk, shape), from, bytes);
            copy_async_16(
                shared + place(row, chunk + pairs, shape),
                from + u64::cast_from(comptime!(pairs * 16)),
                bytes,
            );
        }
    }
}

/// Cosines and sines that this unit needs in [`rotate_rows`], four vectors to a pair of chunks.
#[cube]
pub(super) fn load_angles(
    rotary: u64,
    first: i32,
    length: i32,
    #[comptime] rows: u32,
    #[comptime] shape: RowShape,
) -> Sequence<Vector<f32, Const<4>>> {
    let pairs = comptime!(shape.pairs());
    let mut angles = Sequence::<Vector<f32, Const<4>>>::new();
    #[unroll]
    for i in 0..comptime!(shape.items(rows)) {
        let item = UNIT_POS + comptime!(i * shape.threads);
        // Rows outside the sequence are zeros and stay zeros; they take some row's angles.
        let position = max(
            min(first + i32::cast_from(item / pairs), length - 1i32),
            0i32,
        );
        let at = rotary
            + u64::cast_from(
                u32::cast_from(position) * comptime!(shape.head_dim * 4) + item % pairs * 32u32,
            );
        let sines = at + u64::cast_from(comptime!(shape.head_dim * 2));
        angles.push(load_global_floats(at));
        angles.push(load_global_floats(at + 16u64));
        angles.push(load_global_floats(sines));
        angles.push(load_global_floats(sines + 16u64));
    }
    angles
}

/// Turns the rows that [`load_rows`] brought, each unit those it copied itself: a wait for its own copies suffices before,
/// a barrier is needed after.
#[cube]
pub(super) fn rotate_rows(
    shared: u32,
    angles: &Sequence<Vector<f32, Const<4>>>,
    #[comptime] rows: u32,
    #[comptime] shape: RowShape,
    #[comptime] ty: &str,
) {
    let pairs = comptime!(shape.pairs());
    #[unroll]
    for i in 0..comptime!(shape.items(rows) as usize) {
        let item = UNIT_POS + comptime!(i as u32 * shape.threads);
        let row = item / pairs;
        let chunk = item % pairs;
        if exists(row, rows, shape) {
            let low = shared + place(row, chunk, shape);
            let high = shared + place(row, chunk + pairs, shape);
            let (first, second) = turn(
                load_shared_16(low),
                load_shared_16(high),
                *angles.index(comptime!(i * 4)),
                *angles.index(comptime!(i * 4 + 1)),
                *angles.index(comptime!(i * 4 + 2)),
                *angles.index(comptime!(i * 4 + 3)),
                ty,
            );
            store_shared_16(low, first);
            store_shared_16(high, second);
        }
    }
}
