//! Launches of the Hopper GEMM on e4m3 codes; see [`crate::ops::fp8`].

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};
use cubecl::zspace::strides;

use super::hopper::{self, TileConfig};
use super::launch::{multiprocessors, operand_map, output_map};
use super::plan::{GemmPlan, TileSchedule};
use super::{GemmShape, empty};
use crate::ops::fp8::Product;

/// Widths of output tiles, and those of which GeGLU can halve the columns.
const WIDTHS: &[u32] = &[32, 64, 128, 192, 256];
const GEGLU_WIDTHS: &[u32] = &[64, 128, 256];

/// A GEMM of quantized rows with a quantized weight. Codes are `[rows, width / 4]` in I32, four e4m3 codes in an element; scales `[rows]` in f32. All
/// are contiguous.
pub(in crate::ops) struct Fp8Gemm {
    pub(in crate::ops) codes: CubeTensor,
    pub(in crate::ops) scales: CubeTensor,
    pub(in crate::ops) weight: CubeTensor,
    pub(in crate::ops) weight_scales: CubeTensor,
    pub(in crate::ops) product: Product,
}

impl Fp8Gemm {
    /// Computes the product on a device of compute capability 9.0.
    pub(in crate::ops) fn run(&self) -> CubeTensor {
        let widths = match self.product.geglu {
            true => GEGLU_WIDTHS,
            false => WIDTHS,
        };
        let multiprocessors = multiprocessors(&self.codes);
        self.run_by(&GemmPlan::unsplit(self.shape(), multiprocessors, widths))
    }

    /// The GEMM's sizes, with pairs of codes as inner elements.
    pub(super) fn shape(&self) -> GemmShape {
        let [m, words] = self.codes.meta.shape().dims();
        let [n, _] = self.weight.meta.shape().dims();
        GemmShape { m, n, k: 2 * words }
    }

    /// [`Self::run`] by a plan without splits.
    pub(super) fn run_by(&self, plan: &GemmPlan) -> CubeTensor {
        let GemmShape { m, n, .. } = self.shape();
        let columns = if self.product.geglu { n / 2 } else { n };
        let dtype = DType::from(self.product.dtype);
        let out = empty(&self.codes, [1, m, columns], dtype);
        let config = TileConfig {
            geglu: self.product.geglu,
            fp8: true,
            ..TileConfig::new(
                (plan.tile_n, plan.cluster),
                false,
                false,
                dtype == DType::F16,
                false,
            )
        };
        let schedule = TileSchedule {
            gate: columns as u32,
            ..plan.all_tiles()
        };
        let clusters = schedule.tiles.min(plan.resident_clusters);
        // SAFETY: global memory is addressed through tensor maps, which bound every access, and by the scales of rows below `m` and columns below
        // `n`; shared memory is sized by `tiling`.
        unsafe {
            hopper::hopper_fp8_gemm::launch_unchecked(
                &self.codes.client,
                CubeCount::Static(clusters * plan.cluster, 1, 1),
                CubeDim::new_1d(hopper::THREADS),
                operand_map(&pairs(&self.codes), false, hopper::TILE_M),
                operand_map(&pairs(&self.weight), false, config.b_box()),
                output_map(&out, config),
                self.scales.clone().into_buffer_arg(),
                self.weight_scales.clone().into_buffer_arg(),
                m as u32,
                n as u32,
                schedule.launch(),
                config,
            );
        }
        burn_cubecl::ops::reshape(out, Shape::new([m, columns]))
    }
}

/// Codes as a matrix of pairs, the 16-bit elements that the kernel's tensor maps describe.
fn pairs(codes: &CubeTensor) -> CubeTensor {
    let [rows, words] = codes.meta.shape().dims();
    let mut meta = codes.meta.clone();
    *meta.shape_mut() = Shape::new([rows, 2 * words]);
    *meta.strides_mut() = strides![2 * words, 1];
    CubeTensor {
        meta,
        dtype: DType::U16,
        ..codes.clone()
    }
}
