//! The parts of the portable kernels: loads of rows into shared memory, scores, weighted sums, stores.
//!
//! A block computes a tile of `tile` rows. Its threads form a grid of `tile / 4` by 16; a thread holds 4 rows of the tile, and every
//! 16th column of each:
//!
//! ```text
//!                columns 0   1  …  15   16  17 …
//! rows  0 to 3   thread  0   1  …  15    0   1 …
//! rows  4 to 7   thread 16  17  …  31   16  17 …
//! …
//! ```
//!
//! Neighboring threads thus access neighboring columns. Rows are loaded into a staging buffer in shared memory a few dimensions at a
//! time, so that the buffer has the same size for every head size. Half of the dimensions loaded together are of the first half of a
//! head and half are at the same offsets in the second half: these are the pairs that RoPE rotates. Each half is padded with zeros to
//! a multiple of 8, so that any head size is possible.

use cubecl::prelude::*;

use super::super::tile::{AttentionTile, K, Q, VisibleRange};

/// Rows of a tile that a thread holds.
pub(super) const ROWS: usize = 4;
/// Threads that share a row.
pub(super) const LANES: usize = 16;
/// Dimensions of two operands loaded at a time for scores.
const DOT: usize = 16;
/// Dimensions of one operand loaded at a time for a sum over rows.
const SUM: usize = 32;
/// The score of a hidden key; finite, so that nothing computes `inf - inf`.
pub(super) const HIDDEN: f32 = -3.0e38;

/// Compile-time configuration of a kernel. Lengths, windows and the number of heads are launch arguments, so that new values compile
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct KernelConfig {
    /// Rows of a tile of queries and of a tile of keys: a multiple of 16.
    pub(in super::super) tile: usize,
    /// Size of a head.
    pub(in super::super) head_dim: usize,
    /// True if RoPE is applied to q and k.
    pub(in super::super) rope: bool,
    /// True if scores have a softcap.
    pub(in super::super) softcap: bool,
}

/// Launch arguments besides tensors.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in super::super) struct Args {
    /// Number of heads.
    pub(in super::super) heads: usize,
    /// Tokens of the batch.
    pub(in super::super) total: usize,
    /// Rows visible on each side, inclusive; at most the longest sequence.
    pub(in super::super) half_window: i32,
    /// Factor on the scores.
    pub(in super::super) scale: f32,
    /// Bound on the scores; 1 without softcap.
    pub(in super::super) softcap: f32,
}

impl KernelConfig {
    /// Threads of a block.
    pub(in super::super) fn threads(self) -> usize {
        self.tile / ROWS * LANES
    }

    /// Columns of a tile of scores that a thread holds of each of its rows.
    pub(super) fn columns(self) -> usize {
        self.tile / LANES
    }

    /// Dimensions of the first half of a head; the second half has one fewer where the size is odd.
    fn half(self) -> usize {
        self.head_dim.div_ceil(2)
    }

    /// Dimensions of a head with both halves padded: a multiple of 16.
    fn padded(self) -> usize {
        self.half().next_multiple_of(LANES / 2) * 2
    }

    /// Dimensions that a thread holds of each of its rows.
    pub(super) fn dims(self) -> usize {
        self.padded() / LANES
    }

    /// Elements of the staging buffer for rows; a column of padding puts neighboring rows in different banks.
    pub(super) fn stage(self) -> usize {
        (2 * self.tile * (DOT + 1)).max(self.tile * (SUM + 1))
    }

    /// Elements of the shared memory for a tile of weights.
    pub(super) fn weights(self) -> usize {
        self.tile * (self.tile + 1)
    }

    /// Elements of the shared memory for maxima and sums of rows, one per thread and row.
    pub(super) fn row_partials(self) -> usize {
        self.tile * (LANES + 1)
    }

    /// Bytes of shared memory of the kernel that needs the most.
    pub(super) fn shared_bytes(self) -> usize {
        4 * (self.stage() + self.weights() + self.row_partials())
    }
}

/// The tile of rows of a block, and the arguments on which the scores depend.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct BlockTile {
    pub(super) tile: AttentionTile,
    args: Args,
    #[cube(comptime)]
    config: KernelConfig,
}

