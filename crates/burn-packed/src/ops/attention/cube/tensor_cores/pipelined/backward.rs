//! The warp-specialized backward kernels: all gradients in one pass over the scores, deterministically.

use cubecl::prelude::*;

use super::super::super::tile::{K, Q, Tile, V};
use super::super::fragments::*;
use super::super::hopper::{Hopper, WgmmaFragment};
use super::super::ptx::*;
use super::super::rows::Rows;
use super::super::shape::{Args, dtype};
use super::super::wgmma::{descriptor, left_operand};
use super::fragment_shape;
use super::producer::*;
use super::ptx::*;

/// Keys of a tile, and queries of a stage: 64 keys to a consumer warp group.
pub(in super::super::super) const ROWS: u32 = 128;
/// Stages of queries and of gradients of the output.
const STAGES: u32 = 2;
/// Threads of a block: two consumers, then the producer's warp group.
pub(in super::super::super) const THREADS: u32 = 384;
/// Threads of the producer; the warp after them writes the gradient of the queries.
const PRODUCERS: u32 = 64;
/// Registers of a thread: together those of 384 threads with 168 each.
const CONSUMER_REGISTERS: u32 = 240;
const PRODUCER_REGISTERS: u32 = 24;
/// Stages the producer starts before it hands one over.
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
/// Behind the barriers, the block's ticket.
const TICKET: u32 = BARRIERS + 8 * (1 + 4 * STAGES + 4);
const SHARED_BYTES: u32 = TICKET + 8;

/// Places in shared memory.
#[derive(CubeType, Clone, Copy)]
struct Memory {
    keys: u32,
    values: u32,
    queries: u32,
    d_out: u32,
    /// Two tiles of the scores' gradients: the consumers write one while the other may still be read.
    d_scores: u32,
    d_queries: u32,
    lse: u32,
    delta: u32,
    /// Keys and values.
    full_own: u32,
    full_queries: u32,
    empty_queries: u32,
    full_d_out: u32,
    empty_d_out: u32,
    /// Each consumer's half of the gradient of the queries.
    full_d_queries: u32,
    empty_d_queries: u32,
    ticket: u32,
}

#[cube]
impl Memory {
    fn new(base: u32) -> Memory {
        let barriers = base + BARRIERS;
        let queries = base + comptime!(2 * TILE_BYTES);
        let d_out = queries + comptime!(STAGES * TILE_BYTES);
        let d_scores = d_out + comptime!(STAGES * TILE_BYTES);
        let d_queries = d_scores + comptime!(2 * SCORE_BYTES);
        let lse = d_queries + comptime!(2 * HALF_BYTES);
        Memory {
            keys: base,
            values: base + TILE_BYTES,
            queries,
            d_out,
            d_scores,
            d_queries,
            lse,
            delta: lse + comptime!(STAGES * STATISTIC_BYTES),
            full_own: barriers,
            full_queries: barriers + 8u32,
            empty_queries: barriers + comptime!(8 + 8 * STAGES),
            full_d_out: barriers + comptime!(8 + 16 * STAGES),
            empty_d_out: barriers + comptime!(8 + 24 * STAGES),
            full_d_queries: barriers + comptime!(8 + 32 * STAGES),
            empty_d_queries: barriers + comptime!(24 + 32 * STAGES),
            ticket: base + TICKET,
        }
    }

    fn init(&self) {
        mbarrier_init(self.full_own, 2u32);
        #[unroll]
        for i in 0..STAGES {
            mbarrier_init(self.full_queries + comptime!(8 * i), 2u32);
            mbarrier_init(self.empty_queries + comptime!(8 * i), 8u32);
            mbarrier_init(self.full_d_out + comptime!(8 * i), 2u32);
            mbarrier_init(self.empty_d_out + comptime!(8 * i), 8u32);
        }
        #[unroll]
        for i in 0..2u32 {
            mbarrier_init(self.full_d_queries + comptime!(8 * i), 4u32);
            mbarrier_init(self.empty_d_queries + comptime!(8 * i), 1u32);
        }
        mbarrier_init_fence();
    }
}

