//! Warp instructions (`mma.sync`, `ldmatrix`) of compute capability 8.0 and later: heads of 16 to 128 in steps of 16, bf16 and
//! f16. On Hopper they are used for the head sizes that the WGMMA kernels do not support.
//!
//! One `mma` is `[16, 16] · [16, 8]`. With `g = l / 4` and `t = 2 (l % 4)`, lane `l` holds, as pairs of 16-bit numbers or f32:
//!
//! | operand | registers |
//! |---|---|
//! | A `[16, 16]` | pairs at (row, column) = (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8) |
//! | right `[16, 8]` | pairs along the inner dimension: (inner, column) = (t, g), (t + 8, g) |
//! | result `[16, 8]` | (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1): an n-tile of a fragment |
//!
//! `ldmatrix` reads four `[8, 8]` matrices, a register of each lane for each; lanes 8 i to 8 i + 7 give the addresses of the rows of
//! matrix i. The functions below name the four matrices.

use cubecl::prelude::*;

use super::KernelKind;
use super::config::KernelConfig;
use super::family::{Family, Fragment, FragmentExpand, HostFamily};
use super::fragments::as_operand_a;
use super::rows::{HeadRows, copy_pairs};
use crate::ops::ptx::unchanged;

/// Four registers of a thread: four pairs of 16-bit numbers.
type Packed = Vector<u32, Const<4>>;
/// A thread's elements of a `[16, 8]` result.
type MmaAccumulator = Vector<f32, Const<4>>;

/// The largest head whose accumulators fit the registers of a warp.
const LARGEST_HEAD: u32 = 128;

/// See the module documentation.
pub(in super::super) struct Ampere;

impl HostFamily for Ampere {
    const PIPELINED: bool = false;

    /// Tiles of 64 keys where two blocks with them fit the 100 KiB of compute capability 8.6, of 32 otherwise. The backward kernels
    /// have two tensors of own rows, and keep them in registers where the accumulators leave enough registers.
    fn config(kind: KernelKind, head_dim: u32) -> KernelConfig {
        let small = head_dim <= 64;
        let forward = kind == KernelKind::Forward;
        KernelConfig {
            head_dim,
            rows: 64,
            keys: if small && forward { 64 } else { 32 },
            resident: small || forward,
            ..KernelConfig::default()
        }
    }

    fn supports(head_dim: u32, capability: u32, shared_bytes: usize) -> bool {
        head_dim.is_multiple_of(16)
            && (16..=LARGEST_HEAD).contains(&head_dim)
            && capability >= 80
            && Self::config(KernelKind::Keys, head_dim).most_shared_bytes() <= shared_bytes
    }
}

/// The 16 own rows of a warp.
#[derive(CubeType)]
pub(in super::super) struct WarpRows {
    /// Slices of 16 columns, if they are resident in registers.
    slices: Sequence<Packed>,
    /// Address in shared memory, from which slices are read otherwise.
    shared: u32,
}

#[cube]
impl Family for Ampere {
    type OperandA = WarpRows;
    type Fragment = MmaFragment;

    fn copy(
        rows: &HeadRows,
        first: i32,
        shared: u32,
        #[comptime] count: u32,
        #[comptime] _rope: bool,
    ) {
        copy_pairs(rows, first, shared, count);
    }

    fn operand_a(shared: u32, #[comptime] config: KernelConfig) -> WarpRows {
        let mut slices = Sequence::<Packed>::new();
        if comptime!(config.resident) {
            #[unroll]
            for slice in 0..comptime!(config.head_n_tiles() / 2) {
                slices.push(slice_of_a(shared, slice, config));
            }
        }
        WarpRows { slices, shared }
    }

    fn scores(operand_a: &WarpRows, shared: u32, #[comptime] config: KernelConfig) -> MmaFragment {
        let ty = comptime!(config.ty());
        let lane = UNIT_POS % 32u32;
        // Of 16 rows of the tile, the right operands of two n-tiles: rows 0 to 7, columns 0 to 7 and 8 to 15 of a slice; then rows 8 to 15.
        let at = shared
            + (lane / 16u32 * 8u32 + lane % 8u32) * comptime!(config.pitch())
            + lane / 8u32 % 2u32 * 16u32;
        let mut scores = Ampere::zeros(comptime!(config.score_n_tiles()));
        #[unroll]
        for slice in 0..comptime!(config.head_n_tiles() / 2) {
            let a = if comptime!(config.resident) {
                *operand_a.slices.index(comptime!(slice))
            } else {
                slice_of_a(operand_a.shared, slice, config)
            };
            #[unroll]
            for pair in 0..comptime!(config.score_n_tiles() / 2) {
                let offset = comptime!(pair as u32 * 16 * config.pitch() + slice as u32 * 32);
                let b = load_matrices(at + offset, "");
                add_pair(&mut scores.n_tiles, a, b, pair, ty);
            }
        }
        scores
    }

