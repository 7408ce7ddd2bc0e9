//! GeGLU on the CPU: one pass over the rows, in parallel.

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::fallback;
use crate::ops::host::{Output, RowReader, for_rows, is_native, rows_per_task};
use crate::ops::simd;

pub(crate) fn forward(input: FlexTensor) -> FlexTensor {
    if !is_native(&input) {
        return fallback::forward::<Flex>(input);
    }
    let dtype = input.dtype();
    let [rows, width] = input.layout().shape().dims::<2>();
    let half = width / 2;
    let input = RowReader::new(input);
    let mut out = Output::new(rows, half, dtype);
    for_rows(rows, rows_per_task(rows), [&mut out], |range, [mut out]| {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (i, row) in range.enumerate() {
            let (activated, gate) = input.row(row, &mut from).split_at(half);
            out.write(i, &mut to, |out| simd::geglu_row(activated, gate, out));
        }
    });
    out.into_tensor([rows, half])
}

pub(crate) fn backward(d_out: FlexTensor, input: FlexTensor) -> FlexTensor {
    if !is_native(&input) {
        return fallback::backward::<Flex>(d_out, input);
    }
    gradient(d_out, input, false).0
}

/// The gradient of the input, and the output.
pub(crate) fn backward_with_output(
    d_out: FlexTensor,
    input: FlexTensor,
) -> (FlexTensor, FlexTensor) {
    if !is_native(&input) {
        let out = fallback::forward::<Flex>(input.clone());
        return (fallback::backward::<Flex>(d_out, input), out);
    }
    gradient(d_out, input, true)
}

/// The gradient of the input, and the output where it `has_output`, otherwise a tensor without rows.
fn gradient(d_out: FlexTensor, input: FlexTensor, has_output: bool) -> (FlexTensor, FlexTensor) {
    let dtype = input.dtype();
    let [rows, width] = input.layout().shape().dims::<2>();
    let half = width / 2;
    let out_rows = if has_output { rows } else { 0 };
    let (input, d_out) = (RowReader::new(input), RowReader::new(d_out));
    let mut d_input = Output::new(rows, width, dtype);
    let mut out = Output::new(out_rows, half, dtype);
    let outputs = [&mut d_input, &mut out];
    for_rows(rows, rows_per_task(rows), outputs, |range, parts| {
        let [mut d_input, mut out] = parts;
        let [mut from, mut d_from, mut to, mut d_to] = [(); 4].map(|()| Vec::new());
        for (i, row) in range.enumerate() {
            let (activated, gate) = input.row(row, &mut from).split_at(half);
            let d_out = d_out.row(row, &mut d_from);
            d_input.write(i, &mut d_to, |d_row| {
                let (d_activated, d_gate) = d_row.split_at_mut(half);
                let gradients = [d_activated, d_gate];
                if has_output {
                    out.write(i, &mut to, |out| {
                        simd::geglu_backward_with_output_row(
                            activated, gate, d_out, gradients, out,
                        );
                    });
                } else {
                    simd::geglu_backward_row(activated, gate, d_out, gradients);
                }
            });
        }
    });
    (
        d_input.into_tensor([rows, width]),
        out.into_tensor([out_rows, half]),
    )
}
