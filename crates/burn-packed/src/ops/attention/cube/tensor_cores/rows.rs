//! Rows of a head: asynchronous copies from global to shared memory, and RoPE.
//!
//! A row is copied in chunks of 16 bytes, 8 elements. RoPE rotates the pair of elements d and d + head_dim / 2, hence pairs of
//! chunks: c and c + head_dim / 16.
//!
//! Copies (`cp.async`) are double-buffered. While a block computes on one stage, its threads copy the next tiles to the other. All
//! threads of a block do both. A stage's life:
//!
//! 1. Every thread starts its copies to the stage and commits them.
//! 2. In the next iteration, [`await_tile`]: a thread waits for its own copies, applies RoPE to them where that is done here,
//!    and arrives at the block's barrier. After the barrier the tile is complete and visible to all threads.
//! 3. All threads read it. They are done with it when they arrive at the barrier of the iteration after that, which is why copies
//!    to a stage start after that barrier.

use cubecl::prelude::*;

use super::super::tile::Tile;
use super::family::Family;
use super::ptx::*;
use super::shape::{Args, Shape};

/// A tensor's rows of this block's head in global memory.
#[derive(CubeType, Clone, Copy)]
pub(in super::super) struct Rows {
    /// Address of the head in row 0 of the batch.
    pub(super) base: u64,
    /// Bytes from a row to the next.
    pub(super) pitch: u32,
}

/// Rows of queries, keys and values.
#[derive(CubeType, Clone, Copy)]
pub(super) struct HeadRows {
    pub(super) q: Rows,
    pub(super) k: Rows,
    pub(super) v: Rows,
}

#[cube]
impl HeadRows {
    /// Of queries and keys in `qk`, values in `qkv`.
    pub(super) fn of_block(
        qk: &[u32],
        qkv: &[u32],
        args: &Args,
        #[comptime] shape: Shape,
    ) -> HeadRows {
        let head = CUBE_POS_X * comptime!(shape.row_bytes());
        // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
        let q = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head);
        let k = q + u64::cast_from(args.k_offset);
        // SAFETY: as above.
        let v = global_address(unsafe { qkv.as_ptr_unchecked() })
            + u64::cast_from(args.v_offset + head);
        HeadRows {
            q: Rows {
                base: q,
                pitch: args.qk_row,
            },
            k: Rows {
                base: k,
                pitch: args.qk_row,
            },
            v: Rows {
                base: v,
                pitch: args.v_row,
            },
        }
    }
}

#[cube]
impl Rows {
    /// Of a tensor `[total, heads, head_dim]`.
    pub(super) fn of_block(tensor: &[u32], args: &Args, #[comptime] shape: Shape) -> Rows {
        let head = CUBE_POS_X * comptime!(shape.row_bytes());
        Rows {
            // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
            base: global_address(unsafe { tensor.as_ptr_unchecked() }) + u64::cast_from(head),
            pitch: args.heads * comptime!(shape.row_bytes()),
        }
    }
}

/// Row of the batch at a position of the tile's sequence and the number of its bytes to copy, 16 at a time: none outside the
/// sequence, where `cp.async` then writes zeros.
#[cube]
pub(super) fn source(tile: &Tile, position: i32) -> (u32, u32) {
    let inside = position < tile.length && position >= 0i32;
    let row = tile.sequence + select(inside, u32::cast_from(position), 0u32);
    (row, select(inside, 16u32, 0u32))
}

impl Shape {
    /// Pairs of chunks of a row.
    fn pairs(self) -> u32 {
        self.head_dim / 16
    }

    /// Pairs of chunks of each thread in `rows` rows.
    fn items(self, rows: u32) -> u32 {
        (rows * self.pairs()).div_ceil(self.threads())
    }

    /// True if the last of them may be beyond the rows.
    fn uneven(self, rows: u32) -> bool {
        !(rows * self.pairs()).is_multiple_of(self.threads())
    }
}

/// Byte offset of chunk `chunk` of row `row` in shared memory.
#[cube]
fn chunk_offset(row: u32, chunk: u32, #[comptime] shape: Shape) -> u32 {
    let column = if comptime!(shape.wgmma) {
        chunk ^ (row % 8u32)
    } else {
        chunk
    };
    row * comptime!(shape.pitch()) + column * 16u32
}

/// True if `row` is one of `rows`; known at compile time where the threads share them evenly.
#[cube]
fn exists(row: u32, #[comptime] rows: u32, #[comptime] shape: Shape) -> bool {
    if comptime!(shape.uneven(rows)) {
        row < rows
    } else {
        true.runtime()
    }
}

