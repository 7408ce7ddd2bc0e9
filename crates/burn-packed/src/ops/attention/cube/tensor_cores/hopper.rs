//! Warp-group instructions (WGMMA) of compute capability 9.0: heads of 64, bf16 and f16.
//!
//! Tiles in shared memory are 64 elements wide, 128 bytes a row, under the 128-byte swizzle: chunk `c` (16 bytes) of row `r` is
//! stored as chunk `c ^ (r % 8)`, so that neither copies nor WGMMA have bank conflicts. WGMMA reads shared memory through the
//! async proxy: writes of threads (`cp.async` among them) need a proxy fence before the barrier after which other threads use a tile.
//! Each GEMM waits for its own result; other blocks on the same multiprocessor compute during the wait.

use cubecl::prelude::*;

use super::KernelKind;
use super::config::KernelConfig;
use super::family::{Family, Fragment, FragmentExpand, HostFamily};
use super::fragments::as_operand_a;
use super::rows::{HeadRows, copy_pairs};
use crate::ops::ptx::copy_async_16;
use crate::ops::ptx::wgmma::{descriptor, multiply, sum_with_product};

/// See the module documentation.
pub(in super::super) struct Hopper;

impl HostFamily for Hopper {
    const PIPELINED: bool = true;

    fn config(kind: KernelKind, head_dim: u32) -> KernelConfig {
        KernelConfig {
            head_dim,
            // One or two warp groups, so that registers let two to three blocks share a multiprocessor.
            rows: if kind == KernelKind::Forward { 128 } else { 64 },
            keys: 64,
            wgmma: true,
            ..KernelConfig::default()
        }
    }

    fn supports(head_dim: u32, capability: u32, _shared_bytes: usize) -> bool {
        head_dim == 64 && capability == 90
    }
}

#[cube]
impl Family for Hopper {
    /// The descriptor of the rows in shared memory.
    type OperandA = u64;
    type Fragment = WgmmaFragment<Const<32>>;

    fn copy(
        rows: &HeadRows,
        first: i32,
        shared: u32,
        #[comptime] count: u32,
        #[comptime] rope: bool,
    ) {
        if comptime!(rope) {
            copy_pairs(rows, first, shared, count);
        } else {
            copy_chunks(rows, first, shared, count);
        }
    }

    fn operand_a(shared: u32, #[comptime] _config: KernelConfig) -> u64 {
        descriptor(shared)
    }

    fn scores(
        operand_a: &u64,
        shared: u32,
        #[comptime] config: KernelConfig,
    ) -> WgmmaFragment<Const<32>> {
        let ty = comptime!(config.ty());
        WgmmaFragment::new(multiply::<Const<32>>(
            *operand_a,
            descriptor(shared),
            4usize,
            ty,
        ))
    }

    fn accumulate(
        sums: &mut WgmmaFragment<Const<32>>,
        weights: &WgmmaFragment<Const<32>>,
        shared: u32,
        #[comptime] rescaled: bool,
        #[comptime] config: KernelConfig,
    ) {
        let ty = comptime!(config.ty());
        let operand_a = as_operand_a::<WgmmaFragment<Const<32>>, Const<16>>(weights, 0usize, ty);
        let right = descriptor(shared);
        sums.elements = sum_with_product(sums.elements, operand_a, right, rescaled, ty);
    }

    fn zeros(#[comptime] _parts: usize) -> WgmmaFragment<Const<32>> {
        WgmmaFragment::new(Vector::<f32, Const<32>>::zeroed())
    }
}

/// A fragment `[64, 2 N]`: element `e` of n-tile `p` is number `4 p + e`.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in super::super) struct WgmmaFragment<N: Size> {
    pub(super) elements: Vector<f32, N>,
}

#[cube]
impl<N: Size> WgmmaFragment<N> {
    pub(super) fn new(elements: Vector<f32, N>) -> WgmmaFragment<N> {
        WgmmaFragment::<N> { elements }
    }
}

#[cube]
impl<N: Size> Fragment for WgmmaFragment<N> {
    fn get(&self, #[comptime] n_tile: usize, #[comptime] e: usize) -> f32 {
        self.elements.extract(comptime!(n_tile * 4 + e))
    }

    fn set(&mut self, #[comptime] n_tile: usize, #[comptime] e: usize, value: f32) {
        self.elements.insert(comptime!(n_tile * 4 + e), value);
    }
}

/// As [`copy_pairs`], for rows that need no RoPE: neighbouring threads copy neighbouring chunks of a row.
#[cube]
fn copy_chunks(rows: &HeadRows, first: i32, shared: u32, #[comptime] count: u32) {
    let config = comptime!(rows.config);
    // Rows that all threads copy at once.
    let at_once = comptime!(config.threads() / 8);
    let chunk = UNIT_POS % 8u32;
    let row0 = UNIT_POS / 8u32;
    let to = shared + row0 * comptime!(config.pitch()) + ((chunk ^ (row0 % 8u32)) * 16u32);
    let from = rows.base + u64::cast_from(chunk * 16u32);
    #[unroll]
    for i in 0..comptime!(count / at_once) {
        let row = row0 + comptime!(i * at_once);
        let (packed_row, bytes) = rows.source(first + i32::cast_from(row));
        let to = to + comptime!(i * at_once * config.pitch());
        copy_async_16(to, from + rows.offset(packed_row), bytes);
    }
}
