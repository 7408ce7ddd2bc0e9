//! Launching the tensor-core product: what it serves, how it is cut into tiles, how matrices are described to the copy engine.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind, UIntKind};
use cubecl::prelude::{
    CubeCount, CubeDim, TensorArg, TensorMapArg, TensorMapSwizzle, Tiled, TiledArgs,
};

use super::hopper::{self, Tiling};
use super::{Sizes, empty};
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
    (dtype, element): (DType, ElemType),
) -> CubeTensor {
    let multiprocessors = lhs
        .client
        .properties()
        .hardware
        .num_streaming_multiprocessors
        .unwrap_or(132);
    let plan = Plan::new(sizes, multiprocessors);
    let split = plan.splits > 1;
    let wide = split || dtype == DType::F32;
    let tiling = Tiling::new(
        plan.columns,
        transpose == Transpose::Lhs,
        transpose != Transpose::Rhs,
        lhs.dtype == DType::F16,
        wide,
    );
    let out_dtype = if wide { DType::F32 } else { dtype };
    let out = empty(
        &lhs,
        [plan.splits as usize, sizes.rows, sizes.columns],
        out_dtype,
    );
    // SAFETY: all memory is addressed through tensor maps, which bound every access; tiles are counted by the plan.
    unsafe {
        hopper::hopper_gemm::launch_unchecked(
            &lhs.client,
            CubeCount::Static(plan.tiles().min(multiprocessors), 1, 1),
            CubeDim::new_1d(hopper::UNITS),
            operand(&lhs, tiling.a_outer, hopper::ROWS),
            operand(&rhs, tiling.b_outer, plan.columns),
            result(&out, tiling),
            plan.tiles(),
            plan.row_tiles,
            plan.column_tiles,
            plan.steps,
            plan.steps_per_split,
            tiling,
        );
    }
    let shaped = |tensor: CubeTensor| {
        burn_cubecl::ops::reshape(
            tensor,
            burn::tensor::Shape::new([sizes.rows, sizes.columns]),
        )
    };
    if !split {
        return shaped(out);
    }
    let sum = empty(&lhs, [sizes.rows, sizes.columns], dtype);
    let quads = (sizes.rows * sizes.columns / 4) as u32;
    // SAFETY: columns are a multiple of eight, so that `quads` quads are the whole of `sum` and of each split.
    unsafe {
        hopper::sum_splits::launch_unchecked(
            &lhs.client,
            CubeCount::Static(quads.div_ceil(256), 1, 1),
            CubeDim::new_1d(256),
            out.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            plan.splits,
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

/// How a product is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) columns: u32,
    pub(super) splits: u32,
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// Stages along the inner dimension, in all and of one split.
    pub(super) steps: u32,
    pub(super) steps_per_split: u32,
}

impl Plan {
    /// The cheapest of the tile widths and splits, in stages of the slowest multiprocessor.
    pub(super) fn new(sizes: Sizes, multiprocessors: u32) -> Self {
        let row_tiles = (sizes.rows as u32).div_ceil(hopper::ROWS);
        let steps = (sizes.inner as u32).div_ceil(hopper::INNER);
        let mut best = None;
        for columns in [256u32, 192, 128] {
            let column_tiles = (sizes.columns as u32).div_ceil(columns);
            for splits in 1..=16u32 {
                let steps_per_split = steps.div_ceil(splits);
                // Splits beyond the first are worth it only where they are long; none may be empty.
                if splits > 1 && (steps_per_split < 16 || (splits - 1) * steps_per_split >= steps) {
                    continue;
                }
                let tiles = row_tiles * column_tiles * splits;
                let rounds = tiles.div_ceil(multiprocessors);
                // A narrower tile reads more for each product; a tile's end costs about two stages more.
                let width = f64::from(columns) + 24.0;
                let end = if splits > 1 { 6.0 } else { 2.0 };
                let mut cost = f64::from(rounds) * width * (f64::from(steps_per_split) + end);
                if splits > 1 {
                    // Parts are written, read and added at memory speed: per number what 0.0009 columns of a stage take.
                    let numbers = sizes.rows as f64 * sizes.columns as f64;
                    cost += 9e-4 * f64::from(splits) * numbers;
                }
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((
                        cost,
                        Self {
                            columns,
                            splits,
                            row_tiles,
                            column_tiles,
                            steps,
                            steps_per_split,
                        },
                    ));
                }
            }
        }
        best.expect("one split is always allowed").1
    }

    pub(super) fn tiles(&self) -> u32 {
        self.row_tiles * self.column_tiles * self.splits
    }
}