/// A tile of keys of a head.
#[derive(CubeType, Clone, Copy)]
struct Item {
    tile: Tile,
    head: u32,
    /// Index of the tile in its sequence.
    index: u32,
    /// Tiles of the sequence.
    tiles: u32,
    /// Index of the sequence's first entry in the tile table.
    entry: u32,
}

#[cube]
impl Item {
    /// Tickets are ordered by sequence and head, the last tile of a sequence first.
    fn new(table: &[u32], ticket: u32, args: &Args) -> Item {
        let some = Tile::of_entry(table, ticket / args.heads, args.half_window);
        let tiles = (u32::cast_from(some.length) + comptime!(ROWS - 1)) / ROWS;
        let entry = ticket / args.heads - u32::cast_from(some.first) / ROWS;
        let place = ticket - entry * args.heads;
        // An entry without rows, which pads the table, has no tiles.
        let divisor = max(tiles, 1u32);
        let index = divisor - 1u32 - place % divisor;
        Item {
            tile: Tile {
                first: i32::cast_from(index * ROWS),
                sequence: some.sequence,
                length: some.length,
                half_window: some.half_window,
            },
            head: place / divisor,
            index,
            tiles,
            entry,
        }
    }

    /// The tile of queries after `query`; after the last comes the first.
    fn after(&self, query: u32) -> u32 {
        select(query + 1u32 == self.tiles, 0u32, query + 1u32)
    }
}

/// Gradients of keys and values, part 1 and 2 of `d_qkv` `[total, 3, heads, 64]`, and sums of the gradient of the queries,
/// `d_queries` `[2, tiles, heads, 8192]` (see [`finish_queries`]).
///
/// A block computes one tile of [`ROWS`] keys of a head and loops over the tiles of queries. Warp groups 0 and 1 are consumers with 64
/// keys each. Of warp group 2, two warps are the producer (the life of its barriers: [`super::producer`]), and one thread adds to
/// `d_queries`.
///
/// For each tile of queries, a consumer computes, transposed, the scores and the gradients of the weights, `[64 keys, 128 queries]`;
/// then the gradient of the scores. These pass through shared memory, since the gradient of 64 queries needs all 128 keys: named
/// barrier 1 of both consumers makes them visible. There are two tiles of them, so that one barrier a step is enough: a consumer
/// that passes it has read the other tile.
///
/// The blocks of a sequence add to the gradient of the same queries. They do so in a fixed order, so that it is deterministic:
///
/// - Block `j` of `n` starts with tile `j` of the queries and continues with the tiles after it, after the last with the first. In step `i`, the
///   blocks are at different tiles.
/// - Tile `q` has two sums, of the terms of blocks `q, q - 1, …, 0` and of blocks `n - 1, n - 2, …, q + 1`, in this order. `counters`
///   `[2, tiles, heads]` counts the terms of a sum, and a block waits until those before its own are added: for block `j + 1`, which had the tile one
///   step before. All blocks progress at the same speed, so that they usually are.
/// - Which block computes what is decided when a block starts, by a ticket: the number behind `counters` counts them. A later tile of a
///   sequence has an earlier ticket. A block therefore waits only for blocks that have started, and there is no deadlock, whatever
///   the number of blocks that are resident.
#[allow(clippy::too_many_arguments)] // each tensor is an argument
#[cube(launch_unchecked)]
pub(in super::super::super) fn pipelined_backward(
    qk: &[u32],
    qkv: &[u32],
    d_out: &[u32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    rotary: &[f32],
    d_queries: &mut [f32],
    counters: &mut [u32],
    d_qkv: &mut [u32],
    args: &Args,
    #[comptime] rope: bool,
    #[comptime] half: bool,
) {
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(SHARED_BYTES as usize / 4), 1024usize);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let memory = Memory::new(shared_address(unsafe { shared.as_ptr_unchecked() }));
    // Sums of one kind, and blocks: one for each tile and head.
    let count = CUBE_COUNT_X;
    // SAFETY: buffers of a launch have elements and only their addresses are used.
    let counters = global_address(unsafe { counters.as_ptr_unchecked() });
    if UNIT_POS == 0u32 {
        store_shared(
            memory.ticket,
            take_ticket(counters + u64::cast_from(count) * 8u64),
        );
        memory.init();
    }
    sync_cube();
    let item = Item::new(tiles, load_shared(memory.ticket), args);
    if UNIT_POS >= 256u32 {
        decrease_registers(PRODUCER_REGISTERS);
        if UNIT_POS < comptime!(256 + PRODUCERS) {
            let sources = Sources {
                // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
                q: global_address(unsafe { qk.as_ptr_unchecked() }),
                // SAFETY: as above.
                v: global_address(unsafe { qkv.as_ptr_unchecked() }),
                // SAFETY: as above.
                d_out: global_address(unsafe { d_out.as_ptr_unchecked() }),
                // SAFETY: as above.
                lse: global_float_address(unsafe { lse.as_ptr_unchecked() }),
                // SAFETY: as above.
                delta: global_float_address(unsafe { delta.as_ptr_unchecked() }),
            };
            produce(&sources, &item, args, &memory);
        } else if UNIT_POS == comptime!(256 + PRODUCERS) {
            // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
            let sums = global_float_address(unsafe { d_queries.as_ptr_unchecked() });
            add_queries(sums, counters, count, &item, args, &memory);
        }
    } else {
        increase_registers(CONSUMER_REGISTERS);
        consume(&item, rotary, d_qkv, args, &memory, rope, half);
    }
}

