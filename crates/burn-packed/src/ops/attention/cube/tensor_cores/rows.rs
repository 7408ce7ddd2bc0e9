//! Rows of a head: asynchronous copies from global to shared memory, and RoPE.
//!
//! A row is copied in chunks of 16 bytes, 8 elements. RoPE rotates the pair of elements d and d + head_dim / 2, hence pairs of
//! chunks: c and c + head_dim / 16.
//!
//! Copies (`cp.async`) are double-buffered. While a block computes on one stage, its threads copy the next tiles to the other. All
//! threads of a block do both. A stage's life:
//!
//! 1. Every thread starts its copies to the stage and commits them.
//! 2. In the next iteration, [`await_copies`] or [`HeadRows::await_tile`]: a thread waits for its own copies, applies RoPE to the copied chunks if
//!    `config.rope_inside`, and arrives at the block's barrier. After the barrier the tile is complete and visible to all threads.
//! 3. All threads read the tile. They have finished reading when they arrive at the barrier of the following iteration, which is why copies
//!    to a stage start after that barrier.

use cubecl::prelude::*;

use super::super::tile::AttentionTile;
use super::config::{Args, KernelConfig};
use super::family::Family;
use crate::ops::ptx::*;

/// Rows of a head of a sequence, in a tensor in global memory.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in super::super) struct HeadRows {
    /// Address of the head in row 0 of the batch.
    pub(super) base: u64,
    /// Bytes from a row to the next.
    pub(super) pitch: u32,
    /// The block's tile of the sequence.
    pub(super) tile: AttentionTile,
    #[cube(comptime)]
    pub(super) config: KernelConfig,
}

/// Rows of queries, keys and values.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct QkvRows {
    pub(super) q: HeadRows,
    pub(super) k: HeadRows,
    pub(super) v: HeadRows,
}

#[cube]
impl QkvRows {
    /// Returns the rows of head `head`: queries and keys in the buffer at `qk`, values in the buffer at `qkv`.
    pub(super) fn new(
        qk: u64,
        qkv: u64,
        tile: AttentionTile,
        head: u32,
        args: Args,
        #[comptime] config: KernelConfig,
    ) -> QkvRows {
        let head = head * comptime!(config.row_bytes());
        let q = qk + u64::cast_from(head);
        let k = q + u64::cast_from(args.k_offset);
        let v = qkv + u64::cast_from(args.v_offset + head);
        QkvRows {
            q: HeadRows::new(q, args.qk_row, tile, config),
            k: HeadRows::new(k, args.qk_row, tile, config),
            v: HeadRows::new(v, args.v_row, tile, config),
        }
    }
}

#[cube]
impl HeadRows {
    fn new(
        base: u64,
        pitch: u32,
        tile: AttentionTile,
        #[comptime] config: KernelConfig,
    ) -> HeadRows {
        HeadRows {
            base,
            pitch,
            tile,
            config,
        }
    }

    /// Returns the rows of head `head` of the buffer at `tensor`, `[total, heads, head_dim]`.
    pub(super) fn of_heads(
        tensor: u64,
        tile: AttentionTile,
        head: u32,
        args: Args,
        #[comptime] config: KernelConfig,
    ) -> HeadRows {
        let base = tensor + u64::cast_from(head * comptime!(config.row_bytes()));
        let pitch = args.heads * comptime!(config.row_bytes());
        HeadRows::new(base, pitch, tile, config)
    }

    /// Bytes from row 0 of the batch to row `row`.
    pub(super) fn offset(&self, row: u32) -> u64 {
        u64::cast_from(row) * u64::cast_from(self.pitch)
    }

    /// Returns the row of the batch at a position of the sequence, and the bytes that a copy of 16 bytes reads: 16, or 0 outside the sequence,
    /// where `cp.async` writes zeros.
    pub(super) fn source(&self, position: i32) -> (u32, u32) {
        // A call as an operand of `&&` would be short-circuited, which CubeCL compiles to a branch.
        let before_end = self.tile.has(position);
        let inside = before_end && position >= 0i32;
        let row = self.tile.sequence + select(inside, u32::cast_from(position), 0u32);
        (row, select(inside, 16u32, 0u32))
    }
}

