//! The forward kernel.

use cubecl::prelude::*;

use super::super::tile::{K, OUT, Q, V};
use super::tile::{
    Args, BlockTile, HIDDEN, KernelConfig, LANES, ROWS, SharedMemory, own_column, own_row, zeros,
};

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
///
/// Block x is a head, block (y, z) a tile of queries, given by `tiles`. The block loops over the tiles of keys that its queries see,
/// with an online softmax.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn forward_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    out: &mut [F],
    lse: &mut [f32],
    args: Args,
    #[comptime] config: KernelConfig,
    #[define(F)] _dtype: ElemType,
) {
    let block = BlockTile::new(tiles, args, config);
    let queries = block.rows(block.tile.first, Q);
    let mut memory = SharedMemory::new(rotary, config);
    let mut softmax = OnlineSoftmax::new(config);
    let mut sums = zeros(comptime!(ROWS * config.dims()));

    let span = block.streamed();
    let mut first = span.first;
    while first <= span.last {
        let k_rows = block.rows(first, K);
        let v_rows = block.rows(first, V);
        let mut scores = memory.scores::<F>(qkv, &queries, qkv, &k_rows);
        softmax.update(&mut scores, &mut memory, &mut sums, &block, first);
        memory.accumulate::<F>(&mut sums, qkv, &v_rows);
        first += comptime!(config.tile as i32);
    }

    let weights = softmax.sums();
    let column = own_column();
    #[unroll]
    for r in 0..ROWS {
        let row = own_row() + r;
        let sum = weights[r];
        if row < queries.count && column == 0 {
            let at = block.index(usize::cast_from(block.tile.first)) + row;
            lse[at] = softmax.max[r] + sum.ln();
        }
        #[unroll]
        for d in 0..comptime!(config.dims()) {
            sums[comptime!(r * config.dims() + d)] /= sum;
        }
    }
    let rows = block.rows(block.tile.first, OUT);
    memory.store::<F>(out, &sums, &rows);
}

/// Online softmax of a thread's rows.
#[derive(CubeType)]
struct OnlineSoftmax {
    /// Maximum of each row over the tiles so far; the same in all threads of a row.
    max: Array<f32>,
    /// Sum of `exp(score - maximum)` over this thread's columns.
    sum: Array<f32>,
    /// One number per thread and row, through which the threads of a row share maxima and sums.
    partials: Shared<[f32]>,
    #[cube(comptime)]
    config: KernelConfig,
}

#[cube]
impl OnlineSoftmax {
    fn new(#[comptime] config: KernelConfig) -> OnlineSoftmax {
        let mut max = Array::<f32>::new(ROWS);
        #[unroll]
        for r in 0..ROWS {
            max[r] = HIDDEN;
        }
        OnlineSoftmax {
            max,
            sum: zeros(ROWS),
            partials: Shared::<[f32]>::new_slice(config.row_partials()),
            config,
        }
    }

    /// Computes the softmax weights of a tile of dot products, stores them in `memory`, and rescales the sums over earlier tiles.
    /// `first` is the position of the tile's first key.
    fn update(
        &mut self,
        scores: &mut Array<f32>,
        memory: &mut SharedMemory,
        sums: &mut Array<f32>,
        block: &BlockTile,
        first: i32,
    ) {
        let config = comptime!(self.config);
        let columns = comptime!(config.columns());
        let row = own_row();
        let lane = own_column();
        #[unroll]
        for r in 0..ROWS {
            let seen = block.seen(r);
            let mut top = HIDDEN.runtime();
            #[unroll]
            for c in 0..columns {
                let at = comptime!(r * columns + c);
                let (score, _slope) = block.bounded(scores[at]);
                let key = first + i32::cast_from(lane + comptime!(c * LANES));
                let score = select(seen.contains(key), score, HIDDEN.runtime());
                scores[at] = score;
                top = max(top, score);
            }
            self.partials[(row + r) * (LANES + 1) + lane] = top;
        }
        sync_cube();
        #[unroll]
        for r in 0..ROWS {
            let mut top = self.max[r];
            for other in 0..LANES {
                top = max(top, self.partials[(row + r) * (LANES + 1) + other]);
            }
            let shrink = (self.max[r] - top).exp();
            self.max[r] = top;
            let mut sum = 0.0f32;
            #[unroll]
            for c in 0..columns {
                let score = scores[comptime!(r * columns + c)];
                let weight = select(score <= HIDDEN, 0.0f32, (score - top).exp());
                sum += weight;
                memory.set_weight(r, c, weight);
            }
            self.sum[r] = self.sum[r] * shrink + sum;
            #[unroll]
            for d in 0..comptime!(config.dims()) {
                sums[comptime!(r * config.dims() + d)] *= shrink;
            }
        }
    }

    /// Returns the sum of each row's weights over all columns.
    fn sums(&mut self) -> Array<f32> {
        let row = own_row();
        #[unroll]
        for r in 0..ROWS {
            self.partials[(row + r) * (LANES + 1) + own_column()] = self.sum[r];
        }
        sync_cube();
        let mut sums = Array::<f32>::new(ROWS);
        #[unroll]
        for r in 0..ROWS {
            let mut sum = 0.0f32;
            for other in 0..LANES {
                sum += self.partials[(row + r) * (LANES + 1) + other];
            }
            sums[r] = sum;
        }
        sums
    }
}