/// The shared memory of the kernels.
#[derive(CubeType)]
pub(super) struct SharedMemory<'a> {
    /// Staging buffer: some dimensions of the rows that are loaded from global memory, or of the results before they are written.
    stage: Shared<[f32]>,
    /// Weights of a tile.
    weights: Shared<[f32]>,
    /// The rotary table, in global memory.
    rotary: &'a [f32],
    #[cube(comptime)]
    config: KernelConfig,
}

/// Rows of a tile of a tensor.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct TileRows {
    /// Index of element 0 of the head in the first row.
    start: usize,
    /// Elements from a row to the next.
    stride: usize,
    /// Rows inside the sequence; the other rows of the tile are read as zeros.
    pub(super) count: usize,
    /// Position of the first row in its sequence.
    position: usize,
    /// True if the rows are queries or keys to which RoPE is applied.
    #[cube(comptime)]
    rope: bool,
}

#[cube]
impl BlockTile {
    pub(super) fn new(tiles: &[u32], args: Args, #[comptime] config: KernelConfig) -> BlockTile {
        BlockTile {
            tile: AttentionTile::of_block(tiles, args.half_window),
            args,
            config,
        }
    }

    /// Returns the rows from position `first` of the sequence on, of projection `of.0` of a tensor `[total, of.1, heads, head_dim]`.
    pub(super) fn rows(&self, first: i32, #[comptime] of: (usize, usize)) -> TileRows {
        let config = comptime!(self.config);
        let width = self.args.heads * comptime!(config.head_dim);
        let position = usize::cast_from(first);
        let row = self.tile.sequence as usize + position;
        TileRows {
            start: (row * comptime!(of.1) + comptime!(of.0)) * width
                + CUBE_POS_X as usize * comptime!(config.head_dim),
            stride: width * comptime!(of.1),
            count: min(usize::cast_from(self.tile.length - first), config.tile),
            position,
            rope: comptime!(config.rope && (of == Q || of == K)),
        }
    }

    /// Returns the positions of the first and the last streamed row. Streamed tiles start at multiples of the tile's size from the start of
    /// the sequence, so that results are batch-invariant.
    pub(super) fn streamed(&self) -> VisibleRange {
        let size = comptime!(self.config.tile as i32);
        let span = self.tile.visible_to_any(comptime!(self.config.tile as u32));
        VisibleRange {
            first: span.first / size * size,
            last: span.last,
        }
    }

    /// Returns the positions that this thread's row `r` sees.
    pub(super) fn seen(&self, r: usize) -> VisibleRange {
        self.tile
            .visible(self.tile.first + i32::cast_from(own_row() + r))
    }

    /// Returns the index of a position in a tensor `[heads, total]`.
    pub(super) fn index(&self, position: usize) -> usize {
        CUBE_POS_X as usize * self.args.total + self.tile.sequence as usize + position
    }

    /// Returns the score of a query and a key from the dot product of their rows, and the derivative of the softcap at that score.
    pub(super) fn bounded(&self, product: f32) -> (f32, f32) {
        let mut score = product * self.args.scale;
        let mut slope = 1.0f32;
        if comptime!(self.config.softcap) {
            let bound = tanh(score / self.args.softcap);
            score = bound * self.args.softcap;
            slope = 1.0f32 - bound * bound;
        }
        (score, slope)
    }
}

/// Returns the first row of the tile that this thread holds.
#[cube]
pub(super) fn own_row() -> usize {
    UNIT_POS as usize / LANES * ROWS
}

/// Returns the first column that this thread holds.
#[cube]
pub(super) fn own_column() -> usize {
    UNIT_POS as usize % LANES
}

/// Returns `length` zeros in registers.
#[cube]
pub(super) fn zeros(#[comptime] length: usize) -> Array<f32> {
    let mut zeros = Array::<f32>::new(length);
    #[unroll]
    for i in 0..length {
        zeros[i] = 0.0f32;
    }
    zeros
}

/// Returns whether dimension `d` of a half of `size` dimensions exists; a compile-time constant where halves have no padding.
#[cube]
fn in_half(d: usize, #[comptime] size: usize, #[comptime] config: KernelConfig) -> bool {
    if comptime!(config.padded() == config.head_dim) {
        true.runtime()
    } else {
        d < size
    }
}

