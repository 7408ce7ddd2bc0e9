//! Forward attention on Hopper over whole sequences: the next tile's scores are under way while this tile's go through the
//! softmax, and the output is summed in the tensor cores' own registers.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::ptx::*;
use super::tile::*;

/// Packed attention without a window, forward; cubes and arguments as in the windowed kernel.
///
/// Keys and values arrive in tiles of [`KEYS`] through three stages of shared memory: one that is worked on, one whose scores
/// are being computed, one on its way.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn hopper_global_forward(
    qk: &[u32],
    v: &[u32],
    tiles: &[u32],
    out: &mut [u32],
    lse: &mut [f32],
    qk_row: u32,
    k_offset: u32,
    v_row: u32,
    v_offset: u32,
    heads: u32,
    total: u32,
    scale_log2: f32,
    softcap: f32,
    #[comptime] shape: Shape,
) {
    let ty = comptime!(dtype(shape.half));
    let threads = comptime!(shape.units());
    let tile_bytes = comptime!(KEYS * ROW_BYTES);
    let query_bytes = comptime!(shape.rows() * ROW_BYTES);
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(((query_bytes + 6 * tile_bytes) / 4) as usize),
        1024usize,
    );
    let base = shared_address(unsafe { shared.as_ptr_unchecked() });
    // A stage's values lie behind its keys.
    let stages = base + query_bytes;

    let tile = tile_of(tiles);
    let (query0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * ROW_BYTES;
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let keys = comptime!(KEYS as i32);
    let steps = (length + comptime!(KEYS as i32 - 1)) / keys;

    load_tile(
        q_base,
        qk_row,
        sequence,
        query0,
        length,
        base,
        comptime!(shape.rows()),
        threads,
        false,
    );
    load_tile(
        k_base, qk_row, sequence, 0i32, length, stages, KEYS, threads, false,
    );
    load_tile(
        v_base,
        v_row,
        sequence,
        0i32,
        length,
        stages + tile_bytes,
        KEYS,
        threads,
        false,
    );
    copy_async_commit();
    // Rows beyond the sequence become zeros, so a second tile may be asked for where there is none.
    let second = stages + comptime!(2 * tile_bytes);
    load_tile(
        k_base, qk_row, sequence, keys, length, second, KEYS, threads, false,
    );
    load_tile(
        v_base,
        v_row,
        sequence,
        keys,
        length,
        second + tile_bytes,
        KEYS,
        threads,
        false,
    );
    copy_async_commit();

    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let row0 =
        query0 + i32::cast_from(group * 64u32 + (UNIT_POS % 128u32) / 32u32 * 16u32 + lane / 4u32);
    let q_desc = descriptor(base + group * comptime!(64 * ROW_BYTES));
    let column = i32::cast_from((lane % 4u32) * 2u32);

    let mut acc = Vector::<f32, Const<32>>::zeroed();
    let mut rows = Array::<f32>::new(6usize);
    rows[0] = f32::new(NEG_INF);
    rows[1] = f32::new(NEG_INF);
    rows[2] = 0.0f32;
    rows[3] = 0.0f32;

    copy_async_wait(1u32);
    fence_tensor_cores();
    sync_cube();
    let mut s = product_shared::<Const<32>>(q_desc, descriptor(stages), 4usize, false, ty);
    for step in 0..steps - 1i32 {
        let here = stages + u32::cast_from(step % 3i32) * comptime!(2 * tile_bytes);
        let there = stages + u32::cast_from((step + 1i32) % 3i32) * comptime!(2 * tile_bytes);
        copy_async_wait(0u32);
        fence_tensor_cores();
        // All groups have done with the tile before this one: the third stage is free.
        sync_cube();
        if step + 2i32 < steps {
            let free = stages + u32::cast_from((step + 2i32) % 3i32) * comptime!(2 * tile_bytes);
            let key = (step + 2i32) * keys;
            load_tile(
                k_base, qk_row, sequence, key, length, free, KEYS, threads, false,
            );
            load_tile(
                v_base,
                v_row,
                sequence,
                key,
                length,
                free + tile_bytes,
                KEYS,
                threads,
                false,
            );
            copy_async_commit();
        }
        let next = start_product_shared::<Const<32>>(q_desc, descriptor(there), 4usize, false, ty);
        weights(&mut s, &mut rows, scale_log2, softcap, shape);
        let p = fragments(&s, ty);
        scale_rows(&mut acc, rows[4], rows[5]);
        acc = add_product_registers::<Const<32>>(
            acc,
            &p,
            descriptor(here + tile_bytes),
            true,
            true,
            ty,
        );
        s = settled::<Const<32>>(next, 0usize);
    }
    let last = steps - 1i32;
    if last >= 0i32 {
        let here = stages + u32::cast_from(last % 3i32) * comptime!(2 * tile_bytes);
        mask(&mut s, row0, last * keys + column, length, length);
        weights(&mut s, &mut rows, scale_log2, softcap, shape);
        let p = fragments(&s, ty);
        scale_rows(&mut acc, rows[4], rows[5]);
        acc = add_product_registers::<Const<32>>(
            acc,
            &p,
            descriptor(here + tile_bytes),
            true,
            true,
            ty,
        );
    }

    let total0 = quad_sum(rows[2]);
    let total1 = quad_sum(rows[3]);
    let word = CUBE_POS_X * comptime!(ROW_BYTES / 4) + lane % 4u32;
    store_rows(
        out,
        &acc,
        row0,
        sequence,
        length,
        word,
        heads * comptime!(ROW_BYTES / 4),
        reciprocal(total0),
        reciprocal(total1),
        ty,
    );
    if lane % 4u32 == 0u32 {
        let at = CUBE_POS_X * total + sequence;
        if row0 < length {
            lse[(at + u32::cast_from(row0)) as usize] =
                (rows[0] * scale_log2 + log2(total0)) * LN_2;
        }
        if row0 + 8i32 < length {
            lse[(at + u32::cast_from(row0 + 8i32)) as usize] =
                (rows[1] * scale_log2 + log2(total1)) * LN_2;
        }
    }
}

