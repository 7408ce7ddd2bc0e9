//! LayerNorm kernels. A row belongs to a warp (or to 256 threads, if it is wide), is read once and kept in registers.
//!
//! All kernels use the partition of [`crate::ops::rows`]: blocks of `block_rows` rows, `lanes` threads per row, of which each holds
//! `held` vectors. Every lane takes part in the row sums; slots beyond the end of a row hold zeros, and rows beyond the last
//! read row 0 and write nothing.

use cubecl::prelude::*;

use crate::ops::rows::{RowPartition, row_sum, vector_sum};

/// Tensor from which the backward pass computes the normalized row `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NormInput {
    /// The input of the norm, whose statistics are computed again.
    Input,
    /// The output of the norm: `y = output / weight`.
    Output,
}

/// Compile-time configuration of the backward kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BackwardConfig {
    pub(super) partition: RowPartition,
    pub(super) source: NormInput,
    /// True if the gradient of the residual sum is added to the gradient that passes through the norm.
    pub(super) has_d_sum: bool,
    /// True if the gradient is also written to `d_branch`, in the branch's dtype.
    pub(super) writes_d_branch: bool,
}

/// Returns mean and inverse standard deviation of a row in registers.
#[cube]
pub(super) fn statistics<N: Size>(
    values: &Array<Vector<f32, N>>,
    lane: usize,
    eps: f32,
    exchange: &mut Shared<[f32]>,
    #[comptime] partition: RowPartition,
) -> (f32, f32) {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        sum += vector_sum::<N>(values[i]);
    }
    let inv_width = comptime!(1.0f32 / partition.width as f32);
    let mean = row_sum(sum, exchange, partition) * inv_width;
    let mut squares = 0.0f32;
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let centered = values[i] - Vector::new(mean);
        let square = vector_sum::<N>(centered * centered);
        // The zeros in slots beyond the row are not centered.
        let at = lane + comptime!(i * partition.lanes);
        squares += select(at < partition.vectors, square, 0.0f32);
    }
    let variance = row_sum(squares, exchange, partition) * inv_width;
    (mean, 1.0f32 / (variance + eps).sqrt())
}

/// Writes `(values - mean) * inv_std * weight` to the row that begins at vector `start`.
#[cube]
fn write_normed<O: Float, N: Size>(
    values: &Array<Vector<f32, N>>,
    weight: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    start: usize,
    lane: usize,
    mean: f32,
    inv_std: f32,
    #[comptime] partition: RowPartition,
) {
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        if at < partition.vectors {
            let y = (values[i] - Vector::new(mean)) * Vector::new(inv_std);
            out[start + at] = Vector::cast_from(y * weight[at]);
        }
    }
}

/// `out = norm(x) * weight`; `x` and `out` are `[rows, width]`, `weight` is `[width]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn forward_kernel<X: Float, O: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    rows: usize,
    eps: f32,
    #[comptime] partition: RowPartition,
    #[define(X, O)] _dtypes: [ElemType; 2],
) {
    let mut exchange = Shared::<[f32]>::new_slice(partition.exchange());
    let lane = UNIT_POS as usize % partition.lanes;
    let row = CUBE_POS * partition.block_rows + UNIT_POS as usize / partition.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * partition.vectors;
    let mut values = Array::<Vector<f32, N>>::new(comptime!(partition.held()));
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        values[i] = Vector::new(0.0f32);
        if at < partition.vectors {
            values[i] = Vector::cast_from(x[start + at]);
        }
    }
    let (mean, inv_std) = statistics::<N>(&values, lane, eps, &mut exchange, partition);
    if inside {
        write_normed::<O, N>(&values, weight, out, start, lane, mean, inv_std, partition);
    }
}

/// Reads the row that begins at vector `start` of both matrices: `values = x + branch`, zeros beyond the end of the row.
#[cube]
pub(super) fn load_sum<X: Float, B: Float, N: Size>(
    x: &[Vector<X, N>],
    branch: &[Vector<B, N>],
    values: &mut Array<Vector<f32, N>>,
    start: usize,
    lane: usize,
    #[comptime] partition: RowPartition,
) {
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        values[i] = Vector::new(0.0f32);
        if at < partition.vectors {
            values[i] = Vector::<f32, N>::cast_from(x[start + at])
                + Vector::<f32, N>::cast_from(branch[start + at]);
        }
    }
}

/// Writes `values` to the row that begins at vector `start`.
#[cube]
pub(super) fn write_row<O: Float, N: Size>(
    values: &Array<Vector<f32, N>>,
    out: &mut [Vector<O, N>],
    start: usize,
    lane: usize,
    #[comptime] partition: RowPartition,
) {
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        if at < partition.vectors {
            out[start + at] = Vector::cast_from(values[i]);
        }
    }
}