#[cube]
impl<'a> SharedMemory<'a> {
    pub(super) fn new(rotary: &'a [f32], #[comptime] config: KernelConfig) -> SharedMemory<'a> {
        SharedMemory::<'a> {
            stage: Shared::<[f32]>::new_slice(config.stage()),
            weights: Shared::<[f32]>::new_slice(config.weights()),
            rotary,
            config,
        }
    }

    /// Sets the weight of this thread's row `r` and column `c`.
    pub(super) fn set_weight(&mut self, #[comptime] r: usize, #[comptime] c: usize, weight: f32) {
        let row = (own_row() + r) * comptime!(self.config.tile + 1);
        self.weights[row + own_column() + comptime!(c * LANES)] = weight;
    }

    /// Applies RoPE at `position` to element `d` of the first half of a head and its pair in the second half; the transpose if
    /// `transposed`.
    fn apply_rope(
        &self,
        low: f32,
        high: f32,
        position: usize,
        d: usize,
        #[comptime] transposed: bool,
    ) -> (f32, f32) {
        let angle = position * comptime!(self.config.head_dim) + d;
        let cos = self.rotary[angle];
        let sin = self.rotary[angle + comptime!(self.config.half())];
        let sin = if comptime!(transposed) { -sin } else { sin };
        (low * cos - high * sin, high * cos + low * sin)
    }

    /// Loads some dimensions of the rows into the staging buffer, with RoPE applied: those from `first` on of the first half of the head,
    /// followed by those from `first` on of the second half. `to` is (offset in the buffer, number of dimensions, distance of rows).
    fn load<F: Float>(
        &mut self,
        source: &[F],
        rows: &TileRows,
        first: usize,
        #[comptime] to: (usize, usize, usize),
    ) {
        let config = comptime!(self.config);
        let (offset, width, pitch) = comptime!(to);
        let pairs = comptime!(width / 2);
        let half = comptime!(config.half());
        #[unroll]
        for i in 0..comptime!(config.tile * pairs / config.threads()) {
            let pair = UNIT_POS as usize + comptime!(i * config.threads());
            let row = pair / pairs;
            let d = pair % pairs;
            let mut low = 0.0f32;
            let mut high = 0.0f32;
            if row < rows.count && in_half(first + d, half, config) {
                let at = rows.start + row * rows.stride + first + d;
                low = f32::cast_from(source[at]);
                if in_half(
                    first + d,
                    comptime!(config.head_dim - config.half()),
                    config,
                ) {
                    high = f32::cast_from(source[at + half]);
                }
                if comptime!(rows.rope) {
                    let position = rows.position + row;
                    let (a, b) = self.apply_rope(low, high, position, first + d, false);
                    low = a;
                    high = b;
                }
            }
            let place = row * pitch + d + offset;
            self.stage[place] = low;
            self.stage[place + pairs] = high;
        }
    }

    /// Returns this thread's elements of `a · bᵀ`, summed over the dimensions of a head: its 4 rows of `a` by its columns, which are rows of
    /// `b`.
    pub(super) fn scores<F: Float>(
        &mut self,
        a: &[F],
        a_rows: &TileRows,
        b: &[F],
        b_rows: &TileRows,
    ) -> Array<f32> {
        let config = comptime!(self.config);
        let columns = comptime!(config.columns());
        let pitch = comptime!(DOT + 1);
        let second = comptime!(config.tile * (DOT + 1));
        let row = own_row();
        let lane = own_column();
        let mut block = zeros(comptime!(ROWS * columns));
        let mut first = 0usize;
        while first < comptime!(config.padded() / 2) {
            self.load::<F>(a, a_rows, first, comptime!((0usize, DOT, pitch)));
            self.load::<F>(b, b_rows, first, comptime!((second, DOT, pitch)));
            // Both operands' dimensions are in the staging buffer.
            sync_cube();
            for k in 0..DOT {
                let mut left = Array::<f32>::new(ROWS);
                #[unroll]
                for r in 0..ROWS {
                    left[r] = self.stage[(row + r) * pitch + k];
                }
                #[unroll]
                for c in 0..columns {
                    let right = self.stage[(lane + comptime!(c * LANES)) * pitch + k + second];
                    #[unroll]
                    for r in 0..ROWS {
                        block[comptime!(r * columns + c)] += left[r] * right;
                    }
                }
            }
            // All threads have read the staging buffer, which the next iteration overwrites.
            sync_cube();
            first += comptime!(DOT / 2);
        }
        block
    }

