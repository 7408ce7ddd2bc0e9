//! LayerNorm on the CPU: one pass over the rows, in parallel.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::{AddNormBackward, SavedNorm, fallback};
use crate::ops::host::{
    HostTensor, Output, RowReader, RowsMut, for_rows, in_dtype, is_native, map_rows, rows_per_task,
    tensor,
};
use crate::ops::simd;

pub(crate) fn forward(input: FlexTensor, weight: FlexTensor, eps: f64, out: DType) -> FlexTensor {
    if !is_native(&input) {
        return fallback::forward::<Flex>(input, weight, eps, out);
    }
    let [rows, width] = input.layout().shape().dims::<2>();
    let (input, weight) = (RowReader::new(input), HostTensor::new(weight));
    let mut normed = Output::new(rows, width, out);
    for_rows(
        rows,
        rows_per_task(rows),
        [&mut normed],
        |range, [mut normed]| {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for (i, row) in range.enumerate() {
                let x = input.row(row, &mut from);
                normed.write(i, &mut to, |out| {
                    simd::layer_norm_row(x, weight.values(), eps as f32, out)
                });
            }
        },
    );
    normed.into_tensor([rows, width])
}

/// Sum, normalized sum and inverse standard deviations.
pub(crate) fn add_forward(
    x: FlexTensor,
    branch: FlexTensor,
    weight: FlexTensor,
    eps: f64,
    out: DType,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if x.dtype() != DType::F32 || !is_native(&branch) {
        return fallback::add_forward::<Flex>(x, branch, weight, eps, out);
    }
    let [rows, width] = x.layout().shape().dims::<2>();
    let (x, branch, weight) = (
        RowReader::new(x),
        RowReader::new(branch),
        HostTensor::new(weight),
    );
    let mut sum = Output::new(rows, width, DType::F32);
    let mut normed = Output::new(rows, width, out);
    let mut inv_std = Output::new(rows, 1, DType::F32);
    let outputs = [&mut sum, &mut normed, &mut inv_std];
    for_rows(rows, rows_per_task(rows), outputs, |range, parts| {
        let [mut sum, mut normed, mut inv_std] = parts;
        let [mut from, mut added, mut to, mut unused] = [(); 4].map(|()| Vec::new());
        for (i, row) in range.enumerate() {
            let x = x.row(row, &mut from);
            let branch = branch.row(row, &mut added);
            let inverse = sum.write(i, &mut unused, |sum| {
                for ((sum, x), branch) in sum.iter_mut().zip(x).zip(branch) {
                    *sum = x + branch;
                }
                normed.write(i, &mut to, |out| {
                    simd::layer_norm_row(sum, weight.values(), eps as f32, out)
                })
            });
            inv_std.write(i, &mut unused, |value| value[0] = inverse);
        }
    });
    (
        sum.into_tensor([rows, width]),
        normed.into_tensor([rows, width]),
        inv_std.into_tensor([rows]),
    )
}

/// Gradients of `x`, the branch and the weight.
pub(crate) fn add_backward(
    d_sum: FlexTensor,
    d_normed: FlexTensor,
    saved: FlexTensor,
    inv_std: FlexTensor,
    weight: FlexTensor,
    spec: &AddNormBackward,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if !is_native(&saved) || spec.sum == DType::F64 {
        return fallback::add_backward::<Flex>(d_sum, d_normed, saved, inv_std, weight, spec);
    }
    let (d_sum, inv_std) = (RowReader::new(d_sum), HostTensor::new(inv_std));
    let norm = NormBackward {
        d_out: RowReader::new(d_normed),
        saved: RowReader::new(saved),
        weight: HostTensor::new(weight.clone()),
        eps: spec.eps as f32,
        inv_std: (spec.saved == SavedNorm::Normed).then(|| inv_std.values()),
    };
    let add = spec.has_d_sum.then_some(&d_sum);
    // Both gradients are one, in two dtypes.
    let (d_x, d_branch, d_weight) = norm.compute(weight.dtype(), spec.sum, Some(spec.branch), add);
    let d_branch = d_branch.unwrap_or_else(|| in_dtype(d_x.clone(), spec.branch));
    (d_x, d_branch, d_weight)
}

