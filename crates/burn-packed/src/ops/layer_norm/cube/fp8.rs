//! Residual sum and its LayerNorm, quantized to e4m3; see [`crate::ops::fp8`].

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::f32_row;
use super::kernels::{load_sum, statistics, write_row};
use crate::ops::fp8::kernels::{empty_quantized, partition, write_quantized};
use crate::ops::rows::{RowPartition, address, elems, empty, grid};

/// `sum = x + branch`, and codes and scales of `norm(x + branch) * weight`; matrices are `[rows, width]`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)] // buffers of a launch
pub(super) fn add_forward_fp8_kernel<X: Float, B: Float>(
    x: &[Vector<X, Const<4>>],
    branch: &[Vector<B, Const<4>>],
    weight: &[Vector<f32, Const<4>>],
    sum: &mut [Vector<X, Const<4>>],
    codes: &mut [u32],
    scales: &mut [f32],
    rows: usize,
    eps: f32,
    #[comptime] partition: RowPartition,
    #[define(X, B)] _dtypes: [ElemType; 2],
) {
    let mut exchange = Shared::<[f32]>::new_slice(partition.exchange());
    let lane = UNIT_POS as usize % partition.lanes;
    let row = CUBE_POS * partition.block_rows + UNIT_POS as usize / partition.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * partition.vectors;
    let mut values = Array::<Vector<f32, Const<4>>>::new(comptime!(partition.held()));
    load_sum::<X, B, Const<4>>(x, branch, &mut values, start, lane, partition);
    let (mean, inv_std) = statistics::<Const<4>>(&values, lane, eps, &mut exchange, partition);
    if inside {
        write_row::<X, Const<4>>(&values, sum, start, lane, partition);
    }
    #[unroll]
    for i in 0..comptime!(partition.held()) {
        let at = lane + comptime!(i * partition.lanes);
        // Slots beyond the row keep their zeros, which the largest magnitude ignores.
        if at < partition.vectors {
            values[i] = (values[i] - Vector::new(mean)) * Vector::new(inv_std) * weight[at];
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

/// Returns the sum, and codes and scales of its norm; `None` where no kernel supports the call.
pub(crate) fn add_forward_fp8(
    x: &CubeTensor,
    branch: &CubeTensor,
    weight: &CubeTensor,
    eps: f64,
) -> Option<(CubeTensor, CubeTensor, CubeTensor)> {
    let [rows, width] = x.shape().dims();
    let (partition, elements) = (partition(x, width)?, elems([x.dtype, branch.dtype])?);
    let sum = empty(x, [rows, width], x.dtype);
    let (codes, scales) = empty_quantized(x, rows, width);
    if rows == 0 {
        return Some((sum, codes, scales));
    }
    let [x, branch] = [x, branch].map(|tensor| into_contiguous(tensor.clone()));
    let weight = f32_row(weight.clone());
    let client = x.client.clone();
    // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written.
    unsafe {
        add_forward_fp8_kernel::launch_unchecked(
            &client,
            grid(&client, rows.div_ceil(partition.block_rows)),
            partition.block_dim(),
            address(&[&x, &branch, &codes]),
            x.into_buffer_arg(),
            branch.into_buffer_arg(),
            weight.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            codes.clone().into_buffer_arg(),
            scales.clone().into_buffer_arg(),
            rows,
            eps as f32,
            partition,
            elements,
        );
    }
    Some((sum, codes, scales))
}
