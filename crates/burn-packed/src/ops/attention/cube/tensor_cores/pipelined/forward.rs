//! The warp-specialized forward kernel.

use cubecl::prelude::*;

use super::super::super::tile::AttentionTile;
use super::super::config::{Args, KernelConfig};
use super::super::family::{Fragment, FragmentExpand};
use super::super::fragments::{FragmentCoords, Pair, as_operand_a};
use super::super::hopper::{Hopper, WgmmaFragment};
use super::super::rows::QkvRows;
use super::super::softmax::{NEG_INF, row_maxima, weights_and_sums};
use super::fragment_config;
use super::producer::*;
use super::wgmma::*;
use crate::ops::ptx::wgmma::descriptor;
use crate::ops::ptx::*;

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
/// Registers of a consumer's and of a producer's thread after `setmaxnreg`, which takes multiples of 8. 384 threads with 160 and 128 with 32 are the
/// 65,536 registers of a multiprocessor, with which the block starts as 512 threads with 128 each. The producer gives back 96 a thread, which the
/// consumers need for scores, weights and sums at the same time.
const CONSUMER_REGISTERS: u32 = 160;
const PRODUCER_REGISTERS: u32 = 32;
/// Number of further stages whose copies the producer starts before it signals a stage as full, so that copies of three stages are in flight.
const LAG: u32 = 2;
/// Largest excess of a row's scores over the row's reference before the reference is replaced, in units of log2: weights stay below 2^8.
const SLACK: f32 = 8.0;

const QUERY_BYTES: u32 = QUERIES * ROW_BYTES;
const STAGE_BYTES: u32 = KEYS * ROW_BYTES;

/// Bytes of all tiles, and the same with the barriers.
const TILE_BYTES: u32 = 2 * QUERY_BYTES + 2 * STAGES * STAGE_BYTES;
const SHARED_BYTES: u32 = TILE_BYTES + barrier_bytes(2) + 2 * barrier_bytes(STAGES);

/// The rings in shared memory: two tiles of queries, the stages of keys and of values; after them the barriers.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct SharedMemory {
    queries: Ring,
    keys: Ring,
    values: Ring,
}

#[cube]
impl SharedMemory {
    fn new(base: u32) -> SharedMemory {
        let barriers = base + TILE_BYTES;
        let keys = base + comptime!(2 * QUERY_BYTES);
        let values = base + comptime!(2 * QUERY_BYTES + STAGES * STAGE_BYTES);
        let key_barriers = barriers + comptime!(barrier_bytes(2));
        let value_barriers = barriers + comptime!(barrier_bytes(2) + barrier_bytes(STAGES));
        SharedMemory {
            queries: Ring::new(base, barriers, 2u32, QUERY_BYTES),
            keys: Ring::new(keys, key_barriers, STAGES, STAGE_BYTES),
            values: Ring::new(values, value_barriers, STAGES, STAGE_BYTES),
        }
    }

