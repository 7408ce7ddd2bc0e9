//! Launching the tensor-core product: what it serves, how it is cut into tiles, how matrices are described to the copy engine.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind, UIntKind};
use cubecl::prelude::{
    CubeCount, CubeDim, TensorArg, TensorMapArg, TensorMapSwizzle, Tiled, TiledArgs,
};

use super::hopper::{self, Tiling};
use super::plan::{Plan, Walk};
use super::{Sizes, empty, sums};
use crate::ops::linear::Transpose;

/// Whether every matrix can be described to the copy engine: its rows and its start stand at multiples of 16 bytes.
pub(super) fn serves(lhs: &CubeTensor, rhs: &CubeTensor, sizes: Sizes) -> bool {
    let rows_fit = |tensor: &CubeTensor| {
        let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
        strides[1] == 1 && strides[0] >= shape[1] && strides[0].is_multiple_of(8)
    };
    matches!(lhs.dtype, DType::BF16 | DType::F16)
        && rows_fit(lhs)
        && rows_fit(rhs)
        && sizes.columns.is_multiple_of(8)
        && [lhs, rhs]
            .iter()
            .all(|t| t.handle.offset_start.unwrap_or(0).is_multiple_of(16))
        && [sizes.rows, sizes.columns, sizes.inner]
            .iter()
            .all(|&n| n < 1 << 31)
        && lhs.client.properties().identity.fingerprint == "ptx_sm90"
}

pub(super) fn gemm(
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    sizes: Sizes,
    dtype: (DType, ElemType),
) -> CubeTensor {
    let cubes = lhs
        .client
        .properties()
        .hardware
        .num_streaming_multiprocessors
        .unwrap_or(132);
    let plan = Plan::new(sizes, cubes, &[2, 1]);
    gemm_by(&plan, lhs, rhs, transpose, sizes, dtype)
}

/// The product by a plan.
pub(super) fn gemm_by(
    plan: &Plan,
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    sizes: Sizes,
    (dtype, element): (DType, ElemType),
) -> CubeTensor {
    let tiling = |wide| {
        Tiling::new(
            (plan.columns, plan.cluster),
            transpose == Transpose::Lhs,
            transpose != Transpose::Rhs,
            lhs.dtype == DType::F16,
            wide,
        )
    };
    let run = |out: &CubeTensor, walk: &Walk, tiling: Tiling| {
        let clusters = walk.tiles.min(plan.clusters);
        // SAFETY: all memory is addressed through tensor maps, which bound every access; tiles are counted by the plan.
        unsafe {
            hopper::hopper_gemm::launch_unchecked(
                &lhs.client,
                CubeCount::Static(clusters * plan.cluster, 1, 1),
                CubeDim::new_1d(hopper::UNITS),
                operand(&lhs, tiling.a_outer, hopper::ROWS),
                // A cube of a cluster copies its share of the columns.
                operand(&rhs, tiling.b_outer, plan.columns / plan.cluster),
                result(out, tiling),
                walk.launch(),
                tiling,
            );
        }
    };
    if plan.splits > 1 {
        let shape = [plan.splits as usize, sizes.rows, sizes.columns];
        let parts = empty(&lhs, shape, DType::F32);
        run(&parts, &plan.all(), tiling(true));
        return sum_parts(parts, plan.splits, sizes, (dtype, element));
    }
    let out = empty(&lhs, [1, sizes.rows, sizes.columns], dtype);
    run(&out, &plan.before_tail(), tiling(dtype == DType::F32));
    if plan.tail_splits > 1 {
        let tiling = Tiling {
            packed: true,
            ..tiling(true)
        };
        let walk = plan.the_tail();
        let rows = (walk.per_split * plan.cluster * hopper::ROWS) as usize;
        let shape = [plan.tail_splits as usize, rows, plan.columns as usize];
        let parts = empty(&lhs, shape, DType::F32);
        run(&parts, &walk, tiling);
        let quads = rows as u32 * plan.columns / 4;
        // SAFETY: columns are a multiple of eight, so that no quad crosses the end of a row; places beyond the matrix are left out.
        unsafe {
            sums::sum_tiles::launch_unchecked(
                &lhs.client,
                CubeCount::Static(quads.div_ceil(256), 1, 1),
                CubeDim::new_1d(256),
                parts.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                walk.launch(),
                plan.tail_splits,
                sizes.rows as u32,
                sizes.columns as u32,
                tiling,
                element,
            );
        }
    }
    burn_cubecl::ops::reshape(out, burn::tensor::Shape::new([sizes.rows, sizes.columns]))
}

/// Adds the parts of all splits.
fn sum_parts(
    parts: CubeTensor,
    splits: u32,
    sizes: Sizes,
    (dtype, element): (DType, ElemType),
) -> CubeTensor {
    let sum = empty(&parts, [sizes.rows, sizes.columns], dtype);
    let quads = (sizes.rows * sizes.columns / 4) as u32;
    let client = parts.client.clone();
    // SAFETY: columns are a multiple of eight, so that `quads` quads are the whole of `sum` and of each split.
    unsafe {
        sums::sum_splits::launch_unchecked(
            &client,
            CubeCount::Static(quads.div_ceil(256), 1, 1),
            CubeDim::new_1d(256),
            parts.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            splits,
            quads,
            element,
        );
    }
    sum
}

/// A row-major operand in boxes: 64 elements of the contiguous axis, and of the other axis `outer` rows where the inner
/// dimension is contiguous, or a stage of the inner dimension where it is not.
fn operand(tensor: &CubeTensor, outer_contiguous: bool, outer: u32) -> TensorMapArg<Tiled> {
    let other = if outer_contiguous {
        hopper::INNER
    } else {
        outer
    } as usize;
    TensorMapArg::new(
        TiledArgs {
            tile_size: [other, 64].into(),
        },
        tensor.clone().into_tensor_arg(),
        ElemType::UInt(UIntKind::U16),
    )
    .with_swizzle(TensorMapSwizzle::B128)
}

/// The stack of results in the boxes of a warp.
fn result(tensor: &CubeTensor, tiling: Tiling) -> TensorMapArg<Tiled> {
    let kind = if tiling.wide {
        ElemType::Float(FloatKind::F32)
    } else {
        ElemType::UInt(UIntKind::U16)
    };
    let argument: TensorArg = tensor.clone().into_tensor_arg();
    TensorMapArg::new(
        TiledArgs {
            tile_size: [1, hopper::BOX_ROWS as usize, tiling.box_columns() as usize].into(),
        },
        argument,
        kind,
    )
    .with_swizzle(TensorMapSwizzle::B128)
}
