//! The warp-specialized forward kernel.

use cubecl::prelude::*;

use super::super::super::tile::{OUT, Tile};
use super::super::fragments::*;
use super::super::hopper::{Hopper, WgmmaFragment};
use super::super::ptx::*;
use super::super::rows::Rows;
use super::super::shape::{Args, dtype};
use super::super::wgmma::{descriptor, left_operand};
use super::fragment_shape;
use super::producer::*;
use super::ptx::*;

/// Consumer warp groups, each with 64 queries.
pub(super) const GROUPS: u32 = 3;
/// Queries of a tile.
pub(in super::super::super) const QUERIES: u32 = GROUPS * 64;
/// Keys of a stage.
const KEYS: u32 = 128;
/// Stages of keys and of values.
const STAGES: u32 = 3;
/// Threads of a block: the consumers, then the producer.
pub(in super::super::super) const THREADS: u32 = (GROUPS + 1) * 128;
/// Registers of a consumer's and a producer's thread: together those of 512 threads with 128 each.
const CONSUMER_REGISTERS: u32 = 160;
const PRODUCER_REGISTERS: u32 = 32;
/// Stages the producer starts before it hands one over.
const LAG: u32 = 2;
/// How far a row's scores may exceed its reference before the reference follows, in units of log2: weights stay below 2^8.
const SLACK: f32 = 8.0;

const QUERY_BYTES: u32 = QUERIES * ROW_BYTES;
const STAGE_BYTES: u32 = KEYS * ROW_BYTES;
const NEG_INF: f32 = f32::NEG_INFINITY;

/// Places in shared memory: two tiles of queries, the stages of keys and of values, the mbarriers.
#[derive(CubeType, Clone, Copy)]
struct Memory {
    queries: u32,
    keys: u32,
    values: u32,
    full_queries: u32,
    empty_queries: u32,
    full_keys: u32,
    empty_keys: u32,
    full_values: u32,
    empty_values: u32,
}

/// Bytes of tiles, and with the barriers.
const TILE_BYTES: u32 = 2 * QUERY_BYTES + 2 * STAGES * STAGE_BYTES;
const SHARED_BYTES: u32 = TILE_BYTES + 8 * (4 + 4 * STAGES);

#[cube]
impl Memory {
    fn new(base: u32) -> Memory {
        let barriers = base + TILE_BYTES;
        Memory {
            queries: base,
            keys: base + comptime!(2 * QUERY_BYTES),
            values: base + comptime!(2 * QUERY_BYTES + STAGES * STAGE_BYTES),
            full_queries: barriers,
            empty_queries: barriers + 16u32,
            full_keys: barriers + 32u32,
            empty_keys: barriers + comptime!(32 + 8 * STAGES),
            full_values: barriers + comptime!(32 + 16 * STAGES),
            empty_values: barriers + comptime!(32 + 24 * STAGES),
        }
    }

    fn init(&self) {
        #[unroll]
        for i in 0..2u32 {
            mbarrier_init(self.full_queries + comptime!(8 * i), 4u32);
            mbarrier_init(self.empty_queries + comptime!(8 * i), comptime!(GROUPS * 4));
        }
        #[unroll]
        for i in 0..STAGES {
            mbarrier_init(self.full_keys + comptime!(8 * i), 4u32);
            mbarrier_init(self.full_values + comptime!(8 * i), 4u32);
            mbarrier_init(self.empty_keys + comptime!(8 * i), comptime!(GROUPS * 4));
            mbarrier_init(self.empty_values + comptime!(8 * i), comptime!(GROUPS * 4));
        }
        mbarrier_init_fence();
    }
}

