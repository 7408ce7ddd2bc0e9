//! The backward kernels: one for the gradient of the queries, which streams keys, and one for the gradients of keys and values,
//! which streams queries. Every gradient element is thus summed by one thread in a fixed order, without atomics, at the price of
//! computing the scores twice.

use cubecl::prelude::*;

use super::super::tile::{K, Q, Tile, V};
use super::family::Family;
use super::fragments::{Pair, Place, own_group};
use super::ptx::*;
use super::rows::{HeadRows, Rows, Stream, await_copies, copy_number};
use super::shape::{Args, Shape};
use super::softmax::{
    LOG2_E, RowStatistics, Statistics, StatisticsExpand, score_gradients, weights,
};

/// Inputs of the backward kernels.
#[derive(CubeType, CubeLaunch)]
pub(in super::super) struct Inputs {
    /// Queries and keys with RoPE applied, `[total, 2, heads, head_dim]`; without RoPE `qkv`.
    pub(in super::super) qk: Box<[u32]>,
    pub(in super::super) qkv: Box<[u32]>,
    pub(in super::super) d_out: Box<[u32]>,
    /// Log-sum-exp `[heads, total]`.
    pub(in super::super) lse: Box<[f32]>,
    /// The sum of `out · d_out` of each row, `[heads, total]`.
    pub(in super::super) delta: Box<[f32]>,
    pub(in super::super) tiles: Box<[u32]>,
    pub(in super::super) rotary: Box<[f32]>,
    pub(in super::super) args: Args,
}

/// Gradient of the queries: part 0 of `d_qkv`.
///
/// Blocks, warps and stages are those of [`super::forward::attention_forward`]; the block's own rows are its queries and their
/// output gradients. RoPE is never applied inside.
#[cube(launch_unchecked)]
pub(in super::super) fn attention_queries<F: Family>(
    inputs: &Inputs,
    d_qkv: &mut [u32],
    #[comptime] shape: Shape,
) {
    let args = inputs.args;
    let queries = shared_memory(shape.backward_bytes(), shape.alignment());
    let d_outs = queries + comptime!(shape.own_bytes());
    let stages = d_outs + comptime!(shape.own_bytes());

    let tile = Tile::of_block(&inputs.tiles, args.half_window);
    let (head, d_out) = inputs.rows(tile, shape);
    let stream = Stream::new(head.k, head.v, stages);
    F::copy(&head.q, tile.first, queries, shape.rows, false);
    F::copy(&d_out, tile.first, d_outs, shape.rows, false);
    stream.copy::<F>(stream.start, stages, false);
    copy_async_commit();
    if comptime!(!shape.wgmma) {
        await_copies(shape);
    }

    let place = Place::of_thread(tile, CUBE_POS_X, args, shape);
    let own = own_group(shape) * comptime!(shape.group() * shape.pitch());
    let left_q = F::left(queries + own, shape);
    let left_d_out = F::left(d_outs + own, shape);
    let statistics = RowStatistics::new(place.load(&inputs.lse), place.load(&inputs.delta));
    let mut d_q = F::zeros(comptime!(shape.dim_parts()));
    for step in 0..stream.steps {
        let position = stream.position(step);
        let odd = u32::cast_from(step % 2i32);
        let stage = stream.stage(odd);
        await_copies(shape);
        if step + 1i32 < stream.steps {
            let next = stream.stage(1u32 - odd);
            stream.copy::<F>(position + comptime!(shape.keys as i32), next, false);
            copy_async_commit();
        }
        if place.meets(position) {
            let mut s = F::scores(&left_q, stage, shape);
            let slopes = place.bound_and_mask::<F>(&mut s, position, true);
            let values = stage + comptime!(shape.tile_bytes());
            let d_p = F::scores(&left_d_out, values, shape);
            weights::<F::Fragment, RowStatistics>(&mut s, &statistics, args.scale_log2, shape);
            score_gradients::<F::Fragment, RowStatistics>(
                &mut s,
                &d_p,
                &slopes,
                &statistics,
                shape,
            );
            F::accumulate(&mut d_q, &s, stage, false, shape);
        }
    }
    place.store_gradient::<F>(d_qkv, d_q, &inputs.rotary, Q);
}