    fn accumulate(
        sums: &mut MmaFragment,
        weights: &MmaFragment,
        shared: u32,
        #[comptime] _rescaled: bool,
        #[comptime] config: KernelConfig,
    ) {
        let ty = comptime!(config.ty());
        let lane = UNIT_POS % 32u32;
        // `ldmatrix.trans` transposes: rows 0 to 7 and 8 to 15 of a slice of the tile, columns 0 to 7; then columns 8 to 15.
        let at = shared + lane % 16u32 * comptime!(config.pitch()) + lane / 16u32 * 16u32;
        #[unroll]
        for slice in 0..comptime!(config.score_n_tiles() / 2) {
            let a = as_operand_a::<MmaFragment, Const<4>>(weights, comptime!(slice * 2), ty);
            #[unroll]
            for pair in 0..comptime!(config.head_n_tiles() / 2) {
                let offset = comptime!(slice as u32 * 16 * config.pitch() + pair as u32 * 32);
                let b = load_matrices(at + offset, ".trans");
                add_pair(&mut sums.n_tiles, a, b, pair, ty);
            }
        }
    }

    fn zeros(#[comptime] n_tiles: usize) -> MmaFragment {
        let mut zeros = Array::<MmaAccumulator>::new(n_tiles);
        #[unroll]
        for n_tile in 0..n_tiles {
            zeros[n_tile] = MmaAccumulator::zeroed();
        }
        MmaFragment { n_tiles: zeros }
    }
}

/// A fragment `[16, 8 · n_tiles]`.
#[derive(CubeType)]
pub(in super::super) struct MmaFragment {
    n_tiles: Array<MmaAccumulator>,
}

#[cube]
impl Fragment for MmaFragment {
    fn get(&self, #[comptime] n_tile: usize, #[comptime] e: usize) -> f32 {
        self.n_tiles[n_tile].extract(e)
    }

    fn set(&mut self, #[comptime] n_tile: usize, #[comptime] e: usize, value: f32) {
        let mut changed = self.n_tiles[n_tile];
        changed.insert(e, value);
        self.n_tiles[n_tile] = changed;
    }
}

/// Slice `slice` of a warp's 16 rows at `rows` as operand A: rows 0 to 7 and 8 to 15, columns 0 to 7; then columns 8 to 15.
#[cube]
fn slice_of_a(rows: u32, #[comptime] slice: usize, #[comptime] config: KernelConfig) -> Packed {
    let lane = UNIT_POS % 32u32;
    let at = rows + lane % 16u32 * comptime!(config.pitch()) + lane / 16u32 * 16u32;
    load_matrices(at + comptime!(slice as u32 * 32), "")
}

/// Adds `a · b` to n-tiles `2 pair` and `2 pair + 1`, whose right operands `b` has.
#[cube]
fn add_pair(
    sums: &mut Array<MmaAccumulator>,
    a: Packed,
    b: Packed,
    #[comptime] pair: usize,
    #[comptime] ty: &str,
) {
    let (j, k) = comptime!((pair * 2, pair * 2 + 1));
    sums[j] = mma(a, b.extract(0usize), b.extract(1usize), sums[j], ty);
    sums[k] = mma(a, b.extract(2usize), b.extract(3usize), sums[k], ty);
}

/// `c + a · b`.
#[cube]
fn mma(a: Packed, b0: u32, b1: u32, c: MmaAccumulator, #[comptime] ty: &str) -> MmaAccumulator {
    let (a, c) = (unchanged::<Packed>(a), unchanged::<MmaAccumulator>(c));
    let d: Vector<f32, Const<4>>;
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {d}, {a}, {{{b0}, {b1}}}, {c};",
        d = out(_) d, a = in(_) a, b0 = in(_) b0, b1 = in(_) b1, c = in(_) c, options(pure, nomem)
    );
    d
}

/// Reads four matrices, each transposed if `transposed` is `.trans`; the lane gives the address of one of their rows.
#[cube]
fn load_matrices(address: u32, #[comptime] transposed: &str) -> Packed {
    let x: Vector<u32, Const<4>>;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 {x}, [{a}];",
        x = out(_) x, a = in(_) address
    );
    x
}
