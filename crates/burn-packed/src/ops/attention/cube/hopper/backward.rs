//! Backward attention on Hopper, in two walks so that every gradient element is summed by one unit in a fixed order: over keys
//! for the gradient of the queries, over queries for the gradients of keys and values. Both recompute the scores.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::ptx::*;
use super::tile::*;

/// Gradient of the queries. Cubes as in the forward, with one warp group of 64 queries per 128 units.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn hopper_queries(
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
    let ty = comptime!(dtype(shape.half));
    let groups = comptime!(shape.groups);
    let capped = comptime!(shape.capped);
    let threads = comptime!(shape.units());
    let tile_bytes = comptime!(KEYS * ROW_BYTES);
    let own_bytes = comptime!(groups * 64 * ROW_BYTES);
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(((2 * own_bytes + 4 * tile_bytes) / 4) as usize),
        1024usize,
    );
    let q_at = shared_address(unsafe { shared.as_ptr_unchecked() });
    let d_out_at = q_at + own_bytes;
    let keys_at = d_out_at + own_bytes;
    let values_at = keys_at + comptime!(2 * tile_bytes);

    let tile = tile_of(tiles);
    let (query0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * ROW_BYTES;
    let d_out_row = heads * ROW_BYTES;
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let d_out_base =
        global_address(unsafe { d_out.as_ptr_unchecked() }) + u64::cast_from(head_bytes);

    let first_key = max(query0 - half_window, 0i32);
    let last_query = min(query0 + comptime!(groups as i32 * 64 - 1), length - 1i32);
    let end_key = min(last_query + half_window + 1i32, length);
    let steps = (end_key - first_key + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);

    load_whole_rows(
        q_base,
        qk_row,
        sequence,
        query0,
        length,
        q_at,
        comptime!(groups * 64),
        threads,
    );
    load_whole_rows(
        d_out_base,
        d_out_row,
        sequence,
        query0,
        length,
        d_out_at,
        comptime!(groups * 64),
        threads,
    );
    load_whole_rows(
        k_base, qk_row, sequence, first_key, length, keys_at, KEYS, threads,
    );
    load_whole_rows(
        v_base, v_row, sequence, first_key, length, values_at, KEYS, threads,
    );
    copy_async_commit();

    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let row0 =
        query0 + i32::cast_from(group * 64u32 + (UNIT_POS % 128u32) / 32u32 * 16u32 + lane / 4u32);
    let group_first = query0 + i32::cast_from(group * 64u32);
    let q_desc = descriptor(q_at + group * comptime!(64 * ROW_BYTES));
    let d_out_desc = descriptor(d_out_at + group * comptime!(64 * ROW_BYTES));
    let column = i32::cast_from((lane % 4u32) * 2u32);

    // Rows beyond the end of the sequence read the last row's numbers; they are not stored.
    let row_numbers = CUBE_POS_X * total + sequence;
    let at0 = row_numbers + u32::cast_from(max(min(row0, length - 1i32), 0i32));
    let at1 = row_numbers + u32::cast_from(max(min(row0 + 8i32, length - 1i32), 0i32));
    let shift0 = lse[at0 as usize] * LOG2_E;
    let shift1 = lse[at1 as usize] * LOG2_E;
    let delta0 = delta[at0 as usize];
    let delta1 = delta[at1 as usize];

    let mut acc = Vector::<f32, Const<32>>::zeroed();
    for step in 0..steps {
        let key0 = first_key + step * comptime!(KEYS as i32);
        let stage = u32::cast_from(step % 2i32) * tile_bytes;
        arrive();
        if step + 1i32 < steps {
            let next = tile_bytes - stage;
            let key = key0 + comptime!(KEYS as i32);
            load_whole_rows(
                k_base,
                qk_row,
                sequence,
                key,
                length,
                keys_at + next,
                KEYS,
                threads,
            );
            load_whole_rows(
                v_base,
                v_row,
                sequence,
                key,
                length,
                values_at + next,
                KEYS,
                threads,
            );
            copy_async_commit();
        }
        if key0 <= group_first + 63i32 + half_window
            && key0 + comptime!(KEYS as i32 - 1) >= group_first - half_window
        {
            let keys = descriptor(keys_at + stage);
            let mut s = product_shared::<Const<32>>(q_desc, keys, 4usize, ty);
            let slopes = probabilities(
                &mut s,
                row0,
                group_first,
                key0,
                column,
                half_window,
                length,
                softcap,
                capped,
            );
            let dp =
                product_shared::<Const<32>>(d_out_desc, descriptor(values_at + stage), 4usize, ty);
            #[unroll]
            for j in 0..16usize {
                let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
                let mut ds0 = exp2(s.extract(i0) * scale_log2 - shift0) * (dp.extract(i0) - delta0);
                let mut ds1 = exp2(s.extract(i1) * scale_log2 - shift1) * (dp.extract(i1) - delta1);
                if comptime!(capped) {
                    ds0 *= slopes.extract(i0);
                    ds1 *= slopes.extract(i1);
                }
                s.insert(i0, ds0);
                s.insert(i1, ds1);
            }
            let ds = fragments(&s, ty);
            acc = add_product::<Const<32>>(acc, &ds, keys, ty);
        }
    }
    if comptime!(shape.rotated) {
        rotate_back(&mut acc, rotary, max(row0, 0i32), max(length, 1i32), lane);
    }
    let word = CUBE_POS_X * comptime!(ROW_BYTES / 4) + lane % 4u32;
    store_rows(
        d_qkv,
        &acc,
        row0,
        sequence,
        length,
        word,
        heads * comptime!(3 * ROW_BYTES / 4),
        scale,
        scale,
        ty,
    );
}

