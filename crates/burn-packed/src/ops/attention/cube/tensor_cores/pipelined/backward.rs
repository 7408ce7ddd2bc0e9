//! The warp-specialized backward kernels: all gradients in one pass over the scores, deterministically.

use cubecl::prelude::*;

use super::super::super::tile::{AttentionTile, K, Q, V};
use super::super::backward::Inputs;
use super::super::config::{Args, KernelConfig};
use super::super::family::{Fragment, FragmentExpand};
use super::super::fragments::{FragmentCoords, Pair, as_operand_a};
use super::super::hopper::{Hopper, WgmmaFragment};
use super::super::rows::{HeadRows, QkvRows};
use super::super::softmax::{LOG2_E, Statistics, StatisticsExpand, score_gradients, weights};
use super::fragment_config;
use super::producer::*;
use super::wgmma::*;
use crate::ops::ptx::wgmma::descriptor;
use crate::ops::ptx::*;

/// Keys of a tile, and queries of a stage: 64 keys to a consumer warp group.
pub(in super::super::super) const ROWS: u32 = 128;
/// Stages of queries and of gradients of the output.
const STAGES: u32 = 2;
/// Threads of a block: two consumers, then the producer's warp group.
pub(in super::super::super) const THREADS: u32 = 384;
/// Threads of the producer, two warps; the first thread of the next warp adds up the gradient of the queries.
const PRODUCERS: u32 = 64;
/// Registers of a consumer's and of another warp group's thread after `setmaxnreg`, which takes multiples of 8. 256 threads with 240 and 128 with 24
/// (the least that `setmaxnreg` allows) are the registers of 384 threads with 168 each, the largest multiple of 8 of which a multiprocessor's
/// 65,536 registers suffice.
const CONSUMER_REGISTERS: u32 = 240;
const PRODUCER_REGISTERS: u32 = 24;
/// Number of further stages whose copies the producer starts before it signals a stage as full: with two stages there is one further stage.
const LAG: u32 = 1;
/// Numbers of a tile of the gradient of the queries.
pub(super) const TILE_NUMBERS: u32 = ROWS * 64;

const TILE_BYTES: u32 = ROWS * ROW_BYTES;
/// A tile of the scores' gradients, `[queries, keys]` in 16 bits: two blocks of 64 keys, as WGMMA reads them.
const SCORE_BYTES: u32 = ROWS * ROWS * 2;
/// A consumer's half of a tile of the gradient of the queries, in f32.
const HALF_BYTES: u32 = TILE_NUMBERS * 4 / 2;
const STATISTIC_BYTES: u32 = ROWS * 4;
const BARRIERS: u32 = 2 * TILE_BYTES
    + 2 * STAGES * TILE_BYTES
    + 2 * SCORE_BYTES
    + 2 * HALF_BYTES
    + 2 * STAGES * STATISTIC_BYTES;
/// Offset of the block's ticket, after the barriers.
const TICKET: u32 = BARRIERS + 8 + 2 * barrier_bytes(STAGES) + barrier_bytes(2);
const SHARED_BYTES: u32 = TICKET + 8;

/// Addresses in shared memory.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct SharedMemory {
    keys: u32,
    values: u32,
    queries: Ring,
    d_out: Ring,
    /// Two tiles of the scores' gradients: the consumers write one while the other may still be read.
    d_scores: u32,
    /// Each consumer's half of the gradient of the queries, a stage to a consumer: filled by its four warps, emptied by one thread.
    d_queries: Ring,
    /// Log-sum-exp and delta, stages as of queries and `d_out`.
    lse: u32,
    delta: u32,
    /// Full barrier of keys and values.
    full_own: u32,
    ticket: u32,
}

