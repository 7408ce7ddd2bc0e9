//! Forward attention on Hopper: one cube per tile of queries and head, tensor-core products, scores in registers.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::ptx::*;
use super::tile::*;

/// Packed attention, forward.
///
/// Cube x is a head, cube (y, z) a tile of queries. Each warp group of 128 units owns 64 queries; keys arrive in tiles of
/// [`KEYS`] through two stages of shared memory, the next one on its way while this one is worked on. With `inside`, `qk`
/// holds queries and keys as they are, and each tile is turned in shared memory when it has come.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn hopper_forward(
    qk: &[u32],
    v: &[u32],
    tiles: &[u32],
    rotary: &[f32],
    out: &mut [u32],
    lse: &mut [f32],
    qk_row: u32,
    k_offset: u32,
    v_row: u32,
    v_offset: u32,
    heads: u32,
    total: u32,
    half_window: i32,
    scale_log2: f32,
    softcap: f32,
    #[comptime] shape: Shape,
) {
    let ty = comptime!(dtype(shape.half));
    let groups = comptime!(shape.groups);
    let inside = comptime!(shape.inside);
    let capped = comptime!(shape.capped);
    let threads = comptime!(shape.units());
    let tile_bytes = comptime!(KEYS * ROW_BYTES);
    let query_bytes = comptime!(groups * 64 * ROW_BYTES);
    let shared = Shared::<[u32]>::new_aligned_slice(
        comptime!(((query_bytes + 4 * tile_bytes) / 4) as usize),
        1024usize,
    );
    let base = shared_address(unsafe { shared.as_ptr_unchecked() });
    let keys_at = base + query_bytes;
    let values_at = keys_at + comptime!(2 * tile_bytes);

    let tile = tile_of(tiles);
    let query0 = tile.first;
    let sequence = tile.sequence;
    let length = tile.length;
    let head_bytes = CUBE_POS_X * ROW_BYTES;

    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);

    // Keys that any query of this tile sees, within the sequence.
    let first_key = max(query0 - half_window, 0i32);
    let last_query = min(query0 + comptime!(groups as i32 * 64 - 1), length - 1i32);
    let end_key = min(last_query + half_window + 1i32, length);
    let steps = (end_key - first_key + comptime!(KEYS as i32 - 1)) / comptime!(KEYS as i32);

    load_tile(
        q_base,
        qk_row,
        sequence,
        query0,
        length,
        base,
        comptime!(groups * 64),
        threads,
        inside,
    );
    load_tile(
        k_base, qk_row, sequence, first_key, length, keys_at, KEYS, threads, inside,
    );
    load_tile(
        v_base, v_row, sequence, first_key, length, values_at, KEYS, threads, false,
    );
    copy_async_commit();
    let rotary_at = global_float_address(unsafe { rotary.as_ptr_unchecked() });
    if comptime!(inside) {
        turn_own(
            base,
            rotary_at,
            query0,
            length,
            comptime!(groups * 64),
            threads,
            ty,
        );
    }

    let group = UNIT_POS / 128u32;
    let lane = UNIT_POS % 32u32;
    let row0 =
        query0 + i32::cast_from(group * 64u32 + (UNIT_POS % 128u32) / 32u32 * 16u32 + lane / 4u32);
    let group_first = query0 + i32::cast_from(group * 64u32);
    let q_desc = descriptor(base + group * comptime!(64 * ROW_BYTES));
    let column = i32::cast_from((lane % 4u32) * 2u32);

    let mut acc = Vector::<f32, Const<32>>::zeroed();
    let mut max0 = f32::new(NEG_INF);
    let mut max1 = f32::new(NEG_INF);
    let mut sum0 = 0.0f32;
    let mut sum1 = 0.0f32;

    for step in 0..steps {
        let key0 = first_key + step * comptime!(KEYS as i32);
        let stage = u32::cast_from(step % 2i32) * tile_bytes;
        if comptime!(inside) {
            arrive_and_turn(keys_at + stage, rotary_at, key0, length, threads, ty);
        } else {
            arrive();
        }
        if step + 1i32 < steps {
            let next = tile_bytes - stage;
            let key = key0 + comptime!(KEYS as i32);
            load_tile(
                k_base,
                qk_row,
                sequence,
                key,
                length,
                keys_at + next,
                KEYS,
                threads,
                inside,
            );
            load_tile(
                v_base,
                v_row,
                sequence,
                key,
                length,
                values_at + next,
                KEYS,
                threads,
                false,
            );
            copy_async_commit();
        }
        // Uniform over the warp group: tiles none of its queries sees are passed over.
        if key0 <= group_first + 63i32 + half_window
            && key0 + comptime!(KEYS as i32 - 1) >= group_first - half_window
        {
            let mut s =
                product_shared::<Const<32>>(q_desc, descriptor(keys_at + stage), 4usize, ty);
            if comptime!(capped) {
                #[unroll]
                for i in 0..32usize {
                    s.insert(i, cap(s.extract(i), softcap));
                }
            }
            if key0 + comptime!(KEYS as i32) > length
                || key0 + comptime!(KEYS as i32 - 1) > group_first + half_window
                || key0 < group_first + 63i32 - half_window
            {
                mask(&mut s, row0, key0 + column, half_window, length);
            }
            let mut tile_max0 = s.extract(0usize);
            let mut tile_max1 = s.extract(2usize);
            #[unroll]
            for j in 0..16usize {
                tile_max0 = max(tile_max0, s.extract(comptime!(j / 2 * 4 + j % 2)));
                tile_max1 = max(tile_max1, s.extract(comptime!(j / 2 * 4 + j % 2 + 2)));
            }
            let new0 = max(max0, quad_max(tile_max0));
            let new1 = max(max1, quad_max(tile_max1));
            // A row whose keys were all hidden so far keeps its sum of zero.
            let shift0 = select(new0 == f32::new(NEG_INF), 0.0f32, new0 * scale_log2);
            let shift1 = select(new1 == f32::new(NEG_INF), 0.0f32, new1 * scale_log2);
            let old0 = exp2(max0 * scale_log2 - shift0);
            let old1 = exp2(max1 * scale_log2 - shift1);
            max0 = new0;
            max1 = new1;
            sum0 *= old0;
            sum1 *= old1;
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
            let p = fragments(&s, ty);
            #[unroll]
            for j in 0..16usize {
                let (i0, i1) = comptime!((j / 2 * 4 + j % 2, j / 2 * 4 + j % 2 + 2));
                acc.insert(i0, acc.extract(i0) * old0);
                acc.insert(i1, acc.extract(i1) * old1);
            }
            acc = sum_with_product::<Const<32>>(acc, &p, descriptor(values_at + stage), ty);
        }
    }

    let total0 = quad_sum(sum0);
    let total1 = quad_sum(sum1);
    let inverse0 = reciprocal(total0);
    let inverse1 = reciprocal(total1);
    let word = CUBE_POS_X * comptime!(ROW_BYTES / 4) + lane % 4u32;
    store_rows(
        out,
        &acc,
        row0,
        sequence,
        length,
        word,
        heads * comptime!(ROW_BYTES / 4),
        inverse0,
        inverse1,
        ty,
    );
    #[allow(clippy::manual_is_multiple_of)] // kernels have no such method
    if lane % 4u32 == 0u32 {
        let at = CUBE_POS_X * total + sequence;
        if row0 < length {
            lse[(at + u32::cast_from(row0)) as usize] = (max0 * scale_log2 + log2(total0)) * LN_2;
        }
        if row0 + 8i32 < length {
            lse[(at + u32::cast_from(row0 + 8i32)) as usize] =
                (max1 * scale_log2 + log2(total1)) * LN_2;
        }
    }
}
