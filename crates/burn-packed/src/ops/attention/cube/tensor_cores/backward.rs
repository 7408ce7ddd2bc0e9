//! The backward kernels: one for the gradient of the queries, which streams keys, and one for the gradients of keys and values,
//! which streams queries. Every gradient element is thus summed by one thread in a fixed order, without atomics, at the price of
//! computing the scores twice.

use cubecl::prelude::*;

use super::super::tile::{AttentionTile, K, Q, V};
use super::config::{Args, KernelConfig};
use super::family::Family;
use super::fragments::{FragmentCoords, Pair, own_group};
use super::rows::{HeadRows, QkvRows, TileStream, await_copies, copy_number};
use super::softmax::{
    LOG2_E, RowStatistics, Statistics, StatisticsExpand, score_gradients, weights,
};
use crate::ops::ptx::*;

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

/// Gradient of the queries: projection 0 of `d_qkv`.
///
/// Blocks, warps and stages are those of [`super::forward::attention_forward`]; the block's own rows are its queries and their
/// output gradients. RoPE is never applied inside.
#[cube(launch_unchecked)]
pub(in super::super) fn attention_queries<F: Family>(
    inputs: &Inputs,
    d_qkv: &mut [u32],
    #[comptime] config: KernelConfig,
) {
    let args = inputs.args;
    let queries = shared_memory(config.backward_bytes(), config.alignment());
    let d_outs = queries + comptime!(config.own_bytes());
    let stages = d_outs + comptime!(config.own_bytes());

    let tile = AttentionTile::of_block(&inputs.tiles, args.half_window);
    let (head, d_out) = inputs.rows(tile, config);
    let stream = TileStream::new(head.k, head.v, stages);
    F::copy(&head.q, tile.first, queries, config.rows, false);
    F::copy(&d_out, tile.first, d_outs, config.rows, false);
    stream.copy::<F>(stream.start, stages, false);
    copy_async_commit();
    if comptime!(!config.wgmma) {
        await_copies(config);
    }

    let coords = FragmentCoords::of_thread(tile, CUBE_POS_X, args, config);
    let own = own_group(config) * comptime!(config.group() * config.pitch());
    let q_as_a = F::operand_a(queries + own, config);
    let d_out_as_a = F::operand_a(d_outs + own, config);
    let statistics = RowStatistics::new(coords.load(&inputs.lse), coords.load(&inputs.delta));
    let mut d_q = F::zeros(comptime!(config.head_n_tiles()));
    for step in 0..stream.steps {
        let position = stream.position(step);
        let odd = u32::cast_from(step % 2i32);
        let stage = stream.stage(odd);
        await_copies(config);
        if step + 1i32 < stream.steps {
            let next = stream.stage(1u32 - odd);
            stream.copy::<F>(position + comptime!(config.keys as i32), next, false);
            copy_async_commit();
        }
        if coords.meets(position) {
            let mut s = F::scores(&q_as_a, stage, config);
            let slopes = coords.bound_and_mask::<F>(&mut s, position, true);
            let values = stage + comptime!(config.tile_bytes());
            let d_p = F::scores(&d_out_as_a, values, config);
            weights::<F::Fragment, RowStatistics>(&mut s, &statistics, args.scale_log2, config);
            score_gradients::<F::Fragment, RowStatistics>(
                &mut s,
                &d_p,
                &slopes,
                &statistics,
                config,
            );
            F::accumulate(&mut d_q, &s, stage, false, config);
        }
    }
    coords.store_gradient::<F>(d_qkv, d_q, &inputs.rotary, Q);
}