#[cube]
impl SharedMemory {
    fn new(base: u32) -> SharedMemory {
        let full_own = base + BARRIERS;
        let barriers = full_own + 8u32;
        let queries = base + comptime!(2 * TILE_BYTES);
        let d_out = queries + comptime!(STAGES * TILE_BYTES);
        let d_scores = d_out + comptime!(STAGES * TILE_BYTES);
        let d_queries = d_scores + comptime!(2 * SCORE_BYTES);
        let lse = d_queries + comptime!(2 * HALF_BYTES);
        let d_out_barriers = barriers + comptime!(barrier_bytes(STAGES));
        let d_query_barriers = barriers + comptime!(2 * barrier_bytes(STAGES));
        SharedMemory {
            keys: base,
            values: base + TILE_BYTES,
            queries: Ring::new(queries, barriers, STAGES, TILE_BYTES),
            d_out: Ring::new(d_out, d_out_barriers, STAGES, TILE_BYTES),
            d_scores,
            d_queries: Ring::new(d_queries, d_query_barriers, 2u32, HALF_BYTES),
            lse,
            delta: lse + comptime!(STAGES * STATISTIC_BYTES),
            full_own,
            ticket: base + TICKET,
        }
    }

    /// Sets the arrivals of a phase: one for each of the producer's two warps at full barriers and of the consumers' eight warps at empty barriers; of
    /// `d_queries`, which the consumers fill, one for each of a consumer's four warps and one for the thread that empties it.
    fn init(&self) {
        mbarrier_init(self.full_own, 2u32);
        self.queries.init(2u32, 8u32);
        self.d_out.init(2u32, 8u32);
        self.d_queries.init(4u32, 1u32);
        mbarrier_init_fence();
    }
}

/// A tile of keys of a head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct KeyTile {
    tile: AttentionTile,
    head: u32,
    /// Index of the tile in its sequence.
    index: u32,
    /// Tiles of the sequence.
    tiles: u32,
    /// Index of the sequence's first entry in the tile table.
    entry: u32,
}

#[cube]
impl KeyTile {
    /// Tickets are ordered by sequence and head, the last tile of a sequence first.
    fn new(table: &[u32], ticket: u32, args: Args) -> KeyTile {
        let some = AttentionTile::of_entry(table, ticket / args.heads, args.half_window);
        let tiles = (u32::cast_from(some.length) + comptime!(ROWS - 1)) / ROWS;
        let entry = ticket / args.heads - u32::cast_from(some.first) / ROWS;
        let ticket_in_sequence = ticket - entry * args.heads;
        // An entry without rows, which pads the table, has no tiles.
        let divisor = max(tiles, 1u32);
        let index = divisor - 1u32 - ticket_in_sequence % divisor;
        KeyTile {
            tile: AttentionTile {
                first: i32::cast_from(index * ROWS),
                sequence: some.sequence,
                length: some.length,
                half_window: some.half_window,
            },
            head: ticket_in_sequence / divisor,
            index,
            tiles,
            entry,
        }
    }

    /// Returns the tile of queries after `query`, cyclically.
    fn after(&self, query: u32) -> u32 {
        select(query + 1u32 == self.tiles, 0u32, query + 1u32)
    }
}

