//! What the portable kernels are made of: parts of rows in shared memory, products of two of them, sums over weights.
//!
//! A cube works on a tile of `tile` rows. Its units stand in a grid of `tile / 4` by 16: a unit holds 4 rows of the tile,
//! and of each of them every 16th column. Neighbouring units then read neighbouring columns, of shared memory and of the
//! device's. Rows pass through shared memory a few dimensions at a time, so that a kernel needs the same little of it for
//! every head size. The dimensions loaded together are always as many of the first half of a head as of the second, in
//! the same places: the pairs that a rotation turns. Each half counts as filled up with zeros to a multiple of 8, which
//! lets a kernel serve any head size.

use cubecl::prelude::*;

/// Rows of a tile that a unit holds.
pub(super) const ROWS: usize = 4;
/// Units that share a row.
pub(super) const LANES: usize = 16;
/// Dimensions of two operands loaded at a time for a product over dimensions.
const DOT: usize = 16;
/// Dimensions of one operand loaded at a time for a sum over rows.
const SUM: usize = 32;
/// Stands for the score of a key that is not visible; finite, so that nothing ever computes `inf - inf`.
pub(super) const HIDDEN: f32 = -3.0e38;

/// What a kernel is compiled for. Lengths, windows and the number of heads are arguments: they never recompile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Rows of a tile, of queries as of keys: a multiple of 16.
    pub(super) tile: usize,
    /// Size of a head.
    pub(super) head_dim: usize,
    /// Whether q and k are rotated.
    pub(super) rotary: bool,
    /// Whether scores are softly bounded.
    pub(super) softcap: bool,
}

impl Shape {
    /// Units of a cube.
    pub(super) fn units(self) -> usize {
        self.tile / ROWS * LANES
    }

    /// Columns of a tile of scores that a unit holds of each of its rows.
    pub(super) fn columns(self) -> usize {
        self.tile / LANES
    }

    /// Dimensions of the first half of a head; the second half has one fewer where the size is odd.
    fn half(self) -> usize {
        self.head_dim.div_ceil(2)
    }

    /// Dimensions of a head with both halves filled up: a multiple of 16.
    fn padded(self) -> usize {
        self.half().next_multiple_of(LANES / 2) * 2
    }

    /// Whether both halves are full.
    fn full(self) -> bool {
        self.padded() == self.head_dim
    }

    /// Dimensions that a unit holds of each of its rows.
    pub(super) fn dims(self) -> usize {
        self.padded() / LANES
    }

    /// Elements of the shared memory that rows pass through; a column of padding keeps units out of each other's banks.
    pub(super) fn stage(self) -> usize {
        (2 * self.tile * (DOT + 1)).max(self.tile * (SUM + 1))
    }

    /// Elements of the shared memory that holds a tile of weights.
    pub(super) fn weights(self) -> usize {
        self.tile * (self.tile + 1)
    }

    /// Elements of the shared memory through which the units of a row agree.
    pub(super) fn row_partials(self) -> usize {
        self.tile * (LANES + 1)
    }

    /// Bytes of shared memory that the hungriest kernel takes.
    pub(super) fn shared_bytes(self) -> usize {
        4 * (self.stage() + self.weights() + self.row_partials())
    }
}

/// Where the rows of a tile are in a buffer.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    /// Element 0 of the head in the tile's first row.
    pub(super) start: usize,
    /// Elements from a row to the next.
    pub(super) stride: usize,
    /// Rows that exist; the rest of the tile counts as zeros.
    pub(super) count: usize,
    /// Position of the first row in its sequence.
    pub(super) position: usize,
}

/// Puts `width` dimensions of the rows into `stage[offset..]`, rotated if asked for: those from `first` of the first half
/// of the head, and those from `first` of the second half behind them.
#[cube]
fn load<F: Float>(
    source: &[F],
    rotary: &[f32],
    stage: &mut Shared<[f32]>,
    rows: &Rows,
    first: usize,
    #[comptime] offset: usize,
    #[comptime] width: usize,
    #[comptime] pitch: usize,
    #[comptime] rotate: bool,
    #[comptime] shape: Shape,
) {
    let pairs = comptime!(width / 2);
    let half = comptime!(shape.half());
    #[unroll]
    for i in 0..comptime!(shape.tile * pairs / shape.units()) {
        let pair = UNIT_POS as usize + comptime!(i * shape.units());
        let row = pair / pairs;
        let d = pair % pairs;
        let mut low = 0.0f32;
        let mut high = 0.0f32;
        if row < rows.count && in_half(first + d, half, shape) {
            let at = rows.start + row * rows.stride + first + d;
            low = f32::cast_from(source[at]);
            if in_half(first + d, comptime!(shape.head_dim - shape.half()), shape) {
                high = f32::cast_from(source[at + half]);
            }
            if comptime!(rotate) {
                let angle = (rows.position + row) * comptime!(shape.head_dim) + first + d;
                let cos = rotary[angle];
                let sin = rotary[angle + half];
                let turned = low * cos - high * sin;
                high = high * cos + low * sin;
                low = turned;
            }
        }
        let place = row * pitch + d + offset;
        stage[place] = low;
        stage[place + pairs] = high;
    }
}

/// Whether dimension `d` of a half of `size` dimensions exists; known beforehand where halves are full.
#[cube]
fn in_half(d: usize, #[comptime] size: usize, #[comptime] shape: Shape) -> bool {
    if comptime!(shape.full()) {
        true.runtime()
    } else {
        d < size
    }
}

