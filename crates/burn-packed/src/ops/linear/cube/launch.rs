//! Launches of the Hopper GEMM: the conditions on its operands, its tensor maps, and the sums of splits.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind, UIntKind};
use cubecl::prelude::{
    CubeCount, CubeDim, TensorArg, TensorMapArg, TensorMapSwizzle, Tiled, TiledArgs,
};

use super::hopper::{self, TileConfig};
use super::plan::{GemmPlan, TileSchedule};
use super::{Gemm, empty, sums};
use crate::ops::linear::Transpose;
use crate::ops::ptx::HOPPER;

/// Multiprocessors of an H100, for a device that does not report how many it has.
const MULTIPROCESSORS: u32 = 132;
/// Threads of a block of the kernels in `sums.rs`.
const SUM_THREADS: u32 = 256;

/// Returns whether the tensor is on a device of compute capability 9.0.
pub(in crate::ops) fn is_hopper(tensor: &CubeTensor) -> bool {
    tensor.client.properties().identity.fingerprint == HOPPER
}

/// Returns the number of multiprocessors of a tensor's device.
pub(super) fn multiprocessors(tensor: &CubeTensor) -> u32 {
    let hardware = &tensor.client.properties().hardware;
    hardware
        .num_streaming_multiprocessors
        .unwrap_or(MULTIPROCESSORS)
}

impl Gemm {
    /// Returns whether TMA can address the operands and the output (rows and base at multiples of 16 bytes), on a device of compute
    /// capability 9.0.
    pub(super) fn fits_hopper(&self) -> bool {
        let rows_fit = |tensor: &CubeTensor| {
            let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
            strides[1] == 1 && strides[0] >= shape[1] && strides[0].is_multiple_of(8)
        };
        let shape = self.shape;
        matches!(self.lhs.dtype, DType::BF16 | DType::F16)
            && is_hopper(&self.lhs)
            && rows_fit(&self.lhs)
            && rows_fit(&self.rhs)
            && shape.n.is_multiple_of(8)
            && [&self.lhs, &self.rhs]
                .iter()
                .all(|t| t.handle.offset_start.unwrap_or(0).is_multiple_of(16))
            && [shape.m, shape.n, shape.k].iter().all(|&n| n < 1 << 31)
    }

    /// Runs the Hopper GEMM by the plan of the lowest estimated cost.
    pub(super) fn run_hopper(&self) -> CubeTensor {
        let narrow = self.transpose == Transpose::Rhs;
        let multiprocessors = multiprocessors(&self.lhs);
        self.run_by(&GemmPlan::new(self.shape, multiprocessors, &[2, 1], narrow))
    }

    /// Runs the Hopper GEMM by a plan.
    pub(super) fn run_by(&self, plan: &GemmPlan) -> CubeTensor {
        let (m, n) = (self.shape.m, self.shape.n);
        if plan.splits > 1 {
            let partials = empty(&self.lhs, [plan.splits as usize, m, n], DType::F32);
            self.launch(plan, &plan.all_tiles(), &partials, self.config(plan, true));
            return self.sum_splits(partials, plan.splits);
        }
        let out = empty(&self.lhs, [1, m, n], self.out);
        let f32_out = self.out == DType::F32;
        self.launch(plan, &plan.full_waves(), &out, self.config(plan, f32_out));
        if plan.tail_splits > 1 {
            self.add_tail(plan, &out);
        }
        burn_cubecl::ops::reshape(out, Shape::new([m, n]))
    }

    /// Computes `geglu(lhs · rhsᵀ)` in one kernel; `rhs` holds the rows of the activations, then those of the gates.
    pub(super) fn run_geglu(&self) -> CubeTensor {
        self.run_geglu_by(&GemmPlan::for_geglu(self.shape, multiprocessors(&self.lhs)))
    }

    /// [`Self::run_geglu`] by a plan without splits.
    pub(super) fn run_geglu_by(&self, plan: &GemmPlan) -> CubeTensor {
        let (m, width) = (self.shape.m, self.shape.n / 2);
        let out = empty(&self.lhs, [1, m, width], self.out);
        let config = TileConfig {
            geglu: true,
            ..self.config(plan, false)
        };
        let schedule = TileSchedule {
            gate: width as u32,
            ..plan.all_tiles()
        };
        self.launch(plan, &schedule, &out, config);
        burn_cubecl::ops::reshape(out, Shape::new([m, width]))
    }