/// Output `[total, heads, 64]` and log-sum-exp `[heads, total]` of global attention without softcap.
///
/// A block takes tiles of [`QUERIES`] queries of a head, every `CUBE_COUNT_X`-th of `work`; consecutive ones are the heads of an entry of
/// `tiles`. The tensors are those of the [other forward kernel](super::super::forward).
///
/// Warp groups 0 to 2 are consumers with 64 queries each, warp group 3 is the producer. Tiles of keys and values pass through rings
/// of [`STAGES`] stages, from the end of the sequence to its start, so that only the first can need a mask; queries are
/// double-buffered. (The life of the barriers: [`super::producer`].) The producer does not stop between tiles of queries.
///
/// A consumer starts the scores of the next keys and, behind them, the output of these keys. While the tensor cores work on the
/// latter, it computes the softmax of the former. Consumers alternate: named barrier `1 + group` tells a group that it may start
/// WGMMAs, so that one group's softmax runs during the others' WGMMAs.
///
/// A row's weights are `exp2(score - reference)`. The reference is not the maximum, but within [`SLACK`] of it, and changes rarely:
/// sums need rescaling in the first steps only.
#[allow(clippy::too_many_arguments)] // each tensor is an argument
#[cube(launch_unchecked)]
pub(in super::super::super) fn pipelined_forward(
    qk: &[u32],
    qkv: &[u32],
    tiles: &[u32],
    out: &mut [u32],
    lse: &mut [f32],
    args: &Args,
    work: u32,
    #[comptime] half: bool,
) {
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(SHARED_BYTES as usize / 4), 1024usize);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let memory = Memory::new(shared_address(unsafe { shared.as_ptr_unchecked() }));
    if UNIT_POS == 0u32 {
        memory.init();
    }
    sync_cube();
    if UNIT_POS >= comptime!(GROUPS * 128) {
        decrease_registers(PRODUCER_REGISTERS);
        // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
        let q = global_address(unsafe { qk.as_ptr_unchecked() });
        // SAFETY: as above.
        let v = global_address(unsafe { qkv.as_ptr_unchecked() });
        produce(q, v, tiles, args, work, &memory);
    } else {
        increase_registers(CONSUMER_REGISTERS);
        consume(tiles, out, lse, args, work, &memory, half);
    }
}

/// The tile of queries of work item `item`, and its head.
#[cube]
fn tile_and_head(tiles: &[u32], item: u32, args: &Args) -> (Tile, u32) {
    (
        Tile::of_entry(tiles, item / args.heads, args.half_window),
        item % args.heads,
    )
}

/// The producer: copies the tiles of all work items.
#[cube]
fn produce(q: u64, v: u64, tiles: &[u32], args: &Args, work: u32, memory: &Memory) {
    let thread = UNIT_POS % 128u32;
    let mut queries = Ring::new(1u32);
    let mut stages = Ring::new(1u32);
    let mut handover = Handover::new();
    let mut item = value(CUBE_POS_X);
    while item < work {
        let (tile, head) = tile_and_head(tiles, item, args);
        let offset = u64::cast_from(head * ROW_BYTES);
        let q_rows = Rows {
            base: q + offset,
            pitch: args.qk_row,
        };
        let k_rows = Rows {
            base: q_rows.base + u64::cast_from(args.k_offset),
            pitch: args.qk_row,
        };
        let v_rows = Rows {
            base: v + offset + u64::cast_from(args.v_offset),
            pitch: args.v_row,
        };
        let steps = (tile.length + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);
        if steps > 0i32 {
            let full = memory.full_queries + queries.stage * 8u32;
            handover.acquire(memory.empty_queries + queries.stage * 8u32, queries.parity);
            let to = memory.queries + queries.stage * QUERY_BYTES;
            copy_rows(&q_rows, &tile, tile.first, to, thread, QUERIES, 128u32);
            handover.commit(full, LAG);
            queries.advance(2u32);
        }
        for step in 0..steps {
            let first = (steps - 1i32 - step) * comptime!(KEYS as i32);
            let barrier = stages.stage * 8u32;
            let to = stages.stage * STAGE_BYTES;
            handover.acquire(memory.empty_keys + barrier, stages.parity);
            copy_rows(
                &k_rows,
                &tile,
                first,
                memory.keys + to,
                thread,
                KEYS,
                128u32,
            );
            handover.commit(memory.full_keys + barrier, LAG);
            handover.acquire(memory.empty_values + barrier, stages.parity);
            copy_rows(
                &v_rows,
                &tile,
                first,
                memory.values + to,
                thread,
                KEYS,
                128u32,
            );
            handover.commit(memory.full_values + barrier, LAG);
            stages.advance(STAGES);
        }
        item += CUBE_COUNT_X;
    }
    handover.flush();
}

