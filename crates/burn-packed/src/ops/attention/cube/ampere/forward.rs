//! Forward attention in warp-level products: one cube per tile of queries and head, scores in registers.

use cubecl::prelude::*;

use super::super::ptx::*;
use super::super::tensor_cores::*;
use super::tile::*;

/// Packed attention, forward.
///
/// Cube x is a head, cube (y, z) a tile of [`ROWS`] queries, 16 to a warp. Keys and values arrive in tiles through two stages
/// of shared memory, the next ones on their way while these are worked on; the queries pass through the second stage into
/// registers before it is needed.
#[allow(clippy::too_many_arguments)]
#[cube(launch_unchecked)]
pub(in super::super) fn ampere_forward(
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
    let tile_bytes = comptime!(shape.tile_bytes());
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(shape.forward_bytes() as usize / 4), 128usize);
    // Stage 0: keys, values; stage 1 behind it. The queries take the place of stage 1 at first.
    let base = shared_address(unsafe { shared.as_ptr_unchecked() });
    let queries_at = base + comptime!(2 * tile_bytes);

    let tile = tile_of(tiles);
    let (query0, sequence, length) = (tile.first, tile.sequence, tile.length);
    let head_bytes = CUBE_POS_X * comptime!(shape.head_dim * 2);
    let q_base = global_address(unsafe { qk.as_ptr_unchecked() }) + u64::cast_from(head_bytes);
    let k_base = q_base + u64::cast_from(k_offset);
    let v_base =
        global_address(unsafe { v.as_ptr_unchecked() }) + u64::cast_from(v_offset + head_bytes);
    let rotary_at = global_float_address(unsafe { rotary.as_ptr_unchecked() });
    let rows = comptime!(shape.rows());

    // Keys that any query of this tile sees, within the sequence.
    let first_key = max(query0 - half_window, 0i32);
    let last_query = min(query0 + comptime!(ROWS as i32 - 1), length - 1i32);
    let end_key = min(last_query + half_window + 1i32, length);
    let keys = comptime!(shape.keys as i32);
    let steps = (end_key - first_key + comptime!(shape.keys as i32 - 1)) / keys;

    load_rows(
        q_base, qk_row, sequence, query0, length, queries_at, ROWS, rows,
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
    arrive(queries_at, rotary_at, query0, length, ROWS, shape);

    let warp = UNIT_POS / 32u32;
    let lane = UNIT_POS % 32u32;
    let warp_first = query0 + i32::cast_from(warp * WARP_ROWS);
    let row0 = warp_first + i32::cast_from(lane / 4u32);
    let column = i32::cast_from(lane % 4u32 * 2u32);
    let own = queries_at + warp * comptime!(WARP_ROWS * shape.pitch());
    let kept = resident(own, shape);

    let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.dim_parts()));
    let mut s = Array::<Vector<f32, Const<4>>>::new(comptime!(shape.key_parts()));
    let mut unused = Array::<Vector<f32, Const<4>>>::new(1usize);
    clear(&mut acc, comptime!(shape.dim_parts()));
    let mut max0 = f32::new(NEG_INF);
    let mut max1 = f32::new(NEG_INF);
    let mut sum0 = 0.0f32;
    let mut sum1 = 0.0f32;

    for step in 0..steps {
        let key0 = first_key + step * keys;
        let odd = u32::cast_from(step % 2i32);
        let stage = base + odd * comptime!(2 * tile_bytes);
        arrive(stage, rotary_at, key0, length, shape.keys, shape);
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
            scores(&kept, own, stage, &mut s, shape);
            bound_and_mask(
                &mut s,
                &mut unused,
                row0,
                warp_first,
                key0,
                column,
                half_window,
                length,
                softcap,
                false,
                shape,
            );
            let mut tile_max0 = f32::new(NEG_INF);
            let mut tile_max1 = f32::new(NEG_INF);
            #[unroll]
            for j in 0..comptime!(shape.key_parts()) {
                let part = s[j];
                tile_max0 = max(tile_max0, max(part.extract(0usize), part.extract(1usize)));
                tile_max1 = max(tile_max1, max(part.extract(2usize), part.extract(3usize)));
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
            for j in 0..comptime!(shape.key_parts()) {
                let mut part = s[j];
                #[unroll]
                for e in 0..2usize {
                    let below = comptime!(e + 2);
                    let p0 = exp2(part.extract(e) * scale_log2 - shift0);
                    let p1 = exp2(part.extract(below) * scale_log2 - shift1);
                    sum0 += p0;
                    sum1 += p1;
                    part.insert(e, p0);
                    part.insert(below, p1);
                }
                s[j] = part;
            }
            #[unroll]
            for j in 0..comptime!(shape.dim_parts()) {
                let mut part = acc[j];
                #[unroll]
                for e in 0..2usize {
                    let below = comptime!(e + 2);
                    part.insert(e, part.extract(e) * old0);
                    part.insert(below, part.extract(below) * old1);
                }
                acc[j] = part;
            }
            accumulate(&s, stage + tile_bytes, &mut acc, shape);
        }
    }

    let total0 = quad_sum(sum0);
    let total1 = quad_sum(sum1);
    let words = comptime!(shape.head_dim / 2);
    store(
        out,
        &acc,
        row0,
        sequence,
        length,
        CUBE_POS_X * words + lane % 4u32,
        heads * words,
        reciprocal(total0),
        reciprocal(total1),
        shape,
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