/// Gradients of keys and values, projections 1 and 2 of `d_qkv` `[total, 3, heads, 64]`, and sums of the gradient of the queries,
/// `d_queries` `[2, tiles, heads, 8192]` (see [`finish_queries`]).
///
/// A block computes one tile of [`ROWS`] keys of a head and loops over the tiles of queries. Warp groups 0 and 1 are consumers with 64
/// keys each. Of warp group 2, two warps are the producer (the life of its barriers: [`super::producer`]), and one thread adds to
/// `d_queries`.
///
/// For each tile of queries, a consumer computes, transposed, the scores and the gradients of the weights, `[64 keys, 128 queries]`;
/// then the gradient of the scores. The gradients of the scores pass through shared memory, since the gradient of 64 queries needs all 128 keys:
/// named barrier 1, with the 256 threads of both consumers, makes them visible. There are two tiles for them, so that one barrier a step is enough: a
/// consumer that has passed the barrier has read the other tile.
///
/// The blocks of a sequence add to the gradient of the same queries. They do so in a fixed order, so that the gradient is deterministic:
///
/// - Block `j` of `n` starts with tile `j` of the queries and loops over the other tiles cyclically. In each step, the blocks are at different tiles.
/// - Tile `q` has two sums, of the terms of blocks `q, q - 1, …, 0` and of blocks `n - 1, n - 2, …, q + 1`, in this order. `counters`
///   `[2, tiles, heads]` counts the terms of a sum, and a block waits until all terms before its own are added, the last of them by block `j + 1`,
///   which had the tile one step before. All blocks progress at the same speed, so that this wait is usually short.
/// - A block takes its tile of keys when it starts, by a ticket: the number after `counters` counts the tickets. A later tile of a
///   sequence has an earlier ticket. A block therefore waits only for blocks that have started, so that any number of resident blocks is free of
///   deadlocks.
#[cube(launch_unchecked)]
pub(in super::super::super) fn pipelined_backward(
    inputs: &Inputs,
    d_queries: &mut [f32],
    counters: &mut [u32],
    d_qkv: &mut [u32],
    #[comptime] rope: bool,
    #[comptime] half: bool,
) {
    let memory = SharedMemory::new(shared_memory(SHARED_BYTES, 1024usize));
    // Sums of one kind, and blocks: one for each tile and head.
    let count = CUBE_COUNT_X;
    // SAFETY: buffers of a launch have elements and only their addresses are used.
    let counters = global_pointer::<u32>(unsafe { counters.as_ptr_unchecked() });
    if UNIT_POS == 0u32 {
        let ticket = take_ticket(counters + u64::cast_from(count) * 8u64);
        store_shared(memory.ticket, ticket);
        memory.init();
    }
    sync_cube();
    let config = comptime!(fragment_config(ROWS, ROWS, rope, half));
    let key_tile = KeyTile::new(&inputs.tiles, load_shared(memory.ticket), inputs.args);
    if UNIT_POS >= 256u32 {
        decrease_registers(PRODUCER_REGISTERS);
        if UNIT_POS < comptime!(256 + PRODUCERS) {
            produce(inputs, &key_tile, &memory, config);
        } else if UNIT_POS == comptime!(256 + PRODUCERS) {
            // SAFETY: as above.
            let sums = global_pointer::<f32>(unsafe { d_queries.as_ptr_unchecked() });
            add_queries(sums, counters, count, &key_tile, inputs.args.heads, &memory);
        }
    } else {
        increase_registers(CONSUMER_REGISTERS);
        consume(inputs, &key_tile, d_qkv, &memory, config);
    }
}

/// The producer: copies keys and values of the key tile, and the tiles of queries with their output gradients, log-sum-exps and deltas.
#[cube]
fn produce(
    inputs: &Inputs,
    key_tile: &KeyTile,
    memory: &SharedMemory,
    #[comptime] config: KernelConfig,
) {
    let tile = key_tile.tile;
    let mut stages = Cursor::new(1u32);
    let thread = UNIT_POS % 128u32;
    let mut producer = Producer::new(PRODUCERS, LAG);
    // The head's offset is added in 64 bits, which takes fewer of the producer's registers.
    let offset = u64::cast_from(key_tile.head * ROW_BYTES);
    let qk = global_address(&inputs.qk) + offset;
    let qkv = global_address(&inputs.qkv) + offset;
    let rows = QkvRows::new(qk, qkv, tile, 0u32, inputs.args, config);
    let d_out = global_address(&inputs.d_out) + offset;
    let d_out = HeadRows::of_heads(d_out, tile, 0u32, inputs.args, config);
    let statistic = u64::cast_from(key_tile.head * inputs.args.total + tile.sequence) * 4u64;
    let (lse, delta) = (global_address(&inputs.lse), global_address(&inputs.delta));
    if key_tile.tiles > 0u32 {
        producer.copy(&rows.k, tile.first, memory.keys, thread, ROWS);
        producer.copy(&rows.v, tile.first, memory.values, thread, ROWS);
        producer.commit_to(memory.full_own);
    }
    let mut query = as_value(key_tile.index);
    for _ in 0..key_tile.tiles {
        let first = i32::cast_from(query * ROWS);
        let to = stages.stage * STATISTIC_BYTES;
        producer.fill(&memory.queries, &stages, &rows.q, first, thread);
        producer.copy_statistic(lse + statistic, tile, first, memory.lse + to, thread, ROWS);
        producer.commit(&memory.queries, &stages);
        producer.fill(&memory.d_out, &stages, &d_out, first, thread);
        producer.copy_statistic(
            delta + statistic,
            tile,
            first,
            memory.delta + to,
            thread,
            ROWS,
        );
        producer.commit(&memory.d_out, &stages);
        stages.advance(STAGES);
        query = key_tile.after(query);
    }
    producer.flush();
}