/// Addresses of the tensors.
#[derive(CubeType, Clone, Copy)]
struct Sources {
    q: u64,
    v: u64,
    d_out: u64,
    lse: u64,
    delta: u64,
}

/// The producer: copies keys and values of the item, and its tiles of queries with what belongs to them.
#[cube]
fn produce(sources: &Sources, item: &Item, args: &Args, memory: &Memory) {
    let thread = UNIT_POS % 128u32;
    let mut stages = Ring::new(1u32);
    let mut handover = Handover::new();
    let offset = u64::cast_from(item.head * ROW_BYTES);
    let q_rows = Rows {
        base: sources.q + offset,
        pitch: args.qk_row,
    };
    let k_rows = Rows {
        base: sources.q + offset + u64::cast_from(args.k_offset),
        pitch: args.qk_row,
    };
    let v_rows = Rows {
        base: sources.v + offset + u64::cast_from(args.v_offset),
        pitch: args.v_row,
    };
    let d_out_rows = Rows {
        base: sources.d_out + offset,
        pitch: args.heads * ROW_BYTES,
    };
    let statistic = u64::cast_from(item.head * args.total + item.tile.sequence) * 4u64;
    if item.tiles > 0u32 {
        copy_rows(
            &k_rows,
            &item.tile,
            item.tile.first,
            memory.keys,
            thread,
            ROWS,
            PRODUCERS,
        );
        copy_rows(
            &v_rows,
            &item.tile,
            item.tile.first,
            memory.values,
            thread,
            ROWS,
            PRODUCERS,
        );
        handover.commit(memory.full_own, LAG);
    }
    let mut query = value(item.index);
    for _ in 0..item.tiles {
        let first = i32::cast_from(query * ROWS);
        let barrier = stages.stage * 8u32;
        let to = stages.stage * TILE_BYTES;
        let statistic_to = stages.stage * STATISTIC_BYTES;
        handover.acquire(memory.empty_queries + barrier, stages.parity);
        copy_rows(
            &q_rows,
            &item.tile,
            first,
            memory.queries + to,
            thread,
            ROWS,
            PRODUCERS,
        );
        copy_statistic(
            sources.lse + statistic,
            &item.tile,
            first,
            memory.lse + statistic_to,
            thread,
            ROWS,
            PRODUCERS,
        );
        handover.commit(memory.full_queries + barrier, LAG);
        handover.acquire(memory.empty_d_out + barrier, stages.parity);
        copy_rows(
            &d_out_rows,
            &item.tile,
            first,
            memory.d_out + to,
            thread,
            ROWS,
            PRODUCERS,
        );
        copy_statistic(
            sources.delta + statistic,
            &item.tile,
            first,
            memory.delta + statistic_to,
            thread,
            ROWS,
            PRODUCERS,
        );
        handover.commit(memory.full_d_out + barrier, LAG);
        stages.advance(STAGES);
        query = item.after(query);
    }
    handover.flush();
}

