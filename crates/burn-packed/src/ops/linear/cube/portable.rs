//! Portable GEMM kernel, for every CubeCL device, dtype and size: tiles of 64 × 64 in shared memory, f32 arithmetic.
//!
//! The kernel needs only shared memory and `sync_cube`. On CUDA it computes GEMMs in f32, whose operands Burn's matmul would round to
//! TF32, and GEMMs of sizes that TMA cannot address.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{Gemm, GemmShape};
use crate::ops::linear::Transpose;
use crate::ops::rows::{address, empty};

/// Rows and columns of an output tile.
const TILE: usize = 64;
/// Inner elements of a step.
const TILE_K: usize = 16;
/// Rows and columns of the part of a tile that a thread computes.
const PER_THREAD: usize = 4;
/// Threads of a block.
const THREADS: u32 = ((TILE / PER_THREAD) * (TILE / PER_THREAD)) as u32;
/// Distance of inner elements in shared memory; the padding of four spreads neighboring rows over the banks.
const STRIDE: usize = TILE + PER_THREAD;

/// Sizes and strides of the operands, in elements: `a[i, p]` is at `i * a_row + p * a_inner`, `b[p, j]` at
/// `p * b_inner + j * b_column`.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Operands {
    rows: usize,
    columns: usize,
    inner: usize,
    a_row: usize,
    a_inner: usize,
    b_inner: usize,
    b_column: usize,
}

/// `out [rows, columns] = a · b`.
///
/// Grid: one block of [`THREADS`] threads per output tile, tile rows along x, tile columns along y. `a_m_major` and `b_n_major` give
/// the contiguous axis of an operand; they decide only which elements a thread loads, so that neighboring threads read neighboring
/// elements.
#[cube(launch, address_type = "dynamic")]
fn portable_gemm<F: Float, O: Float>(
    a: &[F],
    b: &[F],
    out: &mut [O],
    operands: &Operands,
    #[comptime] a_m_major: bool,
    #[comptime] b_n_major: bool,
    #[define(F)] _dtype: ElemType,
    #[define(O)] _out_dtype: ElemType,
) {
    // Both [TILE_K, TILE], rows `STRIDE` apart.
    let mut left = Shared::<[f32]>::new_slice(comptime!(TILE_K * STRIDE));
    let mut right = Shared::<[f32]>::new_slice(comptime!(TILE_K * STRIDE));
    let thread = UNIT_POS as usize;
    let first_row = CUBE_POS_X as usize * TILE;
    let first_column = CUBE_POS_Y as usize * TILE;
    let (a_i, a_p) = first_loaded(thread, a_m_major);
    let (b_j, b_p) = first_loaded(thread, b_n_major);
    let row = thread / comptime!(TILE / PER_THREAD) * PER_THREAD;
    let column = thread % comptime!(TILE / PER_THREAD) * PER_THREAD;
    let mut sums = Array::<f32>::new(comptime!(PER_THREAD * PER_THREAD));
    #[unroll]
    for i in 0..comptime!(PER_THREAD * PER_THREAD) {
        sums[i] = 0.0f32;
    }
    let steps = operands.inner.div_ceil(TILE_K);
    for step in 0..steps {
        let base = step * TILE_K;
        #[unroll]
        for i in 0..PER_THREAD {
            let (di, dp) = comptime!(load_offset(i, a_m_major));
            let (r, p) = (a_i + di, a_p + dp);
            let mut x = 0.0f32;
            if first_row + r < operands.rows && base + p < operands.inner {
                let at = (first_row + r) * operands.a_row + (base + p) * operands.a_inner;
                x = f32::cast_from(a[at]);
            }
            left[p * STRIDE + r] = x;
            let (dj, dp) = comptime!(load_offset(i, b_n_major));
            let (c, p) = (b_j + dj, b_p + dp);
            let mut y = 0.0f32;
            if first_column + c < operands.columns && base + p < operands.inner {
                let at = (base + p) * operands.b_inner + (first_column + c) * operands.b_column;
                y = f32::cast_from(b[at]);
            }
            right[p * STRIDE + c] = y;
        }
        sync_cube();
        for p in 0..TILE_K {
            let mut x = Array::<f32>::new(PER_THREAD);
            let mut y = Array::<f32>::new(PER_THREAD);
            #[unroll]
            for i in 0..PER_THREAD {
                x[i] = left[p * STRIDE + row + i];
                y[i] = right[p * STRIDE + column + i];
            }
            #[unroll]
            for i in 0..PER_THREAD {
                #[unroll]
                for j in 0..PER_THREAD {
                    let at = comptime!(i * PER_THREAD + j);
                    sums[at] = fma(x[i], y[j], sums[at]);
                }
            }
        }
        // All threads have read the tiles, which the next step overwrites.
        sync_cube();
    }
    #[unroll]
    for i in 0..PER_THREAD {
        #[unroll]
        for j in 0..PER_THREAD {
            let (r, c) = (first_row + row + i, first_column + column + j);
            if r < operands.rows && c < operands.columns {
                out[r * operands.columns + c] = O::cast_from(sums[comptime!(i * PER_THREAD + j)]);
            }
        }
    }
}

/// Returns the outer and inner index in a tile of the first of the [`PER_THREAD`] elements that a thread loads.
#[cube]
fn first_loaded(thread: usize, #[comptime] outer_contiguous: bool) -> (usize, usize) {
    if comptime!(outer_contiguous) {
        (thread % TILE, thread / TILE)
    } else {
        (thread / TILE_K, thread % TILE_K)
    }
}

/// Outer and inner distance of the thread's element `i` from its first one.
fn load_offset(i: usize, outer_contiguous: bool) -> (usize, usize) {
    if outer_contiguous {
        (0, i * (THREADS as usize / TILE))
    } else {
        (i * (THREADS as usize / TILE_K), 0)
    }
}

impl Gemm {
    /// Runs the portable kernel.
    pub(super) fn run_portable(self) -> CubeTensor {
        let GemmShape { m, n, k } = self.shape;
        let (a_m_major, b_n_major) = (
            self.transpose == Transpose::Lhs,
            self.transpose != Transpose::Rhs,
        );
        let (a_row, a_inner) = if a_m_major { (1, m) } else { (k, 1) };
        let (b_inner, b_column) = if b_n_major { (n, 1) } else { (1, k) };
        let (lhs, rhs) = (into_contiguous(self.lhs), into_contiguous(self.rhs));
        let out = empty(&lhs, [m, n], self.out);
        let client = lhs.client.clone();
        portable_gemm::launch(
            &client,
            CubeCount::Static(m.div_ceil(TILE) as u32, n.div_ceil(TILE) as u32, 1),
            CubeDim::new_1d(THREADS),
            address(&[&lhs, &rhs, &out]),
            lhs.into_buffer_arg(),
            rhs.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            OperandsLaunch::new(m, n, k, a_row, a_inner, b_inner, b_column),
            a_m_major,
            b_n_major,
            self.operand_element,
            self.out_element,
        );
        out
    }
}