    /// Sets the arrivals of a phase: one of each of the producer's four warps at a full barrier, one of each consumer warp at an empty barrier.
    fn init(&self) {
        self.queries.init(4u32, comptime!(GROUPS * 4));
        self.keys.init(4u32, comptime!(GROUPS * 4));
        self.values.init(4u32, comptime!(GROUPS * 4));
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
/// A consumer starts the scores of the next tile of keys and, after these WGMMAs, the output of the present tile. While the tensor cores compute the
/// output, the consumer computes the softmax of the scores. Consumers alternate: named barrier `1 + group` completes when a group may start
/// WGMMAs, so that one group's softmax runs during the others' WGMMAs. Such a barrier completes with 256 threads: the 128 of the group before,
/// which arrive without waiting, and the 128 of the group itself, which wait.
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
    args: Args,
    work: u32,
    #[comptime] half: bool,
) {
    let memory = SharedMemory::new(shared_memory(SHARED_BYTES, 1024usize));
    if UNIT_POS == 0u32 {
        memory.init();
    }
    sync_cube();
    let config = comptime!(fragment_config(QUERIES, KEYS, false, half));
    if UNIT_POS >= comptime!(GROUPS * 128) {
        decrease_registers(PRODUCER_REGISTERS);
        let (qk, qkv) = (global_address(qk), global_address(qkv));
        produce(qk, qkv, tiles, args, work, &memory, config);
    } else {
        increase_registers(CONSUMER_REGISTERS);
        consume(tiles, out, lse, args, work, &memory, config);
    }
}

/// The tile of queries of work item `item`, its head, and its number of tiles of keys.
#[cube]
fn work_item(tiles: &[u32], item: u32, args: Args) -> (AttentionTile, u32, i32) {
    let tile = AttentionTile::of_entry(tiles, item / args.heads, args.half_window);
    let steps = (tile.length + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);
    (tile, item % args.heads, steps)
}

/// The producer: copies the tiles of all work items.
#[cube]
fn produce(
    qk: u64,
    qkv: u64,
    tiles: &[u32],
    args: Args,
    work: u32,
    memory: &SharedMemory,
    #[comptime] config: KernelConfig,
) {
    let mut queries = Cursor::new(1u32);
    let mut stages = Cursor::new(1u32);
    let thread = UNIT_POS % 128u32;
    let mut producer = Producer::new(128u32, LAG);
    let mut item = as_value(CUBE_POS_X);
    while item < work {
        let (tile, head, steps) = work_item(tiles, item, args);
        // The head's offset is added in 64 bits, which takes fewer of the producer's registers.
        let offset = u64::cast_from(head * ROW_BYTES);
        let rows = QkvRows::new(qk + offset, qkv + offset, tile, 0u32, args, config);
        if steps > 0i32 {
            producer.fill(&memory.queries, &queries, &rows.q, tile.first, thread);
            producer.commit(&memory.queries, &queries);
            queries.advance(2u32);
        }
        for step in 0..steps {
            let first = (steps - 1i32 - step) * comptime!(KEYS as i32);
            producer.fill(&memory.keys, &stages, &rows.k, first, thread);
            producer.commit(&memory.keys, &stages);
            producer.fill(&memory.values, &stages, &rows.v, first, thread);
            producer.commit(&memory.values, &stages);
            stages.advance(STAGES);
        }
        item += CUBE_COUNT_X;
    }
    producer.flush();
}

/// Softmax of this thread's two rows: each row's reference in units of log2, and this thread's share of the sum of weights.
#[derive(CubeType)]
struct OnlineSoftmax {
    reference: Pair,
    sum: Pair,
}

#[cube]
impl OnlineSoftmax {
    fn new() -> OnlineSoftmax {
        OnlineSoftmax {
            reference: Pair::of_rows(f32::new(NEG_INF), f32::new(NEG_INF)),
            sum: Pair::of_rows(0.0f32, 0.0f32),
        }
    }

    /// Replaces a tile's scores by their weights and returns the factors for earlier sums, 1 where a reference stays.
    fn update(
        &mut self,
        s: &mut Scores,
        scale_log2: f32,
        #[comptime] config: KernelConfig,
    ) -> Pair {
        let start = Pair::of_rows(s.get(0usize, 0usize), s.get(0usize, 2usize));
        let top = row_maxima::<Scores>(s, start, config);
        let upper = next_reference(self.reference.a, quad_max(top.a) * scale_log2);
        let lower = next_reference(self.reference.b, quad_max(top.b) * scale_log2);
        let factor = Pair::of_rows(
            exp2(self.reference.a - upper),
            exp2(self.reference.b - lower),
        );
        self.reference.a = upper;
        self.reference.b = lower;
        let (shift, zero) = (Pair::of_rows(upper, lower), Pair::of_rows(0.0f32, 0.0f32));
        let sum = weights_and_sums::<Scores>(s, scale_log2, shift, zero, config);
        self.sum.a = self.sum.a * factor.a + sum.a;
        self.sum.b = self.sum.b * factor.b + sum.b;
        factor
    }
}

/// Returns a row's reference after a tile with maximum `top`.
#[cube]
fn next_reference(reference: f32, top: f32) -> f32 {
    select(top > reference + SLACK, top, reference)
}

/// Scores of a consumer, `[64 queries, 128 keys]`.
type Scores = WgmmaFragment<Const<64>>;

/// Masks keys from number `left` on, counted from this thread's first key.
#[cube]
fn hide_beyond(s: &mut Scores, left: i32, #[comptime] config: KernelConfig) {
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        #[unroll]
        for e in 0..4usize {
            let key = comptime!((n_tile * 8 + e % 2) as i32);
            let score = select(key < left, s.get(n_tile, e), f32::new(NEG_INF));
            s.set(n_tile, e, score);
        }
    }
}

