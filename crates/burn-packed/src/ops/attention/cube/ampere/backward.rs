//! Backward attention in warp-level products, in two walks so that every gradient element is summed by one unit in a fixed
//! order: over keys for the gradient of the queries, over queries for the gradients of keys and values. Both recompute the
//! scores.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::tile::*;

/// Gradient of the queries. Cubes as in the forward.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn ampere_queries(
    qk: &[u32],
    v: &[u32],
    d_out: &[u32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    qk_row: u32,
    k_offset: u32,
    v_row: u32,
    v_offset: u32,
    heads: u32,
    total: u32,
    half_window: i32,
    scale: f32,
    scale_log2: f32,
    softcap: f32,
    #[comptime] shape: Shape,
) {
    let tile_bytes = comptime!(shape.tile_bytes());
    let own_bytes = comptime!(shape.own_bytes());
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(shape.backward_bytes() as usize / 4),
        128usize,
    );
    let q_at = shared_address(unsafe { shared.as_ptr_unchecked() });
    let d_out_at = q_at + own_bytes;
    // Stage 0: keys, values; stage 1 behind it.
    let base = d_out_at + own_bytes;

    let tile = tile_of(tiles);
    let (query0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * comptime!(shape.head_dim * 2);
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let d_out_base =
        global_address(unsafe { d_out.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let rows = comptime!(shape.rows());

    let first_key = max(query0 - half_window, 0i32);
    let last_query = min(query0 + comptime!(ROWS as i32 - 1), length - 1i32);
    let end_key = min(last_query + half_window + 1i32, length);
    let keys = comptime!(shape.keys as i32);
    let steps = (end_key - first_key + comptime!(shape.keys as i32 - 1)) / keys;

    load_rows(q_base, qk_row, sequence, query0, length, q_at, ROWS, rows);
    load_rows(
        d_out_base,
        heads * comptime!(shape.head_dim * 2),
        sequence,
        query0,
        length,
        d_out_at,
        ROWS,
        rows,
    );
    load_rows(
        k_base, qk_row, sequence, first_key, length, base, shape.keys, rows,
    );
    load_rows(
        v_base,
        v_row,
        sequence,
        first_key,
        length,
        base + tile_bytes,
        shape.keys,
        rows,
    );
    copy_async_commit();
    arrived();

    let warp = UNIT_POS / 32u32;
    let lane = UNIT_POS % 32u32;
    let warp_first = query0 + i32::cast_from(warp * WARP_ROWS);
    let row0 = warp_first + i32::cast_from(lane / 4u32);
    let column = i32::cast_from(lane % 4u32 * 2u32);
    let own = warp * comptime!(WARP_ROWS * shape.pitch());
    let kept_q = resident(q_at + own, shape);
    let kept_d_out = resident(d_out_at + own, shape);

    // Rows beyond the end of the sequence read the last row's numbers; they are not stored.
    let row_numbers = CUBE_POS_X * total + sequence;
    let at0 = row_numbers + u32::cast_from(max(min(row0, length - 1i32), 0i32));
    let at1 = row_numbers + u32::cast_from(max(min(row0 + 8i32, length - 1i32), 0i32));
    let shift0 = lse[at0 as usize] * LOG2_E;
    let shift1 = lse[at1 as usize] * LOG2_E;
    let delta0 = delta[at0 as usize];
    let delta1 = delta[at1 as usize];

    let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.dim_parts()));
    let mut s = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.key_parts()));
    let mut dp = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.key_parts()));
    let mut slopes = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.slope_parts()));
    clear(&mut acc, comptime!(shape.dim_parts()));
    for step in 0..steps {
        let key0 = first_key + step * keys;
        let odd = u32::cast_from(step % 2i32);
        let stage = base + odd * comptime!(2 * tile_bytes);
        arrived();
        if step + 1i32 < steps {
            let next = base + (1u32 - odd) * comptime!(2 * tile_bytes);
            load_rows(
                k_base,
                qk_row,
                sequence,
                key0 + keys,
                length,
                next,
                shape.keys,
                rows,
            );
            load_rows(
                v_base,
                v_row,
                sequence,
                key0 + keys,
                length,
                next + tile_bytes,
                shape.keys,
                rows,
            );
            copy_async_commit();
        }
        if meets(warp_first, key0, half_window, shape) {
            scores(&kept_q, q_at + own, stage, &mut s, shape);
            bound_and_mask(
                &mut s,
                &mut slopes,
                row0,
                warp_first,
                key0,
                column,
                half_window,
                length,
                softcap,
                true,
                shape,
            );
            scores(
                &kept_d_out,
                d_out_at + own,
                stage + tile_bytes,
                &mut dp,
                shape,
            );
            #[unroll]
            for j in 0..comptime!(shape.key_parts()) {
                let mut part = s[j];
                let d = dp[j];
                #[unroll]
                for e in 0..4usize {
                    let shift = if comptime!(e < 2) { shift0 } else { shift1 };
                    let mean = if comptime!(e < 2) { delta0 } else { delta1 };
                    let mut ds = exp2(part.extract(e) * scale_log2 - shift) * (d.extract(e) - mean);
                    if comptime!(shape.capped) {
                        ds *= slopes[j].extract(e);
                    }
                    part.insert(e, ds);
                }
                s[j] = part;
            }
            accumulate(&s, stage, &mut acc, shape);
        }
    }
    if comptime!(shape.rotated) {
        turn_back(&mut acc, rotary, row0, length, shape);
    }
    let words = comptime!(shape.head_dim / 2);
    store(
        d_qkv,
        &acc,
        row0,
        sequence,
        length,
        CUBE_POS_X * words + lane % 4u32,
        heads * comptime!(3 * words),
        scale,
        scale,
        shape,
    );
}