/// Gradients of keys and values: projections 1 and 2 of `d_qkv`.
///
/// As [`attention_queries`], with keys instead of queries: the block's own rows are keys and values. The block streams queries and their output
/// gradients, with log-sum-exp and delta of these queries. Scores are transposed, `[keys, queries]`.
#[cube(launch_unchecked)]
pub(in super::super) fn attention_keys<F: Family>(
    inputs: &Inputs,
    d_qkv: &mut [u32],
    #[comptime] config: KernelConfig,
) {
    let args = inputs.args;
    let keys = shared_memory(config.backward_bytes(), config.alignment());
    let values = keys + comptime!(config.own_bytes());
    let stages = values + comptime!(config.own_bytes());
    let statistics_length = comptime!(config.statistics_bytes() as usize / 4);
    let shared = Shared::<[f32]>::new_aligned_slice(statistics_length, 128usize);

    let tile = AttentionTile::of_block(&inputs.tiles, args.half_window);
    let (head, d_out) = inputs.rows(tile, config);
    let columns = StatisticCopies::new(inputs, tile, &shared);
    let stream = TileStream::new(head.q, d_out, stages);
    F::copy(&head.k, tile.first, keys, config.rows, false);
    F::copy(&head.v, tile.first, values, config.rows, false);
    stream.copy::<F>(stream.start, stages, false);
    columns.copy(tile, stream.start, 0u32, config.keys);
    copy_async_commit();
    if comptime!(!config.wgmma) {
        await_copies(config);
    }

    let coords = FragmentCoords::of_thread(tile, CUBE_POS_X, args, config);
    let own = own_group(config) * comptime!(config.group() * config.pitch());
    let k_as_a = F::operand_a(keys + own, config);
    let v_as_a = F::operand_a(values + own, config);
    let mut d_k = F::zeros(comptime!(config.head_n_tiles()));
    let mut d_v = F::zeros(comptime!(config.head_n_tiles()));
    for step in 0..stream.steps {
        let position = stream.position(step);
        let odd = u32::cast_from(step % 2i32);
        let stage = stream.stage(odd);
        await_copies(config);
        if step + 1i32 < stream.steps {
            let after = position + comptime!(config.keys as i32);
            let next = stream.stage(1u32 - odd);
            stream.copy::<F>(after, next, false);
            columns.copy(tile, after, 1u32 - odd, config.keys);
            copy_async_commit();
        }
        if coords.meets(position) {
            let d_outs = stage + comptime!(config.tile_bytes());
            let column = odd * comptime!(config.keys * 2) + coords.column;
            let statistics = ColumnStatistics::new(&shared, column, config.keys);
            let mut s = F::scores(&k_as_a, stage, config);
            let slopes = coords.bound_and_mask::<F>(&mut s, position, true);
            weights::<F::Fragment, ColumnStatistics>(&mut s, &statistics, args.scale_log2, config);
            F::accumulate(&mut d_v, &s, d_outs, false, config);
            let d_p = F::scores(&v_as_a, d_outs, config);
            score_gradients::<F::Fragment, ColumnStatistics>(
                &mut s,
                &d_p,
                &slopes,
                &statistics,
                config,
            );
            F::accumulate(&mut d_k, &s, stage, false, config);
        }
    }
    coords.store_gradient::<F>(d_qkv, d_k, &inputs.rotary, K);
    coords.store::<F>(d_qkv, &d_v, Pair::of_rows(1.0f32, 1.0f32), V);
}

#[cube]
impl Inputs {
    /// Rows of queries, keys and values of this block's head, and of its output gradient.
    fn rows(&self, tile: AttentionTile, #[comptime] config: KernelConfig) -> (QkvRows, HeadRows) {
        let (qk, qkv) = (global_address(&self.qk), global_address(&self.qkv));
        let head_rows = QkvRows::new(qk, qkv, tile, CUBE_POS_X, self.args, config);
        let d_out = global_address(&self.d_out);
        (
            head_rows,
            HeadRows::of_heads(d_out, tile, CUBE_POS_X, self.args, config),
        )
    }
}

/// Log-sum-exp and delta of streamed queries: addresses of the sequence's first query, and of stage 0 in shared memory. A stage is
/// `config.keys` log-sum-exps followed by `config.keys` deltas.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct StatisticCopies {
    lse: u64,
    delta: u64,
    shared: u32,
}

#[cube]
impl StatisticCopies {
    fn new(inputs: &Inputs, tile: AttentionTile, shared: &Shared<[f32]>) -> StatisticCopies {
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
    fn copy(&self, tile: AttentionTile, first: i32, stage: u32, #[comptime] keys: u32) {
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
    fn lse(&self, #[comptime] n_tile: usize) -> Pair {
        let at = self.column + comptime!(n_tile as u32 * 8);
        Pair::of_columns(
            self.shared[at as usize] * LOG2_E,
            self.shared[(at + 1u32) as usize] * LOG2_E,
        )
    }

    fn delta(&self, #[comptime] n_tile: usize) -> Pair {
        let at = self.column + comptime!(self.keys + n_tile as u32 * 8);
        Pair::of_columns(self.shared[at as usize], self.shared[(at + 1u32) as usize])
    }
}
