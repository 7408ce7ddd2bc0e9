//! The backward kernels: `delta` of each row, then one kernel for the gradients of keys and values and one for that of the
//! queries, which is the same with the roles of queries and keys exchanged.
//!
//! Both recompute the softmax weights from the log-sum-exp. Each gradient element belongs to one thread of one block and is summed in
//! a fixed order: no atomics, and results are bit-identical in every run.

use cubecl::prelude::*;

use super::super::tile::{K, OUT, Q, V};
use super::tile::{
    Args, BlockTile, KernelConfig, LANES, ROWS, SharedMemory, own_column, own_row, zeros,
};

/// `delta[head, row] = sum_d out · d_out`, the term that the derivative of the softmax subtracts. One thread per head and row.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn delta_kernel<F: Float>(
    out: &[F],
    d_out: &[F],
    delta: &mut [f32],
    args: Args,
    #[comptime] head_dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index < args.heads * args.total {
        let row = index / args.heads;
        let head = index % args.heads;
        let mut sum = 0.0f32;
        for d in 0..head_dim {
            sum += f32::cast_from(out[index * head_dim + d])
                * f32::cast_from(d_out[index * head_dim + d]);
        }
        delta[head * args.total + row] = sum;
    }
}

/// A value of each query, `[heads, total]`. Queries are the columns of a thread's scores in the kernel for the gradients of keys and
/// values, else the rows, whose values the thread keeps.
#[derive(CubeType)]
struct Statistic<'a> {
    values: &'a [f32],
    rows: Array<f32>,
    #[cube(comptime)]
    of_columns: bool,
}

#[cube]
impl<'a> Statistic<'a> {
    fn new(values: &'a [f32], rows: Array<f32>, #[comptime] of_columns: bool) -> Statistic<'a> {
        Statistic::<'a> {
            values,
            rows,
            of_columns,
        }
    }

    /// Returns the value of the column at `position`, if columns have values.
    fn column(&self, block: &BlockTile, position: i32) -> f32 {
        if comptime!(self.of_columns) {
            row_statistic(self.values, block, position)
        } else {
            0.0f32.runtime()
        }
    }

    /// Returns the value of row `r`, or `column` if columns have values.
    fn of(&self, r: usize, column: f32) -> f32 {
        if comptime!(self.of_columns) {
            column
        } else {
            self.rows[r]
        }
    }
}

/// Returns the value of `position` in `values [heads, total]` for this block's head; 0 beyond the end of the sequence.
#[cube]
fn row_statistic(values: &[f32], block: &BlockTile, position: i32) -> f32 {
    let mut row_statistic = 0.0f32;
    if block.tile.has(position) {
        row_statistic = values[block.index(usize::cast_from(position))];
    }
    row_statistic
}

/// Returns the softmax weight of row `r` and the position `other` of a column, and the derivative of the softcap at their score, from
/// the dot product of query and key.
#[cube]
fn weight_and_slope(product: f32, lse: f32, block: &BlockTile, r: usize, other: i32) -> (f32, f32) {
    let seen = block.seen(r);
    let (score, slope) = block.bounded(product);
    let seen = seen.contains(other);
    // A hidden key's score may be above the log-sum-exp of the visible keys: its exponential could overflow.
    let exponent = select(seen, score - lse, 0.0f32);
    (select(seen, exponent.exp(), 0.0f32), slope)
}

/// Gradients of keys and values if `keys`, else of the queries.
///
/// Block x is a head, block (y, z) a tile of keys or of queries, given by `tiles`: the block's own rows. With `keys`, own rows are keys and values,
/// and the block streams the tiles of queries and output gradients that the own rows see; otherwise own rows are queries and output gradients, and
/// the block streams keys and values. The scores are dot products of queries and keys, the gradients of the weights of output gradients and values.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn backward_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    d_out: &[F],
    lse: &[f32],
    delta: &[f32],
    d_qkv: &mut [F],
    args: Args,
    #[comptime] keys: bool,
    #[comptime] config: KernelConfig,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(config.columns());
    let (own, streamed) = comptime!(if keys {
        ([K, V], [Q, OUT])
    } else {
        ([Q, OUT], [K, V])
    });
    let own_second = if comptime!(keys) { qkv } else { d_out };
    let streamed_second = if comptime!(keys) { d_out } else { qkv };
    let block = BlockTile::new(tiles, args, config);
    let own_rows = block.rows(block.tile.first, comptime!(own[0]));
    let own_second_rows = block.rows(block.tile.first, comptime!(own[1]));
    let mut memory = SharedMemory::new(rotary, config);
    let mut p = Array::<f32>::new(comptime!(ROWS * columns));
    // Only for the gradients of keys and values.
    let mut slopes = Array::<f32>::new(comptime!(if keys { ROWS * columns } else { 1 }));
    let mut d_own = zeros(comptime!(ROWS * config.dims()));
    let mut d_v = zeros(comptime!(if keys { ROWS * config.dims() } else { 1 }));
    let mut row_lse = Array::<f32>::new(ROWS);
    let mut row_delta = Array::<f32>::new(ROWS);
    if comptime!(!keys) {
        #[unroll]
        for r in 0..ROWS {
            let row = block.tile.first + i32::cast_from(own_row() + r);
            row_lse[r] = row_statistic(lse, &block, row);
            row_delta[r] = row_statistic(delta, &block, row);
        }
    }
    let lse = Statistic::new(lse, row_lse, keys);
    let delta = Statistic::new(delta, row_delta, keys);

    let span = block.streamed();
    let mut first = span.first;
    while first <= span.last {
        let rows = block.rows(first, comptime!(streamed[0]));
        let second_rows = block.rows(first, comptime!(streamed[1]));
        let products = memory.scores::<F>(qkv, &own_rows, qkv, &rows);
        #[unroll]
        for c in 0..columns {
            let other = first + i32::cast_from(own_column() + comptime!(c * LANES));
            let column_lse = lse.column(&block, other);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let lse = lse.of(r, column_lse);
                let (weight, slope) = weight_and_slope(products[at], lse, &block, r, other);
                if comptime!(keys) {
                    p[at] = weight;
                    slopes[at] = slope;
                    memory.set_weight(r, c, weight);
                } else {
                    p[at] = weight * slope * args.scale;
                }
            }
        }
        if comptime!(keys) {
            memory.accumulate::<F>(&mut d_v, d_out, &second_rows);
        }
        let d_p = memory.scores::<F>(own_second, &own_second_rows, streamed_second, &second_rows);
        #[unroll]
        for c in 0..columns {
            let other = first + i32::cast_from(own_column() + comptime!(c * LANES));
            let column_delta = delta.column(&block, other);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let mut d_s = p[at] * (d_p[at] - delta.of(r, column_delta));
                if comptime!(keys) {
                    d_s = d_s * slopes[at] * args.scale;
                }
                memory.set_weight(r, c, d_s);
            }
        }
        memory.accumulate::<F>(&mut d_own, qkv, &rows);
        first += comptime!(config.tile as i32);
    }
    memory.store::<F>(d_qkv, &d_own, &own_rows);
    if comptime!(keys) {
        memory.store::<F>(d_qkv, &d_v, &own_second_rows);
    }
}