/// One thread: adds each step's gradient of 128 queries to a sum in global memory, in the order of the terms. The first term overwrites the sum.
#[cube]
fn add_queries(
    sums: u64,
    counters: u64,
    count: u32,
    key_tile: &KeyTile,
    heads: u32,
    memory: &SharedMemory,
) {
    let mut parity = 0u32;
    let mut query = as_value(key_tile.index);
    for _ in 0..key_tile.tiles {
        let second = query < key_tile.index;
        let terms = select(
            second,
            key_tile.tiles - 1u32 - key_tile.index,
            query - key_tile.index,
        );
        let sum_index =
            (key_tile.entry + query) * heads + key_tile.head + select(second, count, 0u32);
        let to = sums + u64::cast_from(sum_index) * comptime!(u64::from(TILE_NUMBERS * 4));
        let counter = counters + u64::cast_from(sum_index) * 4u64;
        if terms > 0u32 {
            wait_for_count(counter, terms);
        }
        #[unroll]
        for group in 0..2u32 {
            memory.d_queries.await_full(group, parity);
            let half = to + comptime!(u64::from(group * HALF_BYTES));
            let from = memory.d_queries.tile(group);
            if terms > 0u32 {
                bulk_add(half, from, HALF_BYTES);
            } else {
                bulk_store(half, from, HALF_BYTES);
            }
        }
        bulk_wait_read();
        memory.d_queries.arrive_empty(0u32, true);
        memory.d_queries.arrive_empty(1u32, true);
        bulk_wait();
        publish_count(counter, terms + 1u32);
        parity ^= 1u32;
        query = key_tile.after(query);
    }
}

/// Scores of a consumer, transposed, `[64 keys, 128 queries]`.
type TransposedScores = WgmmaFragment<Const<64>>;

