//! Forward: a cube per tile of queries and head, an online softmax over the tiles of keys it can see.

use cubecl::prelude::*;

use super::tile::{HIDDEN, LANES, ROWS, Rows, Shape, accumulate, product, store, tanh, visible};

#[cube(launch, address_type = "dynamic")]
pub(super) fn forward_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    out: &mut [F],
    lse: &mut [f32],
    heads: usize,
    total: usize,
    half_window: usize,
    scale: f32,
    softcap: f32,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(shape.columns());
    let dims = comptime!(shape.dims());
    let head = CUBE_POS_X as usize;
    let entry = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) as usize * 3;
    let first = tiles[entry] as usize;
    let start = tiles[entry + 1] as usize;
    let end = tiles[entry + 2] as usize;
    let length = end - start;
    let position = first - start;
    let width = heads * comptime!(shape.head_dim);
    let place = head * comptime!(shape.head_dim);
    let queries = Rows {
        start: first * 3 * width + place,
        stride: 3 * width,
        count: min(end - first, shape.tile),
        position,
    };

    let mut stage = Shared::<[f32]>::new_slice(shape.stage());
    let mut weights = Shared::<[f32]>::new_slice(shape.weights());
    let mut partials = Shared::<[f32]>::new_slice(shape.row_partials());
    let mut block = Array::<f32>::new(comptime!(ROWS * columns));
    let mut sums = Array::<f32>::new(comptime!(ROWS * dims));
    let mut largest = Array::<f32>::new(ROWS);
    let mut share = Array::<f32>::new(ROWS);
    #[unroll]
    for i in 0..comptime!(ROWS * dims) {
        sums[i] = 0.0f32;
    }
    #[unroll]
    for r in 0..ROWS {
        largest[r] = HIDDEN;
        share[r] = 0.0f32;
    }
    let row = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;

    // Tiles of keys start at multiples of the tile's size, seen from the start of the sequence: what a sequence yields
    // doesn't depend on where it stands.
    let mut keys = (position - min(position, half_window)) / shape.tile * shape.tile;
    let last = min(position + queries.count + half_window, length);
    while keys < last {
        let count = min(length - keys, shape.tile);
        let k_rows = Rows {
            start: ((start + keys) * 3 + 1) * width + place,
            stride: 3 * width,
            count,
            position: keys,
        };
        product::<F>(
            qkv,
            &queries,
            qkv,
            &k_rows,
            rotary,
            &mut stage,
            &mut block,
            shape.rotary,
            shape,
        );
        #[unroll]
        for r in 0..ROWS {
            let mut top = HIDDEN.runtime();
            #[unroll]
            for c in 0..columns {
                let at = comptime!(r * columns + c);
                let j = keys + lane + comptime!(c * LANES);
                let mut score = block[at] * scale;
                if comptime!(shape.softcap) {
                    score = tanh(score / softcap) * softcap;
                }
                score = select(
                    visible(position + row + r, j, length, half_window),
                    score,
                    HIDDEN.runtime(),
                );
                block[at] = score;
                top = max(top, score);
            }
            partials[(row + r) * (LANES + 1) + lane] = top;
        }
        sync_cube();
        #[unroll]
        for r in 0..ROWS {
            let mut top = largest[r];
            for other in 0..LANES {
                top = max(top, partials[(row + r) * (LANES + 1) + other]);
            }
            let shrink = (largest[r] - top).exp();
            largest[r] = top;
            let mut sum = 0.0f32;
            #[unroll]
            for c in 0..columns {
                let score = block[comptime!(r * columns + c)];
                let weight = select(score <= HIDDEN, 0.0f32, (score - top).exp());
                sum += weight;
                weights[(row + r) * comptime!(shape.tile + 1) + lane + comptime!(c * LANES)] =
                    weight;
            }
            share[r] = share[r] * shrink + sum;
            #[unroll]
            for c in 0..dims {
                sums[comptime!(r * dims + c)] *= shrink;
            }
        }
        let v_rows = Rows {
            start: ((start + keys) * 3 + 2) * width + place,
            stride: 3 * width,
            count,
            position: keys,
        };
        accumulate::<F>(
            qkv, &v_rows, rotary, &mut stage, &weights, &mut sums, false, shape,
        );
        keys += shape.tile;
    }

    #[unroll]
    for r in 0..ROWS {
        partials[(row + r) * (LANES + 1) + lane] = share[r];
    }
    sync_cube();
    #[unroll]
    for r in 0..ROWS {
        let mut sum = 0.0f32;
        for other in 0..LANES {
            sum += partials[(row + r) * (LANES + 1) + other];
        }
        if row + r < queries.count && lane == 0 {
            lse[head * total + first + row + r] = largest[r] + sum.ln();
        }
        #[unroll]
        for c in 0..dims {
            sums[comptime!(r * dims + c)] /= sum;
        }
    }
    let out_rows = Rows {
        start: first * width + place,
        stride: width,
        count: queries.count,
        position,
    };
    store::<F>(&sums, &mut stage, out, &out_rows, rotary, false, shape);
}