/// Gradients of keys and values: parts 1 and 2 of `d_qkv`.
///
/// As [`attention_queries`], with keys instead of queries: the block's own rows are keys and values. The block streams queries and their output
/// gradients, with log-sum-exp and delta of these queries. Scores are transposed, `[keys, queries]`.
#[cube(launch_unchecked)]
pub(in super::super) fn attention_keys<F: Family>(
    inputs: &Inputs,
    d_qkv: &mut [u32],
    #[comptime] shape: Shape,
) {
    let args = inputs.args;
    let keys = shared_memory(shape.backward_bytes(), shape.alignment());
    let values = keys + comptime!(shape.own_bytes());
    let stages = values + comptime!(shape.own_bytes());
    let statistics_length = comptime!(shape.statistics_bytes() as usize / 4);
    let shared = Shared::<[f32]>::new_aligned_slice(statistics_length, 128usize);

    let tile = Tile::of_block(&inputs.tiles, args.half_window);
    let (head, d_out) = inputs.rows(tile, shape);
    let columns = StatisticCopies::new(inputs, tile, &shared);
    let stream = Stream::new(head.q, d_out, stages);
    F::copy(&head.k, tile.first, keys, shape.rows, false);
    F::copy(&head.v, tile.first, values, shape.rows, false);
    stream.copy::<F>(stream.start, stages, false);
    columns.copy(tile, stream.start, 0u32, shape.keys);
    copy_async_commit();
    if comptime!(!shape.wgmma) {
        await_copies(shape);
    }

    let place = Place::of_thread(tile, CUBE_POS_X, args, shape);
    let own = own_group(shape) * comptime!(shape.group() * shape.pitch());
    let left_k = F::left(keys + own, shape);
    let left_v = F::left(values + own, shape);
    let mut d_k = F::zeros(comptime!(shape.dim_parts()));
    let mut d_v = F::zeros(comptime!(shape.dim_parts()));
    for step in 0..stream.steps {
        let position = stream.position(step);
        let odd = u32::cast_from(step % 2i32);
        let stage = stream.stage(odd);
        await_copies(shape);
        if step + 1i32 < stream.steps {
            let after = position + comptime!(shape.keys as i32);
            let next = stream.stage(1u32 - odd);
            stream.copy::<F>(after, next, false);
            columns.copy(tile, after, 1u32 - odd, shape.keys);
            copy_async_commit();
        }
        if place.meets(position) {
            let d_outs = stage + comptime!(shape.tile_bytes());
            let column = odd * comptime!(shape.keys * 2) + place.column;
            let statistics = ColumnStatistics::new(&shared, column, shape.keys);
            let mut s = F::scores(&left_k, stage, shape);
            let slopes = place.bound_and_mask::<F>(&mut s, position, true);
            weights::<F::Fragment, ColumnStatistics>(&mut s, &statistics, args.scale_log2, shape);
            F::accumulate(&mut d_v, &s, d_outs, false, shape);
            let d_p = F::scores(&left_v, d_outs, shape);
            score_gradients::<F::Fragment, ColumnStatistics>(
                &mut s,
                &d_p,
                &slopes,
                &statistics,
                shape,
            );
            F::accumulate(&mut d_k, &s, stage, false, shape);
        }
    }
    place.store_gradient::<F>(d_qkv, d_k, &inputs.rotary, K);
    place.store::<F>(d_qkv, &d_v, Pair::of_rows(1.0f32, 1.0f32), V);
}

#[cube]
impl Inputs {
    /// Rows of queries, keys and values of this block's head, and of its output gradient.
    fn rows(&self, tile: Tile, #[comptime] shape: Shape) -> (HeadRows, Rows) {
        let (qk, qkv) = (global_address(&self.qk), global_address(&self.qkv));
        let head_rows = HeadRows::new(qk, qkv, tile, CUBE_POS_X, self.args, shape);
        let d_out = global_address(&self.d_out);
        (
            head_rows,
            Rows::of_heads(d_out, tile, CUBE_POS_X, self.args, shape),
        )
    }
}

/// Log-sum-exp and delta of streamed queries: addresses of the sequence's first query, and of stage 0 in shared memory. A stage is
/// `shape.keys` log-sum-exps followed by `shape.keys` deltas.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct StatisticCopies {
    lse: u64,
    delta: u64,
    shared: u32,
}

#[cube]
impl StatisticCopies {
    fn new(inputs: &Inputs, tile: Tile, shared: &Shared<[f32]>) -> StatisticCopies {
        let row = u64::cast_from((CUBE_POS_X * inputs.args.total + tile.sequence) * 4u32);
        StatisticCopies {
            lse: global_address(&inputs.lse) + row,
            delta: global_address(&inputs.delta) + row,
            // SAFETY: the allocation has elements and only its address is used; copies stay inside the two stages.
            shared: shared_address::<f32>(unsafe { shared.as_ptr_unchecked() }),
        }
    }

    /// Starts the copy of a stage from position `first` on, one number by each of the first `2 * keys` threads; zeros beyond the end of the
    /// sequence.
    fn copy(&self, tile: Tile, first: i32, stage: u32, #[comptime] keys: u32) {
        if UNIT_POS < comptime!(2 * keys) {
            let position = first + i32::cast_from(UNIT_POS % keys);
            let from = select(UNIT_POS < keys, self.lse, self.delta);
            let to = self.shared + stage * comptime!(keys * 8) + UNIT_POS * 4u32;
            copy_number(from, tile, position, to);
        }
    }
}

/// Statistics of queries that are columns of scores, in shared memory.
#[derive(CubeType)]
struct ColumnStatistics<'a> {
    shared: &'a Shared<[f32]>,
    /// Index of the log-sum-exp of this thread's first query.
    column: u32,
    /// Elements from a query's log-sum-exp to its delta.
    #[cube(comptime)]
    keys: u32,
}

#[cube]
impl<'a> ColumnStatistics<'a> {
    fn new(shared: &'a Shared<[f32]>, column: u32, #[comptime] keys: u32) -> ColumnStatistics<'a> {
        ColumnStatistics::<'a> {
            shared,
            column,
            keys,
        }
    }
}

#[cube]
impl<'a> Statistics for ColumnStatistics<'a> {
    fn lse(&self, #[comptime] part: usize) -> Pair {
        let at = self.column + comptime!(part as u32 * 8);
        Pair::of_columns(
            self.shared[at as usize] * LOG2_E,
            self.shared[(at + 1u32) as usize] * LOG2_E,
        )
    }

    fn delta(&self, #[comptime] part: usize) -> Pair {
        let at = self.column + comptime!(self.keys + part as u32 * 8);
        Pair::of_columns(self.shared[at as usize], self.shared[(at + 1u32) as usize])
    }
}