/// One thread: adds each step's gradient of 128 queries to a sum in global memory, in the order of the terms. The first term is stored.
#[cube]
fn add_queries(sums: u64, counters: u64, count: u32, item: &Item, args: &Args, memory: &Memory) {
    let mut parity = 0u32;
    let mut query = value(item.index);
    for _ in 0..item.tiles {
        let second = query < item.index;
        let terms = select(second, item.tiles - 1u32 - item.index, query - item.index);
        let place = (item.entry + query) * args.heads + item.head + select(second, count, 0u32);
        let to = sums + u64::cast_from(place) * comptime!(u64::from(TILE_NUMBERS * 4));
        let counter = counters + u64::cast_from(place) * 4u64;
        if terms > 0u32 {
            wait_for_count(counter, terms);
        }
        #[unroll]
        for group in 0..2u32 {
            mbarrier_wait(memory.full_d_queries + comptime!(8 * group), parity);
            let half = to + comptime!(u64::from(group * HALF_BYTES));
            let from = memory.d_queries + comptime!(group * HALF_BYTES);
            if terms > 0u32 {
                bulk_add(half, from, HALF_BYTES);
            } else {
                bulk_store(half, from, HALF_BYTES);
            }
        }
        bulk_wait_read();
        mbarrier_arrive(memory.empty_d_queries);
        mbarrier_arrive(memory.empty_d_queries + 8u32);
        bulk_wait();
        publish_count(counter, terms + 1u32);
        parity ^= 1u32;
        query = item.after(query);
    }
}