/// Softmax of this thread's two rows: each row's reference in units of log2, and this thread's share of the sum of weights.
#[derive(CubeType)]
struct Softmax {
    reference: Pair,
    sum: Pair,
}

#[cube]
impl Softmax {
    fn new() -> Softmax {
        Softmax {
            reference: Pair::both(f32::new(NEG_INF)),
            sum: Pair::both(0.0f32),
        }
    }

    /// Replaces a tile's scores by their weights and returns the factors for earlier sums, 1 where a reference stays.
    fn update(&mut self, s: &mut Vector<f32, Const<64>>, scale_log2: f32) -> Pair {
        let mut upper = s.extract(0usize);
        let mut lower = s.extract(2usize);
        #[unroll]
        for i in 0..16usize {
            upper = max(
                upper,
                max(s.extract(comptime!(4 * i)), s.extract(comptime!(4 * i + 1))),
            );
            lower = max(
                lower,
                max(
                    s.extract(comptime!(4 * i + 2)),
                    s.extract(comptime!(4 * i + 3)),
                ),
            );
        }
        let upper = follow(self.reference.upper, quad_max(upper) * scale_log2);
        let lower = follow(self.reference.lower, quad_max(lower) * scale_log2);
        let factor = Pair {
            upper: exp2(self.reference.upper - upper),
            lower: exp2(self.reference.lower - lower),
        };
        self.reference.upper = upper;
        self.reference.lower = lower;
        let mut sum_upper = 0.0f32;
        let mut sum_lower = 0.0f32;
        #[unroll]
        for i in 0..16usize {
            #[unroll]
            for e in 0..4usize {
                let reference = if comptime!(e < 2) { upper } else { lower };
                let weight = exp2(s.extract(comptime!(4 * i + e)) * scale_log2 - reference);
                s.insert(comptime!(4 * i + e), weight);
                if comptime!(e < 2) {
                    sum_upper += weight;
                } else {
                    sum_lower += weight;
                }
            }
        }
        self.sum.upper = self.sum.upper * factor.upper + sum_upper;
        self.sum.lower = self.sum.lower * factor.lower + sum_lower;
        factor
    }
}

/// A row's reference after a tile with maximum `top`.
#[cube]
fn follow(reference: f32, top: f32) -> f32 {
    select(top > reference + SLACK, top, reference)
}

/// Hides keys at and beyond `left`, counted from this thread's first key.
#[cube]
fn hide_beyond(s: &mut Vector<f32, Const<64>>, left: i32) {
    #[unroll]
    for i in 0..64usize {
        let key = comptime!((i / 4 * 8 + i % 2) as i32);
        s.insert(i, select(key < left, s.extract(i), f32::new(NEG_INF)));
    }
}