/// Starts the copy of a position's f32 to `shared`; `from` is the address of the f32 of the sequence's first row. Writes zero beyond the end of the
/// sequence.
#[cube]
pub(super) fn copy_number(from: u64, tile: AttentionTile, position: i32, shared: u32) {
    let inside = tile.has(position);
    let offset = u64::cast_from(select(inside, u32::cast_from(position), 0u32) * 4u32);
    copy_async_4(shared, from + offset, select(inside, 4u32, 0u32));
}

impl KernelConfig {
    /// Pairs of chunks of a row.
    fn pairs(self) -> u32 {
        self.head_dim / 16
    }

    /// Pairs of chunks of each thread in `rows` rows.
    fn items(self, rows: u32) -> u32 {
        (rows * self.pairs()).div_ceil(self.threads())
    }

    /// True if the last of a thread's pairs may be beyond the rows.
    fn uneven(self, rows: u32) -> bool {
        !(rows * self.pairs()).is_multiple_of(self.threads())
    }
}

/// Byte offset of chunk `chunk` of row `row` in shared memory.
#[cube]
fn chunk_offset(row: u32, chunk: u32, #[comptime] config: KernelConfig) -> u32 {
    let column = if comptime!(config.wgmma) {
        chunk ^ (row % 8u32)
    } else {
        chunk
    };
    row * comptime!(config.pitch()) + column * 16u32
}

/// True if `row` is one of `rows`; known at compile time where the threads share them evenly.
#[cube]
fn exists(row: u32, #[comptime] rows: u32, #[comptime] config: KernelConfig) -> bool {
    if comptime!(config.uneven(rows)) {
        row < rows
    } else {
        true.runtime()
    }
}

/// Starts the copy of `count` rows, from position `first` of the sequence on, to `shared`: each thread the pairs of chunks to which
/// it applies RoPE in [`HeadRows::apply_rope`].
#[cube]
pub(super) fn copy_pairs(rows: &HeadRows, first: i32, shared: u32, #[comptime] count: u32) {
    let config = comptime!(rows.config);
    let pairs = comptime!(config.pairs());
    #[unroll]
    for i in 0..comptime!(config.items(count)) {
        let item = UNIT_POS + comptime!(i * config.threads());
        let row = item / pairs;
        let chunk = item % pairs;
        let (packed_row, bytes) = rows.source(first + i32::cast_from(row));
        let from = rows.base + rows.offset(packed_row) + u64::cast_from(chunk * 16u32);
        if exists(row, count, config) {
            let low = shared + chunk_offset(row, chunk, config);
            copy_async_16(low, from, bytes);
            let high = shared + chunk_offset(row, chunk + pairs, config);
            copy_async_16(high, from + u64::cast_from(comptime!(pairs * 16)), bytes);
        }
    }
}

/// The tiles of two tensors that a block streams through two stages of shared memory, one tile of each to a stage.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct TileStream {
    first: HeadRows,
    second: HeadRows,
    /// Position of the first tile.
    pub(super) start: i32,
    /// Tiles of a tensor.
    pub(super) steps: i32,
    /// Address of stage 0 in shared memory.
    stages: u32,
}

#[cube]
impl TileStream {
    /// The tiles with rows that the block's own rows see.
    pub(super) fn new(first: HeadRows, second: HeadRows, stages: u32) -> TileStream {
        let keys = comptime!(first.config.keys as i32);
        let span = first.tile.visible_to_any(comptime!(first.config.rows));
        TileStream {
            first,
            second,
            start: span.first,
            steps: (span.last - span.first + keys) / keys,
            stages,
        }
    }

    /// Position of the tiles of a step.
    pub(super) fn position(&self, step: i32) -> i32 {
        self.start + step * comptime!(self.first.config.keys as i32)
    }

    /// Address of stage 0 or 1. The second tile of a stage is `config.tile_bytes()` after the first.
    pub(super) fn stage(&self, stage: u32) -> u32 {
        self.stages + stage * comptime!(self.first.config.stage_bytes())
    }