/// A consumer warp group.
#[cube]
fn consume(
    inputs: &Inputs,
    key_tile: &KeyTile,
    d_qkv: &mut [u32],
    memory: &SharedMemory,
    #[comptime] config: KernelConfig,
) {
    let ty = comptime!(config.ty());
    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let elected = lane == 0u32;
    let block = group * comptime!(64 * ROW_BYTES);
    // Offset at which `stmatrix` writes this lane's rows of a tile of the scores' gradients, transposed: lane `l` gives the address of row
    // `l % 8` of matrix `l / 8`; matrices 0 and 1 are the warp's keys 0 to 7 and 8 to 15 of queries 0 to 7, 2 and 3 of queries 8 to 15.
    let warp = UNIT_POS / 32u32 % 4u32;
    let key_chunk = warp * 2u32 + lane / 8u32 % 2u32;
    let transposed =
        (lane / 16u32 * 8u32 + lane % 8u32) * ROW_BYTES + (key_chunk ^ (lane % 8u32)) * 16u32;
    let half_at = memory.d_queries.tile(group) + UNIT_POS % 128u32 * 16u32;

    let mut stages = Cursor::new(0u32);
    let mut written = Cursor::new(1u32);
    let mut scores = Cursor::new(0u32);
    if key_tile.tiles > 0u32 {
        let coords = FragmentCoords::of_thread(key_tile.tile, key_tile.head, inputs.args, config);
        let mut d_k = Vector::<f32, Const<32>>::zeroed();
        let mut d_v = Vector::<f32, Const<32>>::zeroed();
        mbarrier_wait(memory.full_own, 0u32);
        let k = descriptor(memory.keys + block);
        let v = descriptor(memory.values + block);
        let all_k = descriptor(memory.keys);
        let partial = key_tile.tile.first + comptime!(ROWS as i32) > key_tile.tile.length;
        for _ in 0..key_tile.tiles {
            let q = descriptor(memory.queries.tile(stages.stage));
            let d_out = descriptor(memory.d_out.tile(stages.stage));
            let column = coords.column * 4u32;
            let statistics = StageStatistics {
                lse: memory.lse + stages.stage * STATISTIC_BYTES + column,
                delta: memory.delta + stages.stage * STATISTIC_BYTES + column,
            };
            memory.queries.await_full(stages.stage, stages.parity);
            let s_started = start_multiply::<Const<64>>(k, q, ty);
            memory.d_out.await_full(stages.stage, stages.parity);
            let d_started = start_multiply::<Const<64>>(v, d_out, ty);
            let mut s = WgmmaFragment::new(await_result::<Const<64>>(s_started, 1u32));
            weights::<TransposedScores, StageStatistics>(
                &mut s,
                &statistics,
                inputs.args.scale_log2,
                config,
            );
            if partial {
                hide_rows(&mut s, &coords, config);
            }
            let d_p = WgmmaFragment::new(await_result::<Const<64>>(d_started, 0u32));
            let mut d_s = s;
            score_gradients::<TransposedScores, StageStatistics>(
                &mut d_s,
                &d_p,
                &d_p,
                &statistics,
                config,
            );
            let d_scores = memory.d_scores + scores.stage * SCORE_BYTES;
            let started = start_gradients(
                d_v,
                d_k,
                as_operand_a::<TransposedScores, Const<32>>(&s, 0usize, ty),
                as_operand_a::<TransposedScores, Const<32>>(&d_s, 0usize, ty),
                d_out,
                q,
                descriptor(d_scores + block),
                descriptor(d_scores + TILE_BYTES + block),
                all_k,
                d_scores + group * TILE_BYTES + transposed,
                ty,
            );
            scores.advance(2u32);
            d_v = await_slice::<Const<32>>(started, 0usize, 2u32);
            memory.d_out.arrive_empty(stages.stage, elected);
            memory.d_queries.await_empty(group, written.parity);
            written.advance(1u32);
            let d_q = await_slice::<Const<32>>(started, 64usize, 1u32);
            #[unroll]
            for n_tile in 0..8usize {
                store_shared_floats(
                    half_at + comptime!(n_tile as u32 * 2048),
                    d_q.extract(comptime!(4 * n_tile)),
                    d_q.extract(comptime!(4 * n_tile + 1)),
                    d_q.extract(comptime!(4 * n_tile + 2)),
                    d_q.extract(comptime!(4 * n_tile + 3)),
                );
            }
            fence_async_proxy();
            sync_warp();
            memory.d_queries.arrive_full(group, elected);
            d_k = await_slice::<Const<32>>(started, 32usize, 0u32);
            memory.queries.arrive_empty(stages.stage, elected);
            stages.advance(STAGES);
        }
        let d_k = WgmmaFragment::new(d_k);
        let d_v = WgmmaFragment::new(d_v);
        coords.store_gradient::<Hopper>(d_qkv, d_k, &inputs.rotary, K);
        coords.store::<Hopper>(d_qkv, &d_v, Pair::of_rows(1.0f32, 1.0f32), V);
    }
}

