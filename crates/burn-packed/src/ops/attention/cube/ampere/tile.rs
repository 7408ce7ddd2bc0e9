//! What forward and backward share: operands from shared memory, products of a warp, masks, and stores.
//!
//! A warp owns 16 rows. Its products are held as parts of eight columns each, in an array: `[16, columns]` is `columns / 8`
//! parts. Rows in shared memory have sixteen bytes of padding, an odd number of chunks in all, so that the eight rows of a
//! matrix lie in different banks.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::ptx::*;

/// Rows of a warp.
pub(super) const WARP_ROWS: u32 = 16;
/// Warps of a cube.
pub(super) const WARPS: u32 = 4;
/// Rows of a cube.
pub(super) const ROWS: u32 = WARPS * WARP_ROWS;
/// Units of a cube.
pub(in super::super) const UNITS: u32 = WARPS * 32;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Shape {
    /// Size of a head: a multiple of 16, at most 128.
    pub(in super::super) head_dim: u32,
    /// Keys (or, in the walk over keys, queries) that arrive at once: a multiple of 16.
    pub(in super::super) keys: u32,
    /// Whether the cube's own rows stay in registers, where they are operands of every tile.
    pub(in super::super) resident: bool,
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
    pub(super) fn ty(self) -> &'static str {
        dtype(self.half)
    }

    /// Bytes from a row in shared memory to the next.
    pub(super) fn pitch(self) -> u32 {
        self.head_dim * 2 + 16
    }

    /// Bytes of a tile of keys or values.
    pub(super) fn tile_bytes(self) -> u32 {
        self.keys * self.pitch()
    }

    /// Bytes of the cube's own rows.
    pub(super) fn own_bytes(self) -> u32 {
        ROWS * self.pitch()
    }

    /// Shared memory of the forward: two stages of keys and values, in the second of which the queries fit at first.
    pub(super) fn forward_bytes(self) -> u32 {
        2 * self.tile_bytes() + (2 * self.tile_bytes()).max(self.own_bytes())
    }

    /// Shared memory of a walk of the backward, without the numbers of the tiles' rows.
    pub(super) fn backward_bytes(self) -> u32 {
        2 * self.own_bytes() + 4 * self.tile_bytes()
    }

    /// Shared memory of the hungriest kernel of this shape, in bytes.
    pub(super) fn most_shared_bytes(self) -> usize {
        let numbers = 16 * self.keys;
        self.forward_bytes().max(self.backward_bytes() + numbers) as usize
    }

    /// Parts that the slopes of the bound take.
    pub(super) fn slope_parts(self) -> usize {
        if self.capped { self.key_parts() } else { 1 }
    }

    /// Slices of 16 of a head.
    pub(super) fn slices(self) -> usize {
        self.head_dim as usize / 16
    }

    /// Parts of a warp's `[16, keys]`.
    pub(super) fn key_parts(self) -> usize {
        self.keys as usize / 8
    }

    /// Parts of a warp's `[16, head_dim]`.
    pub(super) fn dim_parts(self) -> usize {
        self.head_dim as usize / 8
    }

    pub(super) fn rows(self) -> RowShape {
        RowShape {
            head_dim: self.head_dim,
            pitch: self.pitch(),
            swizzled: false,
            threads: UNITS,
        }
    }
}

/// Zeros in every part.
#[cube]
pub(super) fn clear(parts: &mut Array<Part>, #[comptime] count: usize) {
    #[unroll]
    for j in 0..count {
        parts[j] = Vector::<f32, Const<4>>::zeroed();
    }
}

/// Slice `slice` of the 16 rows at `rows` as a left operand.
#[cube]
pub(super) fn left(rows: u32, #[comptime] slice: usize, #[comptime] shape: Shape) -> Packed {
    let lane = UNIT_POS % 32u32;
    load_matrices(
        rows + lane % 16u32 * comptime!(shape.pitch())
            + lane / 16u32 * 16u32
            + comptime!(slice as u32 * 32),
    )
}

/// All slices of the 16 rows at `rows`, where they stay in registers; nothing otherwise.
#[cube]
pub(super) fn resident(rows: u32, #[comptime] shape: Shape) -> Sequence<Packed> {
    let mut kept = Sequence::<Packed>::new();
    if comptime!(shape.resident) {
        #[unroll]
        for slice in 0..comptime!(shape.slices()) {
            kept.push(left(rows, slice, shape));
        }
    }
    kept
}