/// Makes weights of the scores of a tile, of which every row sees at least one key. `rows` holds, of this unit's two rows each, the largest
/// score so far, the sum of weights so far and, when this returns, what the sums before this tile are to be multiplied with.
#[cube]
fn weights(
    s: &mut Vector<f32, Const<32>>,
    rows: &mut Array<f32>,
    scale_log2: f32,
    softcap: f32,
    #[comptime] shape: Shape,
) {
    if comptime!(shape.capped) {
        #[unroll]
        for i in 0..32usize {
            // Hidden keys stay hidden: the bound of minus infinity would be a score.
            let score = s.extract(i);
            s.insert(
                i,
                select(score == f32::new(NEG_INF), score, cap(score, softcap)),
            );
        }
    }
    let mut tile0 = s.extract(0usize);
    let mut tile1 = s.extract(2usize);
    #[unroll]
    for j in 0..16usize {
        tile0 = max(tile0, s.extract(comptime!(j / 2 * 4 + j % 2)));
        tile1 = max(tile1, s.extract(comptime!(j / 2 * 4 + j % 2 + 2)));
    }
    let top0 = max(rows[0], quad_max(tile0));
    let top1 = max(rows[1], quad_max(tile1));
    let shift0 = top0 * scale_log2;
    let shift1 = top1 * scale_log2;
    let factor0 = exp2(rows[0] * scale_log2 - shift0);
    let factor1 = exp2(rows[1] * scale_log2 - shift1);
    let mut sum0 = rows[2] * factor0;
    let mut sum1 = rows[3] * factor1;
    #[unroll]
    for j in 0..16usize {
        let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
        let p0 = exp2(s.extract(i0) * scale_log2 - shift0);
        let p1 = exp2(s.extract(i1) * scale_log2 - shift1);
        sum0 += p0;
        sum1 += p1;
        s.insert(i0, p0);
        s.insert(i1, p1);
    }
    rows[0] = top0;
    rows[1] = top1;
    rows[2] = sum0;
    rows[3] = sum1;
    rows[4] = factor0;
    rows[5] = factor1;
}

#[cube]
fn scale_rows(acc: &mut Vector<f32, Const<32>>, factor0: f32, factor1: f32) {
    #[unroll]
    for j in 0..16usize {
        let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
        acc.insert(i0, acc.extract(i0) * factor0);
        acc.insert(i1, acc.extract(i1) * factor1);
    }
}