/// Log-sum-exp and delta of the queries of a stage, which are columns of scores: addresses of the values of this thread's first query.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct StageStatistics {
    lse: u32,
    delta: u32,
}

#[cube]
impl Statistics for StageStatistics {
    fn lse(&self, #[comptime] n_tile: usize) -> Pair {
        let lse = load_shared_pair(self.lse + comptime!(n_tile as u32 * 32));
        Pair::of_columns(lse.extract(0usize) * LOG2_E, lse.extract(1usize) * LOG2_E)
    }

    fn delta(&self, #[comptime] n_tile: usize) -> Pair {
        let delta = load_shared_pair(self.delta + comptime!(n_tile as u32 * 32));
        Pair::of_columns(delta.extract(0usize), delta.extract(1usize))
    }
}

/// Removes the weights of keys beyond the end of the sequence.
#[cube]
fn hide_rows(s: &mut TransposedScores, coords: &FragmentCoords, #[comptime] config: KernelConfig) {
    let upper = coords.tile.has(coords.row);
    let lower = coords.tile.has(coords.row + 8i32);
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        #[unroll]
        for e in 0..4usize {
            let seen = if comptime!(e < 2) { upper } else { lower };
            s.set(n_tile, e, select(seen, s.get(n_tile, e), 0.0f32));
        }
    }
}

/// Threads of a block of [`finish_queries`].
pub(in super::super::super) const FINISH_THREADS: u32 = 256;

/// The gradient of the queries, projection 0 of `d_qkv`: both sums of a tile, added, times the scale, with the transpose of RoPE. Block x is a head, block
/// (y, z) a tile of [`ROWS`] queries.
///
/// N-tile `p` of a consumer's half of a tile is a block of 512 numbers, four of each thread: the elements of n-tile `p` of the thread's
/// fragment `[64, 64]`.
#[cube(launch_unchecked)]
pub(in super::super::super) fn finish_queries(
    sums: &[Vector<f32, Const<4>>],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    args: Args,
    #[comptime] rope: bool,
    #[comptime] half: bool,
) {
    let config = comptime!(fragment_config(ROWS, ROWS, rope, half));
    let tile = AttentionTile::of_block(tiles, args.half_window);
    let coords = FragmentCoords::of_thread(tile, CUBE_POS_X, args, config);
    let entry = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) * args.heads + CUBE_POS_X;
    let first =
        entry * comptime!(TILE_NUMBERS / 4) + UNIT_POS / 128u32 * 1024u32 + UNIT_POS % 128u32;
    let second = first + CUBE_COUNT_X * CUBE_COUNT_Y * CUBE_COUNT_Z * comptime!(TILE_NUMBERS / 4);
    let mut d_q = WgmmaFragment::new(Vector::<f32, Const<32>>::zeroed());
    add_sum(&mut d_q, sums, first, true);
    // The last tile of a sequence has no terms of later blocks.
    if tile.first + comptime!(ROWS as i32) < tile.length {
        add_sum(&mut d_q, sums, second, false);
    }
    coords.store_gradient::<Hopper>(d_qkv, d_q, rotary, Q);
}

/// Adds this thread's numbers of a sum, from the vector `at` on; replaces `d_q` if they are the first.
#[cube]
fn add_sum(
    d_q: &mut WgmmaFragment<Const<32>>,
    sums: &[Vector<f32, Const<4>>],
    at: u32,
    #[comptime] first: bool,
) {
    #[unroll]
    for n_tile in 0..8usize {
        let numbers = sums[(at + comptime!(n_tile as u32 * 128)) as usize];
        #[unroll]
        for e in 0..4usize {
            if comptime!(first) {
                d_q.set(n_tile, e, numbers.extract(e));
            } else {
                d_q.set(n_tile, e, d_q.get(n_tile, e) + numbers.extract(e));
            }
        }
    }
}