/// `out = own · tileᵀ` over a head: a warp's 16 rows, kept or read at `rows`, against the rows of a tile.
#[cube]
pub(super) fn scores(
    kept: &Sequence<Packed>,
    rows: u32,
    tile: u32,
    out: &mut Array<Part>,
    #[comptime] shape: Shape,
) {
    let lane = UNIT_POS % 32u32;
    let at = tile
        + (lane / 16u32 * 8u32 + lane % 8u32) * comptime!(shape.pitch())
        + lane / 8u32 % 2u32 * 16u32;
    clear(out, comptime!(shape.key_parts()));
    #[unroll]
    for slice in 0..comptime!(shape.slices()) {
        let a = if comptime!(shape.resident) {
            *kept.index(comptime!(slice))
        } else {
            left(rows, slice, shape)
        };
        #[unroll]
        for pair in 0..comptime!(shape.key_parts() / 2) {
            let b =
                load_matrices(at + comptime!(pair as u32 * 16 * shape.pitch() + slice as u32 * 32));
            let (j, k) = comptime!((pair * 2, pair * 2 + 1));
            out[j] = mma(
                a,
                b.extract(0usize),
                b.extract(1usize),
                out[j],
                comptime!(shape.ty()),
            );
            out[k] = mma(
                a,
                b.extract(2usize),
                b.extract(3usize),
                out[k],
                comptime!(shape.ty()),
            );
        }
    }
}

/// `sums += weights · tile`: a warp's `[16, keys]`, rounded, against the rows of a tile.
#[cube]
pub(super) fn accumulate(
    weights: &Array<Part>,
    tile: u32,
    sums: &mut Array<Part>,
    #[comptime] shape: Shape,
) {
    let lane = UNIT_POS % 32u32;
    let at = tile + lane % 16u32 * comptime!(shape.pitch()) + lane / 16u32 * 16u32;
    #[unroll]
    for slice in 0..comptime!(shape.key_parts() / 2) {
        let a = operand(
            weights[comptime!(slice * 2)],
            weights[comptime!(slice * 2 + 1)],
            comptime!(shape.ty()),
        );
        #[unroll]
        for pair in 0..comptime!(shape.dim_parts() / 2) {
            let b = load_matrices_transposed(
                at + comptime!(slice as u32 * 16 * shape.pitch() + pair as u32 * 32),
            );
            let (j, k) = comptime!((pair * 2, pair * 2 + 1));
            sums[j] = mma(
                a,
                b.extract(0usize),
                b.extract(1usize),
                sums[j],
                comptime!(shape.ty()),
            );
            sums[k] = mma(
                a,
                b.extract(2usize),
                b.extract(3usize),
                sums[k],
                comptime!(shape.ty()),
            );
        }
    }
}

/// Two parts of a result, rounded, as a left operand.
#[cube]
fn operand(first: Part, second: Part, #[comptime] ty: &str) -> Packed {
    let mut a = Vector::<u32, Const<4>>::empty();
    a.insert(
        0usize,
        pack(first.extract(0usize), first.extract(1usize), ty),
    );
    a.insert(
        1usize,
        pack(first.extract(2usize), first.extract(3usize), ty),
    );
    a.insert(
        2usize,
        pack(second.extract(0usize), second.extract(1usize), ty),
    );
    a.insert(
        3usize,
        pack(second.extract(2usize), second.extract(3usize), ty),
    );
    a
}

/// Whether any of the 16 rows from `warp_first` on sees any of the tile's rows from `other0` on; the same for the whole warp.
#[cube]
pub(super) fn meets(
    warp_first: i32,
    other0: i32,
    half_window: i32,
    #[comptime] shape: Shape,
) -> bool {
    other0 <= warp_first + comptime!(WARP_ROWS as i32 - 1) + half_window
        && other0 + comptime!(shape.keys as i32 - 1) >= warp_first - half_window
}