/// A consumer warp group.
#[cube]
fn consume(
    tiles: &[u32],
    out: &mut [u32],
    lse: &mut [f32],
    args: &Args,
    work: u32,
    memory: &Memory,
    #[comptime] half: bool,
) {
    let ty = comptime!(dtype(half));
    let shape = comptime!(fragment_shape(QUERIES, KEYS, half));
    let group = UNIT_POS / 128u32;
    let next = select(group == comptime!(GROUPS - 1), 0u32, group + 1u32);
    let elected = UNIT_POS % 32u32 == 0u32;
    let mut queries = Ring::new(0u32);
    let mut stages = Ring::new(0u32);
    // Stands for the arrival of the last group before the first group starts.
    if group == 0u32 {
        named_barrier_arrive(1u32, 256u32);
    }
    let mut item = value(CUBE_POS_X);
    while item < work {
        let (tile, head) = tile_and_head(tiles, item, args);
        let steps = (tile.length + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);
        if steps > 0i32 {
            let place = Place::of_thread(&tile, shape);
            let q = descriptor(
                memory.queries + queries.stage * QUERY_BYTES + group * comptime!(64 * ROW_BYTES),
            );
            mbarrier_wait(memory.full_queries + queries.stage * 8u32, queries.parity);
            mbarrier_wait(memory.full_keys + stages.stage * 8u32, stages.parity);
            named_barrier_sync(group + 1u32, 256u32);
            let started = start_multiply::<Const<64>>(
                q,
                descriptor(memory.keys + stages.stage * STAGE_BYTES),
                ty,
            );
            named_barrier_arrive(next + 1u32, 256u32);
            let mut s = await_result::<Const<64>>(started, 0u32);
            if elected {
                mbarrier_arrive(memory.empty_keys + stages.stage * 8u32);
            }
            let left = tile.length - (steps - 1i32) * comptime!(KEYS as i32);
            if left < comptime!(KEYS as i32) {
                hide_beyond(&mut s, left - i32::cast_from(place.column));
            }
            let mut softmax = Softmax::new();
            softmax.update(&mut s, args.scale_log2);
            let mut weights = s;
            let mut sums = Vector::<f32, Const<32>>::zeroed();
            for _ in 1i32..steps {
                let values = stages.stage;
                let values_parity = stages.parity;
                stages.advance(STAGES);
                mbarrier_wait(memory.full_keys + stages.stage * 8u32, stages.parity);
                mbarrier_wait(memory.full_values + values * 8u32, values_parity);
                let w = left_operand(&weights, ty);
                named_barrier_sync(group + 1u32, 256u32);
                let started = start_scores_and_sum(
                    sums,
                    &w,
                    q,
                    descriptor(memory.keys + stages.stage * STAGE_BYTES),
                    descriptor(memory.values + values * STAGE_BYTES),
                    ty,
                );
                named_barrier_arrive(next + 1u32, 256u32);
                let mut s = await_part::<Const<64>>(started, 0usize, 1u32);
                if elected {
                    mbarrier_arrive(memory.empty_keys + stages.stage * 8u32);
                }
                let factor = softmax.update(&mut s, args.scale_log2);
                sums = await_part::<Const<32>>(started, 64usize, 0u32);
                if elected {
                    mbarrier_arrive(memory.empty_values + values * 8u32);
                }
                if plane_any(factor.upper != 1.0f32 || factor.lower != 1.0f32) {
                    #[unroll]
                    for i in 0..32usize {
                        sums.insert(i, sums.extract(i) * factor.of(comptime!(i % 4)));
                    }
                }
                weights = s;
            }
            if elected {
                mbarrier_arrive(memory.empty_queries + queries.stage * 8u32);
            }
            queries.advance(2u32);
            mbarrier_wait(memory.full_values + stages.stage * 8u32, stages.parity);
            let w = left_operand(&weights, ty);
            let started = start_sum(
                sums,
                &w,
                descriptor(memory.values + stages.stage * STAGE_BYTES),
                ty,
            );
            let total = Pair {
                upper: quad_sum(softmax.sum.upper),
                lower: quad_sum(softmax.sum.lower),
            };
            let sums = WgmmaFragment {
                elements: await_result::<Const<32>>(started, 0u32),
            };
            if elected {
                mbarrier_arrive(memory.empty_values + stages.stage * 8u32);
            }
            stages.advance(STAGES);
            let factor = Pair {
                upper: reciprocal(total.upper),
                lower: reciprocal(total.lower),
            };
            store::<Hopper>(
                out, &sums, &factor, &place, &tile, head, args.heads, OUT, shape,
            );
            let log = Pair {
                upper: softmax.reference.upper + log2(total.upper),
                lower: softmax.reference.lower + log2(total.lower),
            };
            store_lse(lse, &log, &place, &tile, head, args);
        }
        item += CUBE_COUNT_X;
    }
    // Takes the last arrival, so that the barrier ends as it began.
    if group == 0u32 {
        named_barrier_sync(1u32, 256u32);
    }
}