/// `sum = x + branch`, `out = norm(x + branch) * weight`, and `inv_stds [rows]`; matrices are `[rows, width]`. The norm is that of the sum before it
/// is rounded.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn add_forward_kernel<X: Float, B: Float, O: Float, N: Size>(
    x: &[Vector<X, N>],
    branch: &[Vector<B, N>],
    weight: &[Vector<f32, N>],
    sum: &mut [Vector<X, N>],
    out: &mut [Vector<O, N>],
    inv_stds: &mut [f32],
    rows: usize,
    eps: f32,
    #[comptime] partition: RowPartition,
    #[define(X, B, O)] _dtypes: [ElemType; 3],
) {
    let mut exchange = Shared::<[f32]>::new_slice(partition.exchange());
    let lane = UNIT_POS as usize % partition.lanes;
    let row = CUBE_POS * partition.block_rows + UNIT_POS as usize / partition.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * partition.vectors;
    let mut values = Array::<Vector<f32, N>>::new(comptime!(partition.held()));
    load_sum::<X, B, N>(x, branch, &mut values, start, lane, partition);
    let (mean, inv_std) = statistics::<N>(&values, lane, eps, &mut exchange, partition);
    if inside {
        write_row::<X, N>(&values, sum, start, lane, partition);
        write_normed::<O, N>(&values, weight, out, start, lane, mean, inv_std, partition);
        if lane == 0 {
            inv_stds[row] = inv_std;
        }
    }
}

/// The normalized row is `y = saved * scale + shift`, divided by the weight where the output was saved.
#[derive(CubeType)]
struct Normalization {
    scale: f32,
    shift: f32,
    inv_std: f32,
}

/// Returns scale and shift that normalize the saved row in registers.
#[cube]
fn normalization<S: Float, N: Size>(
    saved: &Array<Vector<S, N>>,
    inv_stds: &[f32],
    row: usize,
    lane: usize,
    eps: f32,
    exchange: &mut Shared<[f32]>,
    #[comptime] config: BackwardConfig,
) -> Normalization {
    let held = comptime!(config.partition.held());
    let mut inv_std = 0.0f32;
    let mut scale = 1.0f32;
    let mut shift = 0.0f32;
    if comptime!(config.source == NormInput::Output) {
        inv_std += inv_stds[row];
    } else {
        let mut values = Array::<Vector<f32, N>>::new(held);
        #[unroll]
        for i in 0..held {
            values[i] = Vector::cast_from(saved[i]);
        }
        let (mean, found) = statistics::<N>(&values, lane, eps, exchange, config.partition);
        inv_std += found;
        scale = found;
        shift = -mean * found;
    }
    Normalization {
        scale,
        shift,
        inv_std,
    }
}