/// Bounds the scores, and hides what lies outside the window or the sequence: `row` and `row + 8` are this unit's rows,
/// `other0 + column` its first column. `slopes` gets the bound's slope, where there is a bound.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn bound_and_mask(
    s: &mut Array<Part>,
    slopes: &mut Array<Part>,
    row: i32,
    warp_first: i32,
    other0: i32,
    column: i32,
    half_window: i32,
    length: i32,
    softcap: f32,
    #[comptime] wants_slopes: bool,
    #[comptime] shape: Shape,
) {
    if comptime!(shape.capped) {
        #[unroll]
        for j in 0..comptime!(shape.key_parts()) {
            let mut part = s[j];
            let mut slope = Vector::<f32, Const<4>>::zeroed();
            #[unroll]
            for e in 0..4usize {
                let t = cap(part.extract(e), softcap);
                part.insert(e, t);
                slope.insert(e, 1.0f32 - t * t);
            }
            s[j] = part;
            if comptime!(wants_slopes) {
                slopes[j] = slope;
            }
        }
    }
    if other0 + comptime!(shape.keys as i32) > length
        || other0 + comptime!(shape.keys as i32 - 1) > warp_first + half_window
        || other0 < warp_first + comptime!(WARP_ROWS as i32 - 1) - half_window
    {
        let first0 = row - half_window;
        let last0 = min(row + half_window, length - 1i32);
        let first1 = first0 + 8i32;
        let last1 = min(row + 8i32 + half_window, length - 1i32);
        #[unroll]
        for j in 0..comptime!(shape.key_parts()) {
            let mut part = s[j];
            #[unroll]
            for e in 0..2usize {
                let key = other0 + column + comptime!((j * 8 + e) as i32);
                let below = comptime!(e + 2);
                part.insert(
                    e,
                    select(
                        key >= first0 && key <= last0,
                        part.extract(e),
                        f32::new(NEG_INF),
                    ),
                );
                part.insert(
                    below,
                    select(
                        key >= first1 && key <= last1,
                        part.extract(below),
                        f32::new(NEG_INF),
                    ),
                );
            }
            s[j] = part;
        }
    }
}

/// Writes a warp's `[16, head_dim]`, rounded, to rows `row` and `row + 8` of a sequence (as far as they exist): `word` is where
/// the unit's first pair stands in row 0 of the batch, in units of two elements, and `row_words` the distance of rows.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn store(
    out: &mut [u32],
    sums: &Array<Part>,
    row: i32,
    sequence: u32,
    length: i32,
    word: u32,
    row_words: u32,
    factor0: f32,
    factor1: f32,
    #[comptime] shape: Shape,
) {
    #[unroll]
    for half in 0..2usize {
        let place = row + comptime!(half as i32 * 8);
        let factor = if comptime!(half == 0) {
            factor0
        } else {
            factor1
        };
        if place < length {
            let at = (sequence + u32::cast_from(place)) * row_words + word;
            #[unroll]
            for j in 0..comptime!(shape.dim_parts()) {
                let part = sums[j];
                let (low, high) = (
                    part.extract(comptime!(half * 2)),
                    part.extract(comptime!(half * 2 + 1)),
                );
                out[(at + comptime!(j as u32 * 4)) as usize] =
                    pack(low * factor, high * factor, comptime!(shape.ty()));
            }
        }
    }
}

/// Turns the pairs (d, d + head_dim / 2) of a warp's rows back by their angles: the derivative of the rotation.
#[cube]
pub(super) fn turn_back(
    sums: &mut Array<Part>,
    rotary: &[f32],
    row: i32,
    length: i32,
    #[comptime] shape: Shape,
) {
    let lane = UNIT_POS % 32u32;
    // Rows beyond the end are not stored; they take the last row's angles.
    let last = max(length - 1i32, 0i32);
    let column = lane % 4u32 * 2u32;
    let at0 = u32::cast_from(min(row, last)) * comptime!(shape.head_dim) + column;
    let at1 = u32::cast_from(min(row + 8i32, last)) * comptime!(shape.head_dim) + column;
    #[unroll]
    for j in 0..comptime!(shape.dim_parts() / 2) {
        let k = comptime!(j + shape.dim_parts() / 2);
        let mut first = sums[j];
        let mut second = sums[k];
        #[unroll]
        for e in 0..4usize {
            let at = if comptime!(e < 2) { at0 } else { at1 };
            let at = at + comptime!((j * 8 + e % 2) as u32);
            let cos = rotary[at as usize];
            let sin = rotary[(at + comptime!(shape.head_dim / 2)) as usize];
            let (a, b) = (first.extract(e), second.extract(e));
            first.insert(e, a * cos + b * sin);
            second.insert(e, b * cos - a * sin);
        }
        sums[j] = first;
        sums[k] = second;
    }
}

/// Waits for the copies under way and lets all units see them.
#[cube]
pub(super) fn arrived() {
    copy_async_wait(0u32);
    sync_cube();
}

/// As [`arrived`]; where tiles are to be turned, the one at `tile` is.
#[cube]
pub(super) fn arrive(
    tile: u32,
    rotary: u64,
    first: i32,
    length: i32,
    #[comptime] rows: u32,
    #[comptime] shape: Shape,
) {
    if comptime!(shape.inside) {
        let angles = load_angles(rotary, first, length, rows, comptime!(shape.rows()));
        copy_async_wait(0u32);
        rotate_rows(
            tile,
            &angles,
            rows,
            comptime!(shape.rows()),
            comptime!(shape.ty()),
        );
    } else {
        copy_async_wait(0u32);
    }
    sync_cube();
}
