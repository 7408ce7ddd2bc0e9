//! The quantization kernel, and the quantization of rows in registers for other kernels. Hopper's instructions convert pairs of numbers.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::SMALLEST;
use crate::ops::rows::{RowPartition, address, elem, empty, grid, row_max};

/// Elements that a thread reads at once: four codes are one element of the result.
pub(crate) const VECTOR: usize = 4;
/// Threads of a block, and elements of a row that a thread holds, at most: those of the norms' forward kernels.
const THREADS: usize = 256;
const HELD: usize = 64;

/// Returns four numbers as e4m3 codes, the first in the lowest bits; numbers beyond 448 become 448, NaN stays NaN.
#[cube]
fn pack_codes(a: f32, b: f32, c: f32, d: f32) -> u32 {
    let packed: u32;
    gpu_asm!(
        "{{ .reg .b16 l, h; cvt.rn.satfinite.e4m3x2.f32 l, {b}, {a}; cvt.rn.satfinite.e4m3x2.f32 h, {d}, {c}; mov.b32 {o}, {{l, h}}; }}",
        o = out(_) packed, a = in(_) a, b = in(_) b, c = in(_) c, d = in(_) d, options(pure, nomem)
    );
    packed
}

/// Quantizes a row that the lanes hold in registers, with zeros in slots beyond its end, and writes codes and scale where `inside`. Every thread of the block
/// must call it.
#[allow(clippy::too_many_arguments)] // registers and buffers of a kernel
#[cube]
pub(crate) fn write_quantized(
    values: &Array<Vector<f32, Const<4>>>,
    codes: &mut [u32],
    scales: &mut [f32],
    row: usize,
    inside: bool,
    lane: usize,
    exchange: &mut Shared<[f32]>,
    #[comptime] partition: RowPartition,
) {
    let held = comptime!(partition.held());
    let mut most = 0.0f32;
    #[unroll]
    for i in 0..held {
        #[unroll]
        for k in 0..4usize {
            most = max(most, values[i].extract(k).abs());
        }
    }
    let most = row_max(most, exchange, partition);
    let factor = select(most > SMALLEST, 448.0f32 / most, 0.0f32);
    if inside {
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * partition.lanes);
            if at < partition.vectors {
                let scaled = values[i] * Vector::new(factor);
                codes[row * partition.vectors + at] = pack_codes(
                    scaled.extract(0usize),
                    scaled.extract(1usize),
                    scaled.extract(2usize),
                    scaled.extract(3usize),
                );
            }
        }
        if lane == 0 {
            scales[row] = most * comptime!(1.0f32 / 448.0f32);
        }
    }
}

/// Quantizes the rows of `x [rows, width]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn quantize_kernel<X: Float>(
    x: &[Vector<X, Const<4>>],
    codes: &mut [u32],
    scales: &mut [f32],
    rows: usize,
    #[comptime] partition: RowPartition,
    #[define(X)] _dtype: ElemType,
) {
    let mut exchange = Shared::<[f32]>::new_slice(partition.exchange());
    let lane = UNIT_POS as usize % partition.lanes;
    let row = CUBE_POS * partition.block_rows + UNIT_POS as usize / partition.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * partition.vectors;
    let mut values = Array::<Vector<f32, Const<4>>>::new(comptime!(partition.held()));
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        values[i] = Vector::new(0.0f32);
        if at < partition.vectors {
            values[i] = Vector::cast_from(x[start + at]);
        }
    }
    write_quantized(
        &values,
        codes,
        scales,
        row,
        inside,
        lane,
        &mut exchange,
        partition,
    );
}

/// Returns the partition of rows of this width; `None` where no kernel supports it.
pub(crate) fn partition(like: &CubeTensor, width: usize) -> Option<RowPartition> {
    width
        .is_multiple_of(VECTOR)
        .then(|| RowPartition::new(&like.client, width, VECTOR, THREADS, HELD))?
}

/// Returns uninitialized codes and scales of `rows` rows.
pub(crate) fn empty_quantized(
    like: &CubeTensor,
    rows: usize,
    width: usize,
) -> (CubeTensor, CubeTensor) {
    (
        empty(like, [rows, width / VECTOR], DType::I32),
        empty(like, [rows], DType::F32),
    )
}

pub(super) fn quantize(input: &CubeTensor) -> Option<(CubeTensor, CubeTensor)> {
    let [rows, width] = input.shape().dims();
    let (partition, element) = (partition(input, width)?, elem(input.dtype)?);
    let (codes, scales) = empty_quantized(input, rows, width);
    if rows == 0 {
        return Some((codes, scales));
    }
    let input = into_contiguous(input.clone());
    let client = input.client.clone();
    // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written.
    unsafe {
        quantize_kernel::launch_unchecked(
            &client,
            grid(&client, rows.div_ceil(partition.block_rows)),
            partition.block_dim(),
            address(&[&input, &codes]),
            input.into_buffer_arg(),
            codes.clone().into_buffer_arg(),
            scales.clone().into_buffer_arg(),
            rows,
            partition,
            element,
        );
    }
    Some((codes, scales))
}

#[cfg(all(test, feature = "kernel-sources"))]
mod tests {
    use std::sync::Arc;

    use cubecl::ir::{FloatKind, TargetProperties};

    use super::*;
    use crate::ops::cuda_sources::{buffer, compile, device, folder, settings};

    #[test]
    fn every_width_has_a_source() {
        for (width, lanes) in [(768, 32), (2624, 256)] {
            let partition = RowPartition {
                width,
                vectors: width / VECTOR,
                lanes,
                block_rows: THREADS / lanes,
                shuffles: lanes == 32,
            };
            let kernel = quantize_kernel::QuantizeKernel::new(
                settings(partition.threads() as u32),
                device(90, 227 * 1024),
                Arc::new(TargetProperties::default()),
                buffer(),
                buffer(),
                buffer(),
                (),
                partition,
                ElemType::Float(FloatKind::BF16),
            );
            let (source, _) = compile(&kernel);
            assert!(source.contains("cvt.rn.satfinite.e4m3x2.f32"));
            if let Some(folder) = folder() {
                std::fs::write(folder.join(format!("fp8-quantize-{width}.cu")), source).unwrap();
            }
        }
    }
}