/// With `g = d_out * weight`: `d_x = inv_std * (g - mean(g) - y * mean(g * y))`, plus `d_sum` if there is one; and each block's part of
/// `d_weight = Σ_rows d_out * y`, which [`crate::ops::rows::column_sums`] adds up.
///
/// Matrices are `[rows, width]`, `partials` is `[blocks, width]`. A block takes every `CUBE_COUNT`-th group of `block_rows` rows,
/// so that the order of the sums depends on the grid alone. `inv_stds`, `d_sum` and `d_branch` are placeholders where `config`
/// does not use them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn backward_kernel<G: Float, S: Float, X: Float, B: Float, N: Size>(
    d_out: &[Vector<G, N>],
    saved: &[Vector<S, N>],
    inv_stds: &[f32],
    weight: &[Vector<f32, N>],
    d_sum: &[Vector<X, N>],
    d_x: &mut [Vector<X, N>],
    d_branch: &mut [Vector<B, N>],
    partials: &mut [Vector<f32, N>],
    rows: usize,
    eps: f32,
    #[comptime] config: BackwardConfig,
    #[define(G, S, X, B)] _dtypes: [ElemType; 4],
) {
    let partition = comptime!(config.partition);
    let held = comptime!(partition.held());
    let mut exchange = Shared::<[f32]>::new_slice(partition.exchange());
    let lane = UNIT_POS as usize % partition.lanes;
    let block_row = UNIT_POS as usize / partition.lanes;
    let inv_width = comptime!(1.0f32 / partition.width as f32);
    let mut d_weight = Array::<Vector<f32, N>>::new(held);
    // The row is kept in the dtypes it was read in, which takes fewer registers than f32.
    let mut grads = Array::<Vector<G, N>>::new(held);
    let mut saved_row = Array::<Vector<S, N>>::new(held);
    let mut d_sum_row = Array::<Vector<X, N>>::new(held);
    #[unroll]
    for i in 0..held {
        d_weight[i] = Vector::new(0.0f32);
    }
    let mut first = CUBE_POS * partition.block_rows;
    while first < rows {
        let row = first + block_row;
        let inside = row < rows;
        let row = select(inside, row, 0usize);
        let start = row * partition.vectors;
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * partition.lanes);
            grads[i] = Vector::new(G::new(0.0));
            saved_row[i] = Vector::new(S::new(0.0));
            if comptime!(config.has_d_sum) {
                d_sum_row[i] = Vector::new(X::new(0.0));
            }
            if at < partition.vectors {
                grads[i] = d_out[start + at];
                saved_row[i] = saved[start + at];
                if comptime!(config.has_d_sum) {
                    d_sum_row[i] = d_sum[start + at];
                }
            }
        }
        let norm =
            normalization::<S, N>(&saved_row, inv_stds, row, lane, eps, &mut exchange, config);
        let mut sum_g = 0.0f32;
        let mut sum_gy = 0.0f32;
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * partition.lanes);
            if at < partition.vectors {
                let d = Vector::<f32, N>::cast_from(grads[i]);
                let g = d * weight[at];
                let saved = Vector::<f32, N>::cast_from(saved_row[i]);
                sum_g += vector_sum::<N>(g);
                if comptime!(config.source == NormInput::Output) {
                    // g * y = d * weight * (output / weight). The sum for `d_weight` is divided by the weight at the end.
                    let dy = d * saved;
                    sum_gy += vector_sum::<N>(dy);
                    d_weight[i] += zero_unless::<N>(inside, dy);
                } else {
                    let y = saved * Vector::new(norm.scale) + Vector::new(norm.shift);
                    sum_gy += vector_sum::<N>(g * y);
                    d_weight[i] += zero_unless::<N>(inside, d * y);
                }
            }
        }
        let mean_g = row_sum(sum_g, &mut exchange, partition) * inv_width;
        let mean_gy = row_sum(sum_gy, &mut exchange, partition) * inv_width;
        if inside {
            #[unroll]
            for i in 0..held {
                let at = lane + comptime!(i * partition.lanes);
                if at < partition.vectors {
                    let w = weight[at];
                    let g = Vector::<f32, N>::cast_from(grads[i]) * w;
                    let saved = Vector::<f32, N>::cast_from(saved_row[i]);
                    let mut y = saved * Vector::new(norm.scale) + Vector::new(norm.shift);
                    if comptime!(config.source == NormInput::Output) {
                        y = quotient_or_zero::<N>(saved, w);
                    }
                    let centered = g - Vector::new(mean_g) - y * Vector::new(mean_gy);
                    let mut d = centered * Vector::new(norm.inv_std);
                    if comptime!(config.has_d_sum) {
                        d += Vector::<f32, N>::cast_from(d_sum_row[i]);
                    }
                    d_x[start + at] = Vector::cast_from(d);
                    if comptime!(config.writes_d_branch) {
                        d_branch[start + at] = Vector::cast_from(d);
                    }
                }
            }
        }
        first += CUBE_COUNT * partition.block_rows;
    }
    write_partial::<N>(&d_weight, weight, partials, block_row, lane, config);
}

/// Writes the sum of `d_weight` over the rows of the block, which are added one after the other in shared memory.
#[cube]
fn write_partial<N: Size>(
    d_weight: &Array<Vector<f32, N>>,
    weight: &[Vector<f32, N>],
    partials: &mut [Vector<f32, N>],
    block_row: usize,
    lane: usize,
    #[comptime] config: BackwardConfig,
) {
    let partition = comptime!(config.partition);
    let mut total = Shared::<[Vector<f32, N>]>::new_slice(partition.vectors);
    #[unroll]
    for turn in 0..comptime!(partition.block_rows) {
        sync_cube();
        if block_row == turn {
            #[unroll]
            for i in 0..comptime!(partition.held()) {
                let at = lane + comptime!(i * partition.lanes);
                if at < partition.vectors {
                    let mut value = d_weight[i];
                    if comptime!(turn > 0) {
                        value += total[at];
                    }
                    if comptime!(turn + 1 == partition.block_rows) {
                        if comptime!(config.source == NormInput::Output) {
                            value = quotient_or_zero::<N>(value, weight[at]);
                        }
                        partials[CUBE_POS * partition.vectors + at] = value;
                    } else {
                        total[at] = value;
                    }
                }
            }
        }
    }
}

/// Returns `value`, or zeros for a row that does not exist.
#[cube]
fn zero_unless<N: Size>(inside: bool, value: Vector<f32, N>) -> Vector<f32, N> {
    value * Vector::new(select(inside, 1.0f32, 0.0f32))
}

/// Returns `a / b` element by element, and 0 where `b` is 0.
#[cube]
fn quotient_or_zero<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>) -> Vector<f32, N> {
    let mut quotient = Vector::<f32, N>::empty();
    #[unroll]
    for k in 0..N::value() {
        quotient.insert(k, scalar_quotient_or_zero(a.extract(k), b.extract(k)));
    }
    quotient
}

#[cube]
fn scalar_quotient_or_zero(a: f32, b: f32) -> f32 {
    let is_zero = b == 0.0f32;
    select(is_zero, 0.0f32, a / select(is_zero, 1.0f32, b))
}