/// A consumer warp group.
#[allow(clippy::too_many_arguments)] // two of them are known at compile time
#[cube]
fn consume(
    item: &Item,
    rotary: &[f32],
    d_qkv: &mut [u32],
    args: &Args,
    memory: &Memory,
    #[comptime] rope: bool,
    #[comptime] half: bool,
) {
    let ty = comptime!(dtype(half));
    let shape = comptime!(fragment_shape(ROWS, ROWS, half));
    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let elected = lane == 0u32;
    let block = group * comptime!(64 * ROW_BYTES);
    // Where `stmatrix` writes this lane's rows of a tile of the scores' gradients, transposed: lane `l` gives the address of row
    // `l % 8` of matrix `l / 8`; matrices 0 and 1 are the warp's keys 0 to 7 and 8 to 15 of queries 0 to 7, 2 and 3 of queries 8 to 15.
    let warp = UNIT_POS / 32u32 % 4u32;
    let key_chunk = warp * 2u32 + lane / 8u32 % 2u32;
    let transposed =
        (lane / 16u32 * 8u32 + lane % 8u32) * ROW_BYTES + (key_chunk ^ (lane % 8u32)) * 16u32;
    let half_at = memory.d_queries + group * HALF_BYTES + UNIT_POS % 128u32 * 16u32;

    let mut stages = Ring::new(0u32);
    let mut written = Ring::new(1u32);
    let mut scores = Ring::new(0u32);
    if item.tiles > 0u32 {
        let place = Place::of_thread(&item.tile, shape);
        let mut d_k = Vector::<f32, Const<32>>::zeroed();
        let mut d_v = Vector::<f32, Const<32>>::zeroed();
        mbarrier_wait(memory.full_own, 0u32);
        let k = descriptor(memory.keys + block);
        let v = descriptor(memory.values + block);
        let all_k = descriptor(memory.keys);
        let partial = item.tile.first + comptime!(ROWS as i32) > item.tile.length;
        for _ in 0..item.tiles {
            let q = descriptor(memory.queries + stages.stage * TILE_BYTES);
            let d_out = descriptor(memory.d_out + stages.stage * TILE_BYTES);
            let column = place.column * 4u32;
            let lse = memory.lse + stages.stage * STATISTIC_BYTES + column;
            let delta = memory.delta + stages.stage * STATISTIC_BYTES + column;
            mbarrier_wait(memory.full_queries + stages.stage * 8u32, stages.parity);
            let s_started = start_multiply::<Const<64>>(k, q, ty);
            mbarrier_wait(memory.full_d_out + stages.stage * 8u32, stages.parity);
            let d_started = start_multiply::<Const<64>>(v, d_out, ty);
            let mut s = await_result::<Const<64>>(s_started, 1u32);
            weights(&mut s, lse, args.scale_log2);
            if partial {
                hide_rows(&mut s, &place, &item.tile);
            }
            let mut d = await_result::<Const<64>>(d_started, 0u32);
            score_gradients(&mut d, &s, delta);
            let p = left_operand(&s, ty);
            let e = left_operand(&d, ty);
            let d_scores = memory.d_scores + scores.stage * SCORE_BYTES;
            let started = start_gradients(
                d_v,
                d_k,
                &p,
                &e,
                d_out,
                q,
                descriptor(d_scores + block),
                descriptor(d_scores + TILE_BYTES + block),
                all_k,
                d_scores + group * TILE_BYTES + transposed,
                ty,
            );
            scores.advance(2u32);
            d_v = await_part::<Const<32>>(started, 0usize, 2u32);
            if elected {
                mbarrier_arrive(memory.empty_d_out + stages.stage * 8u32);
            }
            mbarrier_wait(memory.empty_d_queries + group * 8u32, written.parity);
            written.advance(1u32);
            let d_q = await_part::<Const<32>>(started, 64usize, 1u32);
            #[unroll]
            for part in 0..8usize {
                store_shared_floats(
                    half_at + comptime!(part as u32 * 2048),
                    d_q.extract(comptime!(4 * part)),
                    d_q.extract(comptime!(4 * part + 1)),
                    d_q.extract(comptime!(4 * part + 2)),
                    d_q.extract(comptime!(4 * part + 3)),
                );
            }
            fence_async_proxy();
            sync_warp();
            if elected {
                mbarrier_arrive(memory.full_d_queries + group * 8u32);
            }
            d_k = await_part::<Const<32>>(started, 32usize, 0u32);
            if elected {
                mbarrier_arrive(memory.empty_queries + stages.stage * 8u32);
            }
            stages.advance(STAGES);
        }
        let mut k_fragment = WgmmaFragment { elements: d_k };
        let v_fragment = WgmmaFragment { elements: d_v };
        if comptime!(rope) {
            apply_rope_transposed::<Hopper>(&mut k_fragment, rotary, &place, &item.tile, shape);
        }
        let scale = Pair::both(args.scale);
        let one = Pair::both(1.0f32);
        store::<Hopper>(
            d_qkv,
            &k_fragment,
            &scale,
            &place,
            &item.tile,
            item.head,
            args.heads,
            K,
            shape,
        );
        store::<Hopper>(
            d_qkv,
            &v_fragment,
            &one,
            &place,
            &item.tile,
            item.head,
            args.heads,
            V,
            shape,
        );
    }
}

/// Replaces scores `[keys, queries]` by their weights; `lse` is the shared-memory address of the log-sum-exp of this thread's first query.
#[cube]
fn weights(s: &mut Vector<f32, Const<64>>, lse: u32, scale_log2: f32) {
    #[unroll]
    for part in 0..16usize {
        let pair = load_shared_pair(lse + comptime!(part as u32 * 32));
        let (lse0, lse1) = (pair.extract(0usize) * LOG2_E, pair.extract(1usize) * LOG2_E);
        #[unroll]
        for e in 0..4usize {
            let i = comptime!(4 * part + e);
            let lse = if comptime!(e % 2 == 0) { lse0 } else { lse1 };
            s.insert(i, exp2(s.extract(i) * scale_log2 - lse));
        }
    }
}