pub(crate) fn backward(
    d_out: FlexTensor,
    input: FlexTensor,
    weight: FlexTensor,
    eps: f64,
) -> (FlexTensor, FlexTensor) {
    if !is_native(&input) {
        return fallback::backward::<Flex>(d_out, input, weight, eps);
    }
    let dtype = input.dtype();
    let norm = NormBackward {
        d_out: RowReader::new(d_out),
        saved: RowReader::new(input),
        weight: HostTensor::new(weight.clone()),
        eps: eps as f32,
        inv_std: None,
    };
    let (d_input, _, d_weight) = norm.compute(weight.dtype(), dtype, None, None);
    (d_input, d_weight)
}

/// Operands of a backward pass.
struct NormBackward<'a> {
    d_out: RowReader,
    /// The input; the output where `inv_std` is given.
    saved: RowReader,
    weight: HostTensor,
    eps: f32,
    /// Inverse standard deviations, where the output was saved.
    inv_std: Option<&'a [f32]>,
}

impl NormBackward<'_> {
    /// The gradient of the input plus `add` in `dtype`, the same in `second` if that is another dtype, and the gradient of the weight in
    /// `weight_dtype`.
    fn compute(
        &self,
        weight_dtype: DType,
        dtype: DType,
        second: Option<DType>,
        add: Option<&RowReader>,
    ) -> (FlexTensor, Option<FlexTensor>, FlexTensor) {
        // Each chunk sums its part of the weight gradient, and the parts are added in order. The chunk size is fixed, so the sum does not depend on
        // the number of threads.
        const STEP: usize = 128;
        let (rows, width) = (self.d_out.rows(), self.d_out.width());
        let second = second.filter(|second| *second != dtype);
        let mut d_input = Output::new(rows, width, dtype);
        let second_rows = if second.is_some() { rows } else { 0 };
        let mut also = Output::new(second_rows, width, second.unwrap_or(dtype));
        // A weight of 0 is replaced by 1: the output is 0 there, and so is the normalized value.
        let inverse: Vec<f32> = self
            .weight
            .values()
            .iter()
            .map(|w| if *w == 0.0 { 1.0 } else { 1.0 / w })
            .collect();
        let parts = map_rows(rows, STEP, [&mut d_input, &mut also], |range, outputs| {
            let mut d_weight = vec![0.0f32; width];
            self.rows_of(
                range,
                outputs,
                add,
                &inverse,
                &mut d_weight,
                second.is_some(),
            );
            d_weight
        });
        let mut d_weight = vec![0.0f32; width];
        for part in parts {
            for (sum, x) in d_weight.iter_mut().zip(part) {
                *sum += x;
            }
        }
        (
            d_input.into_tensor([rows, width]),
            second.map(|_| also.into_tensor([rows, width])),
            tensor(d_weight, [width], weight_dtype),
        )
    }

    fn rows_of(
        &self,
        range: std::ops::Range<usize>,
        [mut d_input, mut also]: [RowsMut<'_>; 2],
        add: Option<&RowReader>,
        inverse: &[f32],
        d_weight: &mut [f32],
        has_second: bool,
    ) {
        let [mut d_from, mut from, mut added, mut to, mut unused] = [(); 5].map(|()| Vec::new());
        let weight = self.weight.values();
        for (i, row) in range.enumerate() {
            let d_out = self.d_out.row(row, &mut d_from);
            let saved = self.saved.row(row, &mut from);
            let add = add.map(|add| add.row(row, &mut added));
            d_input.write(i, &mut to, |d_x| {
                match self.inv_std {
                    Some(inv_std) => {
                        let norm = (weight, inverse, inv_std[row]);
                        simd::layer_norm_backward_of_output_row(saved, norm, d_out, d_x, d_weight);
                    }
                    None => {
                        simd::layer_norm_backward_row(
                            saved, weight, d_out, self.eps, d_x, d_weight,
                        );
                    }
                }
                for (d_x, add) in d_x.iter_mut().zip(add.into_iter().flatten()) {
                    *d_x += add;
                }
                if has_second {
                    also.write(i, &mut unused, |also| also.copy_from_slice(d_x));
                }
            });
        }
    }
}
