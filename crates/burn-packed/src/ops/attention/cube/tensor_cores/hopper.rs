//! Warp-group instructions (WGMMA) of compute capability 9.0: heads of 64, bf16 and f16.
//!
//! Tiles in shared memory are 64 elements wide, 128 bytes a row, under the 128-byte swizzle: chunk `c` (16 bytes) of row `r` is
//! stored as chunk `c ^ (r % 8)`, so that neither copies nor WGMMA have bank conflicts. WGMMA reads shared memory through the
//! async proxy: writes of threads (`cp.async` among them) need a proxy fence before the barrier that hands a tile over.
//! Each multiplication waits for its own result; the blocks that share a multiprocessor fill the gaps.

use cubecl::prelude::*;

use super::super::tile::Tile;
use super::family::{Family, Fragment, FragmentExpand};
use super::ptx::copy_async_16;
use super::rows::{Rows, copy_pairs, source};
use super::shape::Shape;
use super::wgmma::{add_product, descriptor, left_operand, multiply, sum_with_product};
use super::{HostFamily, Pass};

/// See the module documentation.
pub(in super::super) struct Hopper;

impl HostFamily for Hopper {
    const PIPELINED: bool = true;

    fn shape(pass: Pass, head_dim: u32) -> Shape {
        Shape {
            head_dim,
            // One or two warp groups, so that registers let two to three blocks share a multiprocessor.
            rows: if pass == Pass::Forward { 128 } else { 64 },
            keys: 64,
            wgmma: true,
            resident: false,
            rope_inside: false,
            rope: false,
            capped: false,
            half: false,
        }
    }

    fn supports(head_dim: u32, capability: u32, _shared_bytes: usize) -> bool {
        head_dim == 64 && capability == 90
    }
}

#[cube]
impl Family for Hopper {
    /// The descriptor of the rows in shared memory.
    type Left = u64;
    type Fragment = WgmmaFragment;

    fn copy(
        rows: &Rows,
        tile: &Tile,
        first: i32,
        shared: u32,
        #[comptime] count: u32,
        #[comptime] rope: bool,
        #[comptime] shape: Shape,
    ) {
        if comptime!(rope) {
            copy_pairs(rows, tile, first, shared, count, shape);
        } else {
            copy_chunks(rows, tile, first, shared, count, shape);
        }
    }

    fn left(shared: u32, #[comptime] _shape: Shape) -> u64 {
        descriptor(shared)
    }

    fn scores(left: &u64, shared: u32, #[comptime] shape: Shape) -> WgmmaFragment {
        let ty = comptime!(shape.ty());
        WgmmaFragment {
            elements: multiply::<Const<32>>(*left, descriptor(shared), 4usize, ty),
        }
    }

    fn accumulate(
        sums: &mut WgmmaFragment,
        weights: &WgmmaFragment,
        shared: u32,
        #[comptime] rescaled: bool,
        #[comptime] shape: Shape,
    ) {
        let ty = comptime!(shape.ty());
        let left = left_operand(&weights.elements, ty);
        let right = descriptor(shared);
        if comptime!(rescaled) {
            sums.elements = sum_with_product::<Const<32>>(sums.elements, &left, right, ty);
        } else {
            sums.elements = add_product::<Const<32>>(sums.elements, &left, right, ty);
        }
    }

    fn zeros(#[comptime] _parts: usize) -> WgmmaFragment {
        WgmmaFragment {
            elements: Vector::<f32, Const<32>>::zeroed(),
        }
    }
}

/// A fragment `[64, 64]`: element `e` of part `p` is number `4 p + e`.
#[derive(CubeType)]
pub(in super::super) struct WgmmaFragment {
    pub(super) elements: Vector<f32, Const<32>>,
}

#[cube]
impl Fragment for WgmmaFragment {
    fn get(&self, #[comptime] part: usize, #[comptime] e: usize) -> f32 {
        self.elements.extract(comptime!(part * 4 + e))
    }

    fn set(&mut self, #[comptime] part: usize, #[comptime] e: usize, value: f32) {
        self.elements.insert(comptime!(part * 4 + e), value);
    }
}

/// As [`copy_pairs`], for rows that need no RoPE: neighbouring threads copy neighbouring chunks of a row.
#[cube]
fn copy_chunks(
    rows: &Rows,
    tile: &Tile,
    first: i32,
    shared: u32,
    #[comptime] count: u32,
    #[comptime] shape: Shape,
) {
    // Rows that all threads copy at once.
    let at_once = comptime!(shape.threads() / 8);
    let chunk = UNIT_POS % 8u32;
    let row0 = UNIT_POS / 8u32;
    let to = shared + row0 * comptime!(shape.pitch()) + ((chunk ^ (row0 % 8u32)) * 16u32);
    let from = rows.base + u64::cast_from(chunk * 16u32);
    #[unroll]
    for i in 0..comptime!(count / at_once) {
        let row = row0 + comptime!(i * at_once);
        let position = first + i32::cast_from(row);
        let (packed_row, bytes) = source(tile, position);
        copy_async_16(
            to + comptime!(i * at_once * shape.pitch()),
            from + u64::cast_from(packed_row) * u64::cast_from(rows.pitch),
            bytes,
        );
    }
}
