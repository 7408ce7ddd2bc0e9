//! Warp instructions (`mma.sync`, `ldmatrix`) of compute capability 8.0 and later: heads of 16 to 128 in steps of 16, bf16 and
//! f16. On Hopper they are used for the head sizes that the WGMMA kernels do not support.
//!
//! One `mma` is `[16, 16] · [16, 8]`. With `g = l / 4` and `t = 2 (l % 4)`, lane `l` holds, as pairs of 16-bit numbers or f32:
//!
//! | operand | registers |
//! |---|---|
//! | left `[16, 16]` | pairs at (row, column) = (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8) |
//! | right `[16, 8]` | pairs along the inner dimension: (inner, column) = (t, g), (t + 8, g) |
//! | result `[16, 8]` | (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1): a part of a fragment |
//!
//! `ldmatrix` reads four `[8, 8]` matrices, a register of each lane for each; lanes 8 i to 8 i + 7 give the addresses of the rows of
//! matrix i. The functions below name the four matrices.

use cubecl::prelude::*;

use super::Pass;
use super::family::{Family, Fragment, FragmentExpand, HostFamily};
use super::fragments::left_operand;
use super::ptx::unchanged;
use super::rows::{Rows, copy_pairs};
use super::shape::Shape;

/// Four registers of a thread: four pairs of 16-bit numbers.
type Packed = Vector<u32, Const<4>>;
/// A thread's part of a `[16, 8]` result.
type Part = Vector<f32, Const<4>>;

/// The largest head whose accumulators fit the registers of a warp.
const LARGEST_HEAD: u32 = 128;

/// See the module documentation.
pub(in super::super) struct Ampere;

impl HostFamily for Ampere {
    const PIPELINED: bool = false;

    /// Tiles of 64 keys where two blocks with them fit the 100 KiB of compute capability 8.6, of 32 otherwise. The backward kernels
    /// have two tensors of own rows, and keep them in registers where the accumulators leave enough registers.
    fn shape(pass: Pass, head_dim: u32) -> Shape {
        let small = head_dim <= 64;
        let forward = pass == Pass::Forward;
        Shape {
            head_dim,
            rows: 64,
            keys: if small && forward { 64 } else { 32 },
            resident: small || forward,
            ..Shape::default()
        }
    }

    fn supports(head_dim: u32, capability: u32, shared_bytes: usize) -> bool {
        head_dim.is_multiple_of(16)
            && (16..=LARGEST_HEAD).contains(&head_dim)
            && capability >= 80
            && Self::shape(Pass::Keys, head_dim).most_shared_bytes() <= shared_bytes
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
    type Left = WarpRows;
    type Fragment = MmaFragment;

    fn copy(rows: &Rows, first: i32, shared: u32, #[comptime] count: u32, #[comptime] _rope: bool) {
        copy_pairs(rows, first, shared, count);
    }

    fn left(shared: u32, #[comptime] shape: Shape) -> WarpRows {
        let mut slices = Sequence::<Packed>::new();
        if comptime!(shape.resident) {
            #[unroll]
            for slice in 0..comptime!(shape.dim_parts() / 2) {
                slices.push(left_slice(shared, slice, shape));
            }
        }
        WarpRows { slices, shared }
    }

    fn scores(left: &WarpRows, shared: u32, #[comptime] shape: Shape) -> MmaFragment {
        let ty = comptime!(shape.ty());
        let lane = UNIT_POS % 32u32;
        // Of 16 rows of the tile, the right operands of two parts: rows 0 to 7, columns 0 to 7 and 8 to 15 of a slice; then rows 8 to 15.
        let at = shared
            + (lane / 16u32 * 8u32 + lane % 8u32) * comptime!(shape.pitch())
            + lane / 8u32 % 2u32 * 16u32;
        let mut scores = Ampere::zeros(comptime!(shape.key_parts()));
        #[unroll]
        for slice in 0..comptime!(shape.dim_parts() / 2) {
            let a = if comptime!(shape.resident) {
                *left.slices.index(comptime!(slice))
            } else {
                left_slice(left.shared, slice, shape)
            };
            #[unroll]
            for pair in 0..comptime!(shape.key_parts() / 2) {
                let offset = comptime!(pair as u32 * 16 * shape.pitch() + slice as u32 * 32);
                let b = load_matrices(at + offset, "");
                add_pair(&mut scores.parts, a, b, pair, ty);
            }
        }
        scores
    }

    fn accumulate(
        sums: &mut MmaFragment,
        weights: &MmaFragment,
        shared: u32,
        #[comptime] _rescaled: bool,
        #[comptime] shape: Shape,
    ) {
        let ty = comptime!(shape.ty());
        let lane = UNIT_POS % 32u32;
        // `ldmatrix.trans` transposes: rows 0 to 7 and 8 to 15 of a slice of the tile, columns 0 to 7; then columns 8 to 15.
        let at = shared + lane % 16u32 * comptime!(shape.pitch()) + lane / 16u32 * 16u32;
        #[unroll]
        for slice in 0..comptime!(shape.key_parts() / 2) {
            let a = left_operand::<MmaFragment, Const<4>>(weights, comptime!(slice * 2), ty);
            #[unroll]
            for pair in 0..comptime!(shape.dim_parts() / 2) {
                let offset = comptime!(slice as u32 * 16 * shape.pitch() + pair as u32 * 32);
                let b = load_matrices(at + offset, ".trans");
                add_pair(&mut sums.parts, a, b, pair, ty);
            }
        }
    }

    fn zeros(#[comptime] parts: usize) -> MmaFragment {
        let mut zeros = Array::<Part>::new(parts);
        #[unroll]
        for part in 0..parts {
            zeros[part] = Part::zeroed();
        }
        MmaFragment { parts: zeros }
    }
}

/// A fragment `[16, 8 · parts]`.
#[derive(CubeType)]
pub(in super::super) struct MmaFragment {
    parts: Array<Part>,
}

#[cube]
impl Fragment for MmaFragment {
    fn get(&self, #[comptime] part: usize, #[comptime] e: usize) -> f32 {
        self.parts[part].extract(e)
    }

    fn set(&mut self, #[comptime] part: usize, #[comptime] e: usize, value: f32) {
        let mut changed = self.parts[part];
        changed.insert(e, value);
        self.parts[part] = changed;
    }
}

/// Slice `slice` of a warp's 16 rows at `rows` as left operand: rows 0 to 7 and 8 to 15, columns 0 to 7; then columns 8 to 15.
#[cube]
fn left_slice(rows: u32, #[comptime] slice: usize, #[comptime] shape: Shape) -> Packed {
    let lane = UNIT_POS % 32u32;
    let at = rows + lane % 16u32 * comptime!(shape.pitch()) + lane / 16u32 * 16u32;
    load_matrices(at + comptime!(slice as u32 * 32), "")
}

/// Adds `a · b` to parts `2 pair` and `2 pair + 1`, whose right operands `b` has.
#[cube]
fn add_pair(
    sums: &mut Array<Part>,
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
fn mma(a: Packed, b0: u32, b1: u32, c: Part, #[comptime] ty: &str) -> Part {
    let (a, c) = (unchanged::<Packed>(a), unchanged::<Part>(c));
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