    /// Starts the copy of the tiles at `position` to a stage. With `rope`, RoPE will be applied to the first tile.
    pub(super) fn copy<F: Family>(&self, position: i32, stage: u32, #[comptime] rope: bool) {
        let config = comptime!(self.first.config);
        F::copy(&self.first, position, stage, config.keys, rope);
        let second = stage + comptime!(config.tile_bytes());
        F::copy(&self.second, position, second, config.keys, false);
    }
}

/// RoPE of tiles in shared memory.
#[cube]
impl HeadRows {
    /// Cosines and sines for this thread's chunks of a tile, four vectors to a pair of chunks, from the table at `rotary`.
    fn angles(
        &self,
        rotary: u64,
        first: i32,
        #[comptime] count: u32,
    ) -> Sequence<Vector<f32, Const<4>>> {
        let config = comptime!(self.config);
        let pairs = comptime!(config.pairs());
        let mut angles = Sequence::<Vector<f32, Const<4>>>::new();
        #[unroll]
        for i in 0..comptime!(config.items(count)) {
            let item = UNIT_POS + comptime!(i * config.threads());
            // Rows outside the sequence are zeros, which no angle changes.
            let position = self.tile.clamped(first + i32::cast_from(item / pairs));
            let offset = position * comptime!(config.head_dim * 4) + item % pairs * 32u32;
            let cosines = rotary + u64::cast_from(offset);
            let sines = cosines + u64::cast_from(comptime!(config.head_dim * 2));
            angles.push(load_global_floats(cosines));
            angles.push(load_global_floats(cosines + 16u64));
            angles.push(load_global_floats(sines));
            angles.push(load_global_floats(sines + 16u64));
        }
        angles
    }

    /// Waits for this thread's copies of `count` rows from position `first` on and applies RoPE to them. Needs no barrier before it,
    /// since a thread changes the chunks that it copied; other threads see the tile after a barrier.
    pub(super) fn apply_rope(&self, rotary: u64, shared: u32, first: i32, #[comptime] count: u32) {
        let config = comptime!(self.config);
        let pairs = comptime!(config.pairs());
        // The loads of angles overlap with the copies.
        let angles = self.angles(rotary, first, count);
        copy_async_wait(0u32);
        #[unroll]
        for i in 0..comptime!(config.items(count) as usize) {
            let item = UNIT_POS + comptime!(i as u32 * config.threads());
            let row = item / pairs;
            let chunk = item % pairs;
            if exists(row, count, config) {
                let low = shared + chunk_offset(row, chunk, config);
                let high = shared + chunk_offset(row, chunk + pairs, config);
                let (first, second) = apply_rope(
                    load_shared_16(low),
                    load_shared_16(high),
                    *angles.index(comptime!(i * 4)),
                    *angles.index(comptime!(i * 4 + 1)),
                    *angles.index(comptime!(i * 4 + 2)),
                    *angles.index(comptime!(i * 4 + 3)),
                    comptime!(config.ty()),
                );
                store_shared_16(low, first);
                store_shared_16(high, second);
            }
        }
    }

    /// Completes `count` rows at `shared`, from position `first` on, as [`await_copies`], and applies RoPE if `config.rope_inside`.
    pub(super) fn await_tile(&self, rotary: u64, shared: u32, first: i32, #[comptime] count: u32) {
        if comptime!(self.config.rope_inside) {
            self.apply_rope(rotary, shared, first, count);
        } else {
            copy_async_wait(0u32);
        }
        complete(self.config);
    }
}

/// Completes the tiles of a stage to which no RoPE is applied, step 2 of a stage's life (see the module documentation).
#[cube]
pub(super) fn await_copies(#[comptime] config: KernelConfig) {
    copy_async_wait(0u32);
    complete(config);
}

/// Makes this thread's copies visible to WGMMA and, by the barrier, the whole tile to all threads.
#[cube]
fn complete(#[comptime] config: KernelConfig) {
    if comptime!(config.wgmma) {
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