/// A consumer warp group.
#[cube]
fn consume(
    tiles: &[u32],
    out: &mut [u32],
    lse: &mut [f32],
    args: Args,
    work: u32,
    memory: &SharedMemory,
    #[comptime] config: KernelConfig,
) {
    let ty = comptime!(config.ty());
    let group = UNIT_POS / 128u32;
    let alternation = AlternationBarriers {
        own: group + 1u32,
        next: select(group == comptime!(GROUPS - 1), 0u32, group + 1u32) + 1u32,
    };
    let elected = UNIT_POS % 32u32 == 0u32;
    let mut queries = Cursor::new(0u32);
    let mut stages = Cursor::new(0u32);
    // Replaces, for the first tile, the arrival of the last group, for which the first group waits.
    if group == 0u32 {
        named_barrier_arrive(1u32, 256u32);
    }
    let mut item = as_value(CUBE_POS_X);
    while item < work {
        let (tile, head, steps) = work_item(tiles, item, args);
        if steps > 0i32 {
            let coords = FragmentCoords::of_thread(tile, head, args, config);
            let own = group * comptime!(64 * ROW_BYTES);
            let q = descriptor(memory.queries.tile(queries.stage) + own);
            memory.queries.await_full(queries.stage, queries.parity);
            memory.keys.await_full(stages.stage, stages.parity);
            alternation.begin();
            let k = descriptor(memory.keys.tile(stages.stage));
            let started = start_multiply::<Const<64>>(q, k, ty);
            alternation.end();
            let mut s = WgmmaFragment::new(await_result::<Const<64>>(started, 0u32));
            memory.keys.arrive_empty(stages.stage, elected);
            let left = tile.length - (steps - 1i32) * comptime!(KEYS as i32);
            if left < comptime!(KEYS as i32) {
                hide_beyond(&mut s, left - i32::cast_from(coords.column), config);
            }
            let mut softmax = OnlineSoftmax::new();
            softmax.update(&mut s, args.scale_log2, config);
            let mut weights = s;
            let mut sums = Vector::<f32, Const<32>>::zeroed();
            for _ in 1i32..steps {
                let values = stages.stage;
                let values_parity = stages.parity;
                stages.advance(STAGES);
                memory.keys.await_full(stages.stage, stages.parity);
                memory.values.await_full(values, values_parity);
                let w = as_operand_a::<Scores, Const<32>>(&weights, 0usize, ty);
                alternation.begin();
                let k = descriptor(memory.keys.tile(stages.stage));
                let v = descriptor(memory.values.tile(values));
                let started = start_scores_and_sum(sums, w, q, k, v, ty);
                alternation.end();
                let mut s = WgmmaFragment::new(await_slice::<Const<64>>(started, 0usize, 1u32));
                memory.keys.arrive_empty(stages.stage, elected);
                let factor = softmax.update(&mut s, args.scale_log2, config);
                sums = await_slice::<Const<32>>(started, 64usize, 0u32);
                memory.values.arrive_empty(values, elected);
                if plane_any(factor.a != 1.0f32 || factor.b != 1.0f32) {
                    #[unroll]
                    for i in 0..32usize {
                        sums.insert(i, sums.extract(i) * factor.of(comptime!(i % 4)));
                    }
                }
                weights.elements = s.elements;
            }
            memory.queries.arrive_empty(queries.stage, elected);
            queries.advance(2u32);
            memory.values.await_full(stages.stage, stages.parity);
            let w = as_operand_a::<Scores, Const<32>>(&weights, 0usize, ty);
            let v = descriptor(memory.values.tile(stages.stage));
            let started = start_sum(sums, w, v, ty);
            let total = Pair::of_rows(quad_sum(softmax.sum.a), quad_sum(softmax.sum.b));
            let sums = WgmmaFragment::new(await_result::<Const<32>>(started, 0u32));
            memory.values.arrive_empty(stages.stage, elected);
            stages.advance(STAGES);
            coords.store_output::<Hopper>(out, lse, &sums, total, softmax.reference);
        }
        item += CUBE_COUNT_X;
    }
    // Waits for the last group's last arrival, so that no arrival is pending at the barrier when the block ends.
    if group == 0u32 {
        named_barrier_sync(1u32, 256u32);
    }
}

/// The named barriers by which consumer warp groups alternate: this group's and the next group's.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct AlternationBarriers {
    own: u32,
    next: u32,
}

#[cube]
impl AlternationBarriers {
    /// Waits until this consumer may start WGMMAs.
    fn begin(&self) {
        named_barrier_sync(self.own, 256u32);
    }

    /// Lets the next consumer start.
    fn end(&self) {
        named_barrier_arrive(self.next, 256u32);
    }
}