/// Removes the weights of keys beyond the end of the sequence.
#[cube]
fn hide_rows(s: &mut Vector<f32, Const<64>>, place: &Place, tile: &Tile) {
    let upper = place.row < tile.length;
    let lower = place.row + 8i32 < tile.length;
    #[unroll]
    for i in 0..64usize {
        let seen = if comptime!(i % 4 < 2) { upper } else { lower };
        s.insert(i, select(seen, s.extract(i), 0.0f32));
    }
}

/// Replaces the gradients of weights `d` by those of the scores: `weights · (d - delta)`.
#[cube]
fn score_gradients(d: &mut Vector<f32, Const<64>>, weights: &Vector<f32, Const<64>>, delta: u32) {
    #[unroll]
    for part in 0..16usize {
        let pair = load_shared_pair(delta + comptime!(part as u32 * 32));
        let (delta0, delta1) = (pair.extract(0usize), pair.extract(1usize));
        #[unroll]
        for e in 0..4usize {
            let i = comptime!(4 * part + e);
            let delta = if comptime!(e % 2 == 0) {
                delta0
            } else {
                delta1
            };
            d.insert(i, weights.extract(i) * (d.extract(i) - delta));
        }
    }
}

/// Threads of a block of [`finish_queries`].
pub(in super::super::super) const FINISH_THREADS: u32 = 256;

/// The gradient of the queries, part 0 of `d_qkv`: both sums of a tile, added, times the scale, with the transpose of RoPE. Block x is a head, block
/// (y, z) a tile of [`ROWS`] queries.
///
/// Part `p` of a consumer's half of a tile is a block of 512 numbers, four of each thread: the elements of part `p` of the thread's
/// fragment `[64, 64]`.
#[cube(launch_unchecked)]
pub(in super::super::super) fn finish_queries(
    sums: &[Vector<f32, Const<4>>],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    args: &Args,
    #[comptime] rope: bool,
    #[comptime] half: bool,
) {
    let shape = comptime!(fragment_shape(ROWS, ROWS, half));
    let tile = Tile::of_block(tiles, args.half_window);
    let place = Place::of_thread(&tile, shape);
    let entry = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) * args.heads + CUBE_POS_X;
    let first =
        entry * comptime!(TILE_NUMBERS / 4) + UNIT_POS / 128u32 * 1024u32 + UNIT_POS % 128u32;
    let second = first + CUBE_COUNT_X * CUBE_COUNT_Y * CUBE_COUNT_Z * comptime!(TILE_NUMBERS / 4);
    let mut d_q = Vector::<f32, Const<32>>::zeroed();
    #[unroll]
    for part in 0..8usize {
        let numbers = sums[(first + comptime!(part as u32 * 128)) as usize];
        #[unroll]
        for e in 0..4usize {
            d_q.insert(comptime!(4 * part + e), numbers.extract(e));
        }
    }
    // The last tile of a sequence has no terms of later blocks.
    if tile.first + comptime!(ROWS as i32) < tile.length {
        #[unroll]
        for part in 0..8usize {
            let numbers = sums[(second + comptime!(part as u32 * 128)) as usize];
            #[unroll]
            for e in 0..4usize {
                let i = comptime!(4 * part + e);
                d_q.insert(i, d_q.extract(i) + numbers.extract(e));
            }
        }
    }
    let mut fragment = WgmmaFragment { elements: d_q };
    if comptime!(rope) {
        apply_rope_transposed::<Hopper>(&mut fragment, rotary, &place, &tile, shape);
    }
    let scale = Pair::both(args.scale);
    store::<Hopper>(
        d_qkv, &fragment, &scale, &place, &tile, CUBE_POS_X, args.heads, Q, shape,
    );
}
