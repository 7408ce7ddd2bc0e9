//! The interface of a family of tensor-core instructions to the kernels: copies, MMA and access to results.
//!
//! A result of a matrix multiplication (*fragment*) is `[rows, 8 · n_tiles]` in f32, spread over the registers of a warp, 16 rows to
//! a warp. Both families have PTX's layout for it. Of every *n-tile*, 8 columns wide, lane `l` holds four elements `e`:
//!
//! ```text
//!                 columns of an n-tile
//!                 0   1     2   3     4   5     6   7
//!               ┌─────────┬─────────┬─────────┬─────────┐
//! row 0         │ lane  0 │ lane  1 │ lane  2 │ lane  3 │   e = 0, 1: row l / 4,
//! row 1         │ lane  4 │ lane  5 │ lane  6 │ lane  7 │             columns 2 (l % 4) and 2 (l % 4) + 1
//! …             │    …    │    …    │    …    │    …    │
//! row 7         │ lane 28 │ lane 29 │ lane 30 │ lane 31 │
//!               ├─────────┼─────────┼─────────┼─────────┤
//! row 8         │ lane  0 │ lane  1 │ lane  2 │ lane  3 │   e = 2, 3: the same columns of row l / 4 + 8
//! …             │    …    │    …    │    …    │    …    │
//! row 15        │ lane 28 │ lane 29 │ lane 30 │ lane 31 │
//!               └─────────┴─────────┴─────────┴─────────┘
//! ```
//!
//! So a thread has elements of two rows, its *upper* row (`e` < 2) and its *lower* row, eight rows below; the four lanes of a
//! quad together have both rows. Rounded to 16 bits in pairs, two neighboring n-tiles of a result are exactly a `[16, 16]`
//! operand A of the next GEMM: probabilities never pass through shared memory.

use cubecl::prelude::*;

use super::KernelKind;
use super::config::KernelConfig;
use super::rows::HeadRows;

/// A family of tensor-core instructions.
#[cube]
pub(in super::super) trait Family: Send + Sync + 'static {
    /// The rows of a warp or warp group itself (not the streamed ones) as operand A, the left one.
    type OperandA: CubeType;
    /// A thread's elements of a result.
    type Fragment: Fragment;

    /// Starts this thread's share of the copy of `count` rows, from position `first` of the sequence on, to `shared`; zeros in place
    /// of rows outside the sequence. With `rope`, a thread copies the chunks to which it will apply RoPE.
    fn copy(
        rows: &HeadRows,
        first: i32,
        shared: u32,
        #[comptime] count: u32,
        #[comptime] rope: bool,
    );

    /// Returns the rows at `shared` of this warp or warp group as operand A.
    fn operand_a(shared: u32, #[comptime] config: KernelConfig) -> Self::OperandA;

    /// `operand_a · tileᵀ`, `[group, keys]`, the tile at `shared` being `[keys, head_dim]`.
    fn scores(
        operand_a: &Self::OperandA,
        shared: u32,
        #[comptime] config: KernelConfig,
    ) -> Self::Fragment;

    /// `sums += weights · tile`, `[group, head_dim]`, with weights `[group, keys]` rounded to 16 bits. `rescaled` says that other
    /// instructions have just changed the sums.
    fn accumulate(
        sums: &mut Self::Fragment,
        weights: &Self::Fragment,
        shared: u32,
        #[comptime] rescaled: bool,
        #[comptime] config: KernelConfig,
    );

    /// A fragment of zeros, with `n_tiles` n-tiles.
    fn zeros(#[comptime] n_tiles: usize) -> Self::Fragment;
}

/// A thread's elements of a result; see the module documentation.
#[cube]
pub(in super::super) trait Fragment {
    /// Element `e` of an n-tile.
    fn get(&self, #[comptime] n_tile: usize, #[comptime] e: usize) -> f32;

    /// Replaces element `e` of an n-tile.
    fn set(&mut self, #[comptime] n_tile: usize, #[comptime] e: usize, value: f32);
}

/// The functions of a family that run on the host.
pub(in super::super) trait HostFamily {
    /// True if the warp-specialized kernels of `pipelined/` belong to the family.
    const PIPELINED: bool;

    /// A kernel for bf16, without RoPE and softcap.
    fn config(kind: KernelKind, head_dim: u32) -> KernelConfig;

    /// True if a CUDA device of this compute capability (90 for 9.0), with `shared_bytes` of shared memory for a block, has kernels for this head
    /// size.
    fn supports(head_dim: u32, capability: u32, shared_bytes: usize) -> bool;
}