    fn config(&self, plan: &GemmPlan, f32_out: bool) -> TileConfig {
        TileConfig::new(
            (plan.tile_n, plan.cluster),
            self.transpose == Transpose::Lhs,
            self.transpose != Transpose::Rhs,
            self.lhs.dtype == DType::F16,
            f32_out,
        )
    }

    /// Launches the kernel for the tiles of a schedule.
    fn launch(
        &self,
        plan: &GemmPlan,
        schedule: &TileSchedule,
        out: &CubeTensor,
        config: TileConfig,
    ) {
        let clusters = schedule.tiles.min(plan.resident_clusters);
        // SAFETY: global memory is addressed only through tensor maps, which bound every access; shared memory is sized by `tiling`.
        unsafe {
            hopper::hopper_gemm::launch_unchecked(
                &self.lhs.client,
                CubeCount::Static(clusters * plan.cluster, 1, 1),
                CubeDim::new_1d(hopper::THREADS),
                operand_map(&self.lhs, config.a_m_major, hopper::TILE_M),
                operand_map(&self.rhs, config.b_n_major, config.b_box()),
                output_map(out, config),
                schedule.launch(),
                config,
            );
        }
    }

    /// Computes the tiles of the last wave in splits, stacked tile by tile, and writes their sums to `out [1, m, n]`.
    fn add_tail(&self, plan: &GemmPlan, out: &CubeTensor) {
        let config = TileConfig {
            stacked: true,
            ..self.config(plan, true)
        };
        let schedule = plan.tail();
        let rows = (schedule.tiles_per_split * plan.cluster * hopper::TILE_M) as usize;
        let shape = [plan.tail_splits as usize, rows, plan.tile_n as usize];
        let partials = empty(&self.lhs, shape, DType::F32);
        self.launch(plan, &schedule, &partials, config);
        let quads = rows as u32 * plan.tile_n / 4;
        // SAFETY: columns are a multiple of eight, so that no quad crosses the end of a row; elements outside the matrix are skipped.
        unsafe {
            sums::sum_tiles::launch_unchecked(
                &self.lhs.client,
                CubeCount::Static(quads.div_ceil(SUM_THREADS), 1, 1),
                CubeDim::new_1d(SUM_THREADS),
                partials.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                schedule.launch(),
                plan.tail_splits,
                self.shape.m as u32,
                self.shape.n as u32,
                config,
                self.out_element,
            );
        }
    }

    /// Sums the partial sums of all splits, `[splits, m, n]` in f32, to `[m, n]` in the output's dtype.
    fn sum_splits(&self, partials: CubeTensor, splits: u32) -> CubeTensor {
        let sum = empty(&partials, [self.shape.m, self.shape.n], self.out);
        let quads = (self.shape.m * self.shape.n / 4) as u32;
        // SAFETY: columns are a multiple of eight, so that `quads` quads are the whole of `sum` and of each split.
        unsafe {
            sums::sum_splits::launch_unchecked(
                &self.lhs.client,
                CubeCount::Static(quads.div_ceil(SUM_THREADS), 1, 1),
                CubeDim::new_1d(SUM_THREADS),
                partials.into_buffer_arg(),
                sum.clone().into_buffer_arg(),
                splits,
                quads,
                self.out_element,
            );
        }
        sum
    }
}

/// Tensor map of an operand. Its box is 64 elements of the contiguous axis by, on the other axis, `outer` rows of a K-major operand or
/// the [`hopper::TILE_K`] inner elements of a stage for an M- or N-major one.
pub(super) fn operand_map(tensor: &CubeTensor, mn_major: bool, outer: u32) -> TensorMapArg<Tiled> {
    let rows = if mn_major { hopper::TILE_K } else { outer } as usize;
    TensorMapArg::new(
        TiledArgs {
            tile_size: [rows, 64].into(),
        },
        tensor.clone().into_tensor_arg(),
        ElemType::UInt(UIntKind::U16),
    )
    .with_swizzle(TensorMapSwizzle::B128)
}

/// Tensor map of the output, a stack of matrices. Its box is a staging buffer of the epilogue.
pub(super) fn output_map(tensor: &CubeTensor, config: TileConfig) -> TensorMapArg<Tiled> {
    let kind = if config.f32_out {
        ElemType::Float(FloatKind::F32)
    } else {
        ElemType::UInt(UIntKind::U16)
    };
    let rows = hopper::STAGING_ROWS as usize;
    let argument: TensorArg = tensor.clone().into_tensor_arg();
    TensorMapArg::new(
        TiledArgs {
            tile_size: [1, rows, config.staging_columns() as usize].into(),
        },
        argument,
        kind,
    )
    .with_swizzle(TensorMapSwizzle::B128)
}