/// Gradients of keys and values. Cubes as in the forward, with keys in the place of queries.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn hopper_keys(
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
    let ty = comptime!(dtype(shape.half));
    let groups = comptime!(shape.groups);
    let capped = comptime!(shape.capped);
    let threads = comptime!(shape.units());
    let tile_bytes = comptime!(KEYS * ROW_BYTES);
    let own_bytes = comptime!(groups * 64 * ROW_BYTES);
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(((2 * own_bytes + 4 * tile_bytes) / 4) as usize),
        1024usize,
    );
    // Log-sum-exp and delta of the queries of both stages.
    let numbers = Shared::<[f32]>::new_aligned_slice(comptime!((4 * KEYS) as usize), 128usize);
    let k_at = shared_address(unsafe { shared.as_ptr_unchecked() });
    let v_at = k_at + own_bytes;
    let queries_at = v_at + own_bytes;
    let d_outs_at = queries_at + comptime!(2 * tile_bytes);
    let numbers_at = shared_float_address(unsafe { numbers.as_ptr_unchecked() });

    let tile = tile_of(tiles);
    let (key0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * ROW_BYTES;
    let d_out_row = heads * ROW_BYTES;
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let d_out_base =
        global_address(unsafe { d_out.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let row_numbers = u64::cast_from((CUBE_POS_X * total + sequence) * 4u32);
    let lse_base = global_address(unsafe { lse.as_ptr_unchecked() }) + row_numbers;
    let delta_base = global_address(unsafe { delta.as_ptr_unchecked() }) + row_numbers;

    let first_query = max(key0 - half_window, 0i32);
    let last_key = min(key0 + comptime!(groups as i32 * 64 - 1), length - 1i32);
    let end_query = min(last_key + half_window + 1i32, length);
    let steps = (end_query - first_query + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);

    load_whole_rows(
        k_base,
        qk_row,
        sequence,
        key0,
        length,
        k_at,
        comptime!(groups * 64),
        threads,
    );
    load_whole_rows(
        v_base,
        v_row,
        sequence,
        key0,
        length,
        v_at,
        comptime!(groups * 64),
        threads,
    );
    load_whole_rows(
        q_base,
        qk_row,
        sequence,
        first_query,
        length,
        queries_at,
        KEYS,
        threads,
    );
    load_whole_rows(
        d_out_base,
        d_out_row,
        sequence,
        first_query,
        length,
        d_outs_at,
        KEYS,
        threads,
    );
    load_numbers(lse_base, delta_base, first_query, length, numbers_at);
    copy_async_commit();

    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let row0 =
        key0 + i32::cast_from(group * 64u32 + (UNIT_POS % 128u32) / 32u32 * 16u32 + lane / 4u32);
    let group_first = key0 + i32::cast_from(group * 64u32);
    let k_desc = descriptor(k_at + group * comptime!(64 * ROW_BYTES));
    let v_desc = descriptor(v_at + group * comptime!(64 * ROW_BYTES));
    let column = i32::cast_from((lane % 4u32) * 2u32);

    let mut d_k = Vector::<f32, Const<32>>::zeroed();
    let mut d_v = Vector::<f32, Const<32>>::zeroed();
    for step in 0..steps {
        let query0 = first_query + step * comptime!(KEYS as i32);
        let odd = u32::cast_from(step % 2i32);
        let stage = odd * tile_bytes;
        arrive();
        if step + 1i32 < steps {
            let next = tile_bytes - stage;
            let query = query0 + comptime!(KEYS as i32);
            load_whole_rows(
                q_base,
                qk_row,
                sequence,
                query,
                length,
                queries_at + next,
                KEYS,
                threads,
            );
            load_whole_rows(
                d_out_base,
                d_out_row,
                sequence,
                query,
                length,
                d_outs_at + next,
                KEYS,
                threads,
            );
            load_numbers(
                lse_base,
                delta_base,
                query,
                length,
                numbers_at + (1u32 - odd) * comptime!(KEYS * 8),
            );
            copy_async_commit();
        }
        if query0 <= group_first + 63i32 + half_window
            && query0 + comptime!(KEYS as i32 - 1) >= group_first - half_window
        {
            let queries = descriptor(queries_at + stage);
            let d_outs = descriptor(d_outs_at + stage);
            let mut s = product_shared::<Const<32>>(k_desc, queries, 4usize, ty);
            let slopes = probabilities(
                &mut s,
                row0,
                group_first,
                query0,
                column,
                half_window,
                length,
                softcap,
                capped,
            );
            let number = odd * comptime!(KEYS * 2) + (lane % 4u32) * 2u32;
            #[unroll]
            for j in 0..16usize {
                let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
                let shift =
                    numbers[(number + comptime!((j / 2 * 8 + j % 2) as u32)) as usize] * LOG2_E;
                s.insert(i0, exp2(s.extract(i0) * scale_log2 - shift));
                s.insert(i1, exp2(s.extract(i1) * scale_log2 - shift));
            }
            let p = fragments(&s, ty);
            d_v = add_product::<Const<32>>(d_v, &p, d_outs, ty);
            let dp = product_shared::<Const<32>>(v_desc, d_outs, 4usize, ty);
            #[unroll]
            for j in 0..16usize {
                let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
                let delta =
                    numbers[(number + comptime!(KEYS + (j / 2 * 8 + j % 2) as u32)) as usize];
                let mut ds0 = s.extract(i0) * (dp.extract(i0) - delta);
                let mut ds1 = s.extract(i1) * (dp.extract(i1) - delta);
                if comptime!(capped) {
                    ds0 *= slopes.extract(i0);
                    ds1 *= slopes.extract(i1);
                }
                s.insert(i0, ds0);
                s.insert(i1, ds1);
            }
            let ds = fragments(&s, ty);
            d_k = add_product::<Const<32>>(d_k, &ds, queries, ty);
        }
    }
    if comptime!(shape.rotated) {
        rotate_back(&mut d_k, rotary, max(row0, 0i32), max(length, 1i32), lane);
    }
    let head_words = heads * comptime!(ROW_BYTES / 4);
    let word = CUBE_POS_X * comptime!(ROW_BYTES / 4) + lane % 4u32;
    store_rows(
        d_qkv,
        &d_k,
        row0,
        sequence,
        length,
        word + head_words,
        head_words * 3u32,
        scale,
        scale,
        ty,
    );
    store_rows(
        d_qkv,
        &d_v,
        row0,
        sequence,
        length,
        word + head_words * 2u32,
        head_words * 3u32,
        1.0f32,
        1.0f32,
        ty,
    );
}

/// Bounds and masks a tile of scores; what comes back is the bound's slope (unused where there is none).
#[allow(clippy::too_many_arguments)]
#[cube]
fn probabilities(
    s: &mut Vector<f32, Const<32>>,
    row: i32,
    group_first: i32,
    other0: i32,
    column: i32,
    half_window: i32,
    length: i32,
    softcap: f32,
    #[comptime] capped: bool,
) -> Vector<f32, Const<32>> {
    let mut slopes = Vector::<f32, Const<32>>::zeroed();
    if comptime!(capped) {
        #[unroll]
        for i in 0..32usize {
            let t = cap(s.extract(i), softcap);
            s.insert(i, t);
            slopes.insert(i, 1.0f32 - t * t);
        }
    }
    if other0 + comptime!(KEYS as i32) > length
        || other0 + comptime!(KEYS as i32 - 1) > group_first + half_window
        || other0 < group_first + 63i32 - half_window
    {
        mask(s, row, other0 + column, half_window, length);
    }
    slopes
}

/// Starts the copy of 64 log-sum-exps and, behind them, 64 deltas; zeros beyond the end of the sequence.
#[cube]
fn load_numbers(lse: u64, delta: u64, first: i32, length: i32, shared: u32) {
    if UNIT_POS < comptime!(2 * KEYS) {
        let position = first + i32::cast_from(UNIT_POS % KEYS);
        let inside = position < length;
        let offset = u64::cast_from(select(inside, u32::cast_from(position), 0u32) * 4u32);
        let from = select(UNIT_POS < KEYS, lse, delta) + offset;
        copy_async_4(shared + UNIT_POS * 4u32, from, select(inside, 4u32, 0u32));
    }
}