/// `block = a · bᵀ` over the dimensions of a head: each unit its 4 rows of `a` against its columns, the rows of `b`.
#[cube]
pub(super) fn product<F: Float>(
    a: &[F],
    a_rows: &Rows,
    b: &[F],
    b_rows: &Rows,
    rotary: &[f32],
    stage: &mut Shared<[f32]>,
    block: &mut Array<f32>,
    #[comptime] rotate: bool,
    #[comptime] shape: Shape,
) {
    let columns = comptime!(shape.columns());
    let pitch = comptime!(DOT + 1);
    let second = comptime!(shape.tile * (DOT + 1));
    let row = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;
    #[unroll]
    for i in 0..comptime!(ROWS * columns) {
        block[i] = 0.0f32;
    }
    let mut first = 0usize;
    while first < comptime!(shape.padded() / 2) {
        load::<F>(
            a, rotary, stage, a_rows, first, 0usize, DOT, pitch, rotate, shape,
        );
        load::<F>(
            b, rotary, stage, b_rows, first, second, DOT, pitch, rotate, shape,
        );
        sync_cube();
        for k in 0..DOT {
            let mut left = Array::<f32>::new(ROWS);
            #[unroll]
            for r in 0..ROWS {
                left[r] = stage[(row + r) * pitch + k];
            }
            #[unroll]
            for c in 0..columns {
                let right = stage[(lane + comptime!(c * LANES)) * pitch + k + second];
                #[unroll]
                for r in 0..ROWS {
                    block[comptime!(r * columns + c)] += left[r] * right;
                }
            }
        }
        sync_cube();
        first += comptime!(DOT / 2);
    }
}

/// `sums += weights · b`: each unit its 4 rows of the weights in shared memory, and its dimensions.
///
/// The weights may have been written just before: all units meet before they are read, and after.
#[cube]
pub(super) fn accumulate<F: Float>(
    b: &[F],
    b_rows: &Rows,
    rotary: &[f32],
    stage: &mut Shared<[f32]>,
    weights: &Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] rotate: bool,
    #[comptime] shape: Shape,
) {
    let dims = comptime!(shape.dims());
    let pitch = comptime!(SUM + 1);
    let weights_pitch = comptime!(shape.tile + 1);
    let row = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;
    #[unroll]
    for part in 0..comptime!(shape.padded().div_ceil(SUM)) {
        let width = comptime!((shape.padded() - part * SUM).min(SUM));
        let first = comptime!(part * SUM / 2);
        load::<F>(
            b,
            rotary,
            stage,
            b_rows,
            first.runtime(),
            0usize,
            width,
            pitch,
            rotate,
            shape,
        );
        sync_cube();
        for k in 0..b_rows.count {
            let mut left = Array::<f32>::new(ROWS);
            #[unroll]
            for r in 0..ROWS {
                left[r] = weights[(row + r) * weights_pitch + k];
            }
            #[unroll]
            for c in 0..comptime!(width / LANES) {
                let right = stage[k * pitch + lane + comptime!(c * LANES)];
                #[unroll]
                for r in 0..ROWS {
                    sums[comptime!(r * dims + part * SUM / LANES + c)] += left[r] * right;
                }
            }
        }
        sync_cube();
    }
}

/// Writes what the units hold of the tile's rows; `turn_back` undoes the rotation, which is what its gradient takes.
#[cube]
pub(super) fn store<F: Float>(
    sums: &Array<f32>,
    stage: &mut Shared<[f32]>,
    target: &mut [F],
    rows: &Rows,
    rotary: &[f32],
    #[comptime] turn_back: bool,
    #[comptime] shape: Shape,
) {
    let dims = comptime!(shape.dims());
    let pitch = comptime!(SUM + 1);
    let half = comptime!(shape.half());
    let own = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;
    #[unroll]
    for part in 0..comptime!(shape.padded().div_ceil(SUM)) {
        let width = comptime!((shape.padded() - part * SUM).min(SUM));
        let pairs = comptime!(width / 2);
        #[unroll]
        for c in 0..comptime!(width / LANES) {
            #[unroll]
            for r in 0..ROWS {
                stage[(own + r) * pitch + lane + comptime!(c * LANES)] =
                    sums[comptime!(r * dims + part * SUM / LANES + c)];
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(shape.tile * pairs / shape.units()) {
            let pair = UNIT_POS as usize + comptime!(i * shape.units());
            let row = pair / pairs;
            let d = pair % pairs;
            let dim = d + comptime!(part * SUM / 2);
            if row < rows.count && in_half(dim, half, shape) {
                let mut low = stage[row * pitch + d];
                let mut high = stage[row * pitch + d + pairs];
                if comptime!(turn_back) {
                    let angle = (rows.position + row) * comptime!(shape.head_dim) + dim;
                    let cos = rotary[angle];
                    let sin = rotary[angle + half];
                    let turned = low * cos + high * sin;
                    high = high * cos - low * sin;
                    low = turned;
                }
                let at = rows.start + row * rows.stride + dim;
                target[at] = F::cast_from(low);
                if in_half(dim, comptime!(shape.head_dim - shape.half()), shape) {
                    target[at + half] = F::cast_from(high);
                }
            }
        }
        sync_cube();
    }
}

/// Whether key and query of a sequence see each other; both are positions in it.
#[cube]
pub(super) fn visible(i: usize, j: usize, length: usize, half_window: usize) -> bool {
    i < length && j < length && i + half_window >= j && j + half_window >= i
}

/// Hyperbolic tangent to the last digits: a driver's own may be good to three.
#[cube]
pub(super) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    // Taylor, where the quotient below would cancel.
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