/// Gradients of keys and values. Cubes as in the forward, with keys in the place of queries.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn ampere_keys(
    qk: &[u32],
    v: &[u32],
    d_out: &[u32],
    lse: &[u32],
    delta: &[u32],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    qk_row: u32,
    k_offset: u32,
    v_row: u32,
    v_offset: u32,
    heads: u32,
    total: u32,
    half_window: i32,
    scale: f32,
    scale_log2: f32,
    softcap: f32,
    #[comptime] shape: Shape,
) {
    let tile_bytes = comptime!(shape.tile_bytes());
    let own_bytes = comptime!(shape.own_bytes());
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(shape.backward_bytes() as usize / 4),
        128usize,
    );
    // Log-sum-exp and delta of the queries of both stages.
    let numbers = Shared::<[f32]>::new_aligned_slice(comptime!(shape.keys as usize * 4), 128usize);
    let k_at = shared_address(unsafe { shared.as_ptr_unchecked() });
    let v_at = k_at + own_bytes;
    // Stage 0: queries, gradients of their outputs; stage 1 behind it.
    let base = v_at + own_bytes;
    let numbers_at = shared_float_address(unsafe { numbers.as_ptr_unchecked() });

    let tile = tile_of(tiles);
    let (key0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * comptime!(shape.head_dim * 2);
    let d_out_row = heads * comptime!(shape.head_dim * 2);
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let d_out_base =
        global_address(unsafe { d_out.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let row_numbers = u64::cast_from((CUBE_POS_X * total + sequence) * 4u32);
    let lse_base = global_address(unsafe { lse.as_ptr_unchecked() }) + row_numbers;
    let delta_base = global_address(unsafe { delta.as_ptr_unchecked() }) + row_numbers;
    let rows = comptime!(shape.rows());

    let first_query = max(key0 - half_window, 0i32);
    let last_key = min(key0 + comptime!(ROWS as i32 - 1), length - 1i32);
    let end_query = min(last_key + half_window + 1i32, length);
    let queries = comptime!(shape.keys as i32);
    let steps = (end_query - first_query + comptime!(shape.keys as i32 - 1)) / queries;

    load_rows(k_base, qk_row, sequence, key0, length, k_at, ROWS, rows);
    load_rows(v_base, v_row, sequence, key0, length, v_at, ROWS, rows);
    load_rows(
        q_base,
        qk_row,
        sequence,
        first_query,
        length,
        base,
        shape.keys,
        rows,
    );
    load_rows(
        d_out_base,
        d_out_row,
        sequence,
        first_query,
        length,
        base + tile_bytes,
        shape.keys,
        rows,
    );
    load_numbers(lse_base, delta_base, first_query, length, numbers_at, shape);
    copy_async_commit();
    arrived();

    let warp = UNIT_POS / 32u32;
    let lane = UNIT_POS % 32u32;
    let warp_first = key0 + i32::cast_from(warp * WARP_ROWS);
    let row0 = warp_first + i32::cast_from(lane / 4u32);
    let column = i32::cast_from(lane % 4u32 * 2u32);
    let own = warp * comptime!(WARP_ROWS * shape.pitch());
    let kept_k = resident(k_at + own, shape);
    let kept_v = resident(v_at + own, shape);

    let mut d_k = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.dim_parts()));
    let mut d_v = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.dim_parts()));
    let mut s = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.key_parts()));
    let mut dp = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.key_parts()));
    let mut slopes = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.slope_parts()));
    clear(&mut d_k, comptime!(shape.dim_parts()));
    clear(&mut d_v, comptime!(shape.dim_parts()));
    for step in 0..steps {
        let query0 = first_query + step * queries;
        let odd = u32::cast_from(step % 2i32);
        let stage = base + odd * comptime!(2 * tile_bytes);
        arrived();
        if step + 1i32 < steps {
            let next = base + (1u32 - odd) * comptime!(2 * tile_bytes);
            let query = query0 + queries;
            load_rows(
                q_base, qk_row, sequence, query, length, next, shape.keys, rows,
            );
            load_rows(
                d_out_base,
                d_out_row,
                sequence,
                query,
                length,
                next + tile_bytes,
                shape.keys,
                rows,
            );
            load_numbers(
                lse_base,
                delta_base,
                query,
                length,
                numbers_at + (1u32 - odd) * comptime!(shape.keys * 8),
                shape,
            );
            copy_async_commit();
        }
        if meets(warp_first, query0, half_window, shape) {
            scores(&kept_k, k_at + own, stage, &mut s, shape);
            bound_and_mask(
                &mut s,
                &mut slopes,
                row0,
                warp_first,
                query0,
                column,
                half_window,
                length,
                softcap,
                true,
                shape,
            );
            let number = odd * comptime!(shape.keys * 2) + lane % 4u32 * 2u32;
            #[unroll]
            for j in 0..comptime!(shape.key_parts()) {
                let mut part = s[j];
                #[unroll]
                for e in 0..2usize {
                    let below = comptime!(e + 2);
                    let shift = numbers[(number + comptime!((j * 8 + e) as u32)) as usize] * LOG2_E;
                    part.insert(e, exp2(part.extract(e) * scale_log2 - shift));
                    part.insert(below, exp2(part.extract(below) * scale_log2 - shift));
                }
                s[j] = part;
            }
            accumulate(&s, stage + tile_bytes, &mut d_v, shape);
            scores(&kept_v, v_at + own, stage + tile_bytes, &mut dp, shape);
            #[unroll]
            for j in 0..comptime!(shape.key_parts()) {
                let mut part = s[j];
                let d = dp[j];
                #[unroll]
                for e in 0..4usize {
                    let mean =
                        numbers[(number + comptime!(shape.keys + (j * 8 + e % 2) as u32)) as usize];
                    let mut ds = part.extract(e) * (d.extract(e) - mean);
                    if comptime!(shape.capped) {
                        ds *= slopes[j].extract(e);
                    }
                    part.insert(e, ds);
                }
                s[j] = part;
            }
            accumulate(&s, stage, &mut d_k, shape);
        }
    }
    if comptime!(shape.rotated) {
        turn_back(&mut d_k, rotary, row0, length, shape);
    }
    let head_words = heads * comptime!(shape.head_dim / 2);
    let word = CUBE_POS_X * comptime!(shape.head_dim / 2) + lane % 4u32;
    store(
        d_qkv,
        &d_k,
        row0,
        sequence,
        length,
        word + head_words,
        head_words * 3u32,
        scale,
        scale,
        shape,
    );
    store(
        d_qkv,
        &d_v,
        row0,
        sequence,
        length,
        word + head_words * 2u32,
        head_words * 3u32,
        1.0f32,
        1.0f32,
        shape,
    );
}

/// Starts the copy of a tile's log-sum-exps and, behind them, its deltas; zeros beyond the end of the sequence.
#[cube]
fn load_numbers(
    lse: u64,
    delta: u64,
    first: i32,
    length: i32,
    shared: u32,
    #[comptime] shape: Shape,
) {
    let keys = comptime!(shape.keys);
    if UNIT_POS < comptime!(2 * shape.keys) {
        let position = first + i32::cast_from(UNIT_POS % keys);
        let inside = position < length;
        let offset = u64::cast_from(select(inside, u32::cast_from(position), 0u32) * 4u32);
        let from = select(UNIT_POS < keys, lse, delta) + offset;
        copy_async_4(shared + UNIT_POS * 4u32, from, select(inside, 4u32, 0u32));
    }
}