    /// `sums += weights · b`: this thread's 4 rows of the weights by its dimensions. Callers need no barrier after
    /// [`Self::set_weight`]: the barrier after the load also makes the weights of all threads visible.
    pub(super) fn accumulate<F: Float>(
        &mut self,
        sums: &mut Array<f32>,
        b: &[F],
        b_rows: &TileRows,
    ) {
        let config = comptime!(self.config);
        let dims = comptime!(config.dims());
        let pitch = comptime!(SUM + 1);
        let row = own_row();
        let lane = own_column();
        #[unroll]
        for part in 0..comptime!(config.padded().div_ceil(SUM)) {
            let width = comptime!((config.padded() - part * SUM).min(SUM));
            let first = comptime!(part * SUM / 2).runtime();
            self.load::<F>(b, b_rows, first, comptime!((0usize, width, pitch)));
            sync_cube();
            for k in 0..b_rows.count {
                let mut left = Array::<f32>::new(ROWS);
                #[unroll]
                for r in 0..ROWS {
                    left[r] = self.weights[(row + r) * comptime!(config.tile + 1) + k];
                }
                #[unroll]
                for c in 0..comptime!(width / LANES) {
                    let right = self.stage[k * pitch + lane + comptime!(c * LANES)];
                    #[unroll]
                    for r in 0..ROWS {
                        sums[comptime!(r * dims + part * SUM / LANES + c)] += left[r] * right;
                    }
                }
            }
            // All threads have read the staging buffer, which the next iteration overwrites.
            sync_cube();
        }
    }

    /// Writes the rows of a block's results `[tile, head_dim]` that are inside the sequence, rounded to `F`. Results for queries or keys are
    /// gradients of the rows after RoPE; applying the transpose of RoPE makes them gradients of the rows before it.
    pub(super) fn store<F: Float>(&mut self, target: &mut [F], sums: &Array<f32>, rows: &TileRows) {
        let config = comptime!(self.config);
        let dims = comptime!(config.dims());
        let pitch = comptime!(SUM + 1);
        let half = comptime!(config.half());
        #[unroll]
        for part in 0..comptime!(config.padded().div_ceil(SUM)) {
            let width = comptime!((config.padded() - part * SUM).min(SUM));
            let pairs = comptime!(width / 2);
            #[unroll]
            for c in 0..comptime!(width / LANES) {
                #[unroll]
                for r in 0..ROWS {
                    self.stage[(own_row() + r) * pitch + own_column() + comptime!(c * LANES)] =
                        sums[comptime!(r * dims + part * SUM / LANES + c)];
                }
            }
            sync_cube();
            #[unroll]
            for i in 0..comptime!(config.tile * pairs / config.threads()) {
                let pair = UNIT_POS as usize + comptime!(i * config.threads());
                let row = pair / pairs;
                let d = pair % pairs;
                let dim = d + comptime!(part * SUM / 2);
                if row < rows.count && in_half(dim, half, config) {
                    let mut low = self.stage[row * pitch + d];
                    let mut high = self.stage[row * pitch + d + pairs];
                    if comptime!(rows.rope) {
                        let position = rows.position + row;
                        let (a, b) = self.apply_rope(low, high, position, dim, true);
                        low = a;
                        high = b;
                    }
                    let at = rows.start + row * rows.stride + dim;
                    target[at] = F::cast_from(low);
                    if in_half(dim, comptime!(config.head_dim - config.half()), config) {
                        target[at + half] = F::cast_from(high);
                    }
                }
            }
            sync_cube();
        }
    }
}

/// Hyperbolic tangent accurate to f32 rounding; that of some drivers has only three correct digits.
#[cube]
fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    // Taylor series, for x near 0 where the quotient below loses digits by cancellation.
    let near = size
        * (1.0f32
            + square
                * (-0.333_333_34f32
                    + square
                        * (0.133_333_34f32
                            + square
                                * (-0.053_968_254f32
                                    + square * (0.021_869_488f32 + square * -0.008_863_236f32)))));
    let e = (-2.0f32 * size).exp();
    let far = (1.0f32 - e) / (1.0f32 + e);
    let positive = select(size < 0.35f32, near, far);
    select(x < 0.0f32, -positive, positive)
}