/// Starts the copy of `count` rows, from position `first` of the tile's sequence on, to `shared`: each thread the pairs of chunks
/// to which it applies RoPE in [`apply_rope_to_tile`].
#[cube]
pub(super) fn copy_pairs(
    rows: &Rows,
    tile: &Tile,
    first: i32,
    shared: u32,
    #[comptime] count: u32,
    #[comptime] shape: Shape,
) {
    let pairs = comptime!(shape.pairs());
    #[unroll]
    for i in 0..comptime!(shape.items(count)) {
        let item = UNIT_POS + comptime!(i * shape.threads());
        let row = item / pairs;
        let chunk = item % pairs;
        let (packed_row, bytes) = source(tile, first + i32::cast_from(row));
        let from = rows.base
            + u64::cast_from(packed_row) * u64::cast_from(rows.pitch)
            + u64::cast_from(chunk * 16u32);
        if exists(row, count, shape) {
            copy_async_16(shared + chunk_offset(row, chunk, shape), from, bytes);
            copy_async_16(
                shared + chunk_offset(row, chunk + pairs, shape),
                from + u64::cast_from(comptime!(pairs * 16)),
                bytes,
            );
        }
    }
}

/// Starts the copy of a stage: tiles of two tensors from position `first` on, the first with RoPE to follow if `rope`.
#[cube]
pub(super) fn copy_stage<F: Family>(
    a: &Rows,
    b: &Rows,
    tile: &Tile,
    first: i32,
    stage: u32,
    #[comptime] rope: bool,
    #[comptime] shape: Shape,
) {
    F::copy(a, tile, first, stage, shape.keys, rope, shape);
    let second = stage + comptime!(shape.tile_bytes());
    F::copy(b, tile, first, second, shape.keys, false, shape);
}

/// Cosines and sines for this thread's chunks of a tile, four vectors to a pair of chunks.
#[cube]
fn load_angles(
    rotary: u64,
    tile: &Tile,
    first: i32,
    #[comptime] count: u32,
    #[comptime] shape: Shape,
) -> Sequence<Vector<f32, Const<4>>> {
    let pairs = comptime!(shape.pairs());
    let mut angles = Sequence::<Vector<f32, Const<4>>>::new();
    #[unroll]
    for i in 0..comptime!(shape.items(count)) {
        let item = UNIT_POS + comptime!(i * shape.threads());
        // Rows outside the sequence are zeros, which no angle changes.
        let position = tile.clamped(first + i32::cast_from(item / pairs));
        let at = rotary
            + u64::cast_from(position * comptime!(shape.head_dim * 4) + item % pairs * 32u32);
        let sines = at + u64::cast_from(comptime!(shape.head_dim * 2));
        angles.push(load_global_floats(at));
        angles.push(load_global_floats(at + 16u64));
        angles.push(load_global_floats(sines));
        angles.push(load_global_floats(sines + 16u64));
    }
    angles
}

/// Waits for this thread's copies of a tile and applies RoPE to them in shared memory. Needs no barrier before it, since a thread
/// changes the chunks that it copied; other threads see the tile after a barrier.
#[cube]
pub(super) fn apply_rope_to_tile(
    shared: u32,
    rotary: u64,
    tile: &Tile,
    first: i32,
    #[comptime] count: u32,
    #[comptime] shape: Shape,
) {
    let ty = comptime!(shape.ty());
    let pairs = comptime!(shape.pairs());
    // The loads of angles overlap with the copies.
    let angles = load_angles(rotary, tile, first, count, shape);
    copy_async_wait(0u32);
    #[unroll]
    for i in 0..comptime!(shape.items(count) as usize) {
        let item = UNIT_POS + comptime!(i as u32 * shape.threads());
        let row = item / pairs;
        let chunk = item % pairs;
        if exists(row, count, shape) {
            let low = shared + chunk_offset(row, chunk, shape);
            let high = shared + chunk_offset(row, chunk + pairs, shape);
            let (first, second) = apply_rope(
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

/// Completes a tile at `shared`, step 2 of a stage's life (see the module documentation).
#[cube]
pub(super) fn await_tile(
    shared: u32,
    rotary: u64,
    tile: &Tile,
    first: i32,
    #[comptime] count: u32,
    #[comptime] rope: bool,
    #[comptime] shape: Shape,
) {
    if comptime!(rope) {
        apply_rope_to_tile(shared, rotary, tile, first, count, shape);
    } else {
        copy_async_wait(0u32);
    }
    if comptime!(shape.wgmma) {
        fence_async_proxy();
    }
    sync_cube();
}

/// Two chunks of a row, of the first half of a head and of the second, with RoPE applied: by the angles whose cosines and sines
/// are given, each in two vectors of four.
#[allow(clippy::too_many_arguments)] // a chunk is eight elements, a vector four
#[cube]
pub(super) fn apply_rope(
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
