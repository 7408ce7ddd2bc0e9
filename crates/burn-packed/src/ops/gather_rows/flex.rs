//! Row gather on the CPU: rows in parallel, gradients of a row summed in the order of the batch.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::fallback;
use crate::batch::TokenOrder;
use crate::ops::host::{Output, RowReader, for_rows, is_native, rows_per_task};

pub(crate) fn forward(table: FlexTensor, ids: FlexTensor, order: &TokenOrder) -> FlexTensor {
    if !is_native(&table) {
        return fallback::forward::<Flex>(table, ids);
    }
    let [_, width] = table.layout().shape().dims::<2>();
    let (rows, dtype) = (order.len(), table.dtype());
    let table = RowReader::new(table);
    let ids = order.ids();
    let mut out = Output::new(rows, width, dtype);
    for_rows(
        rows,
        rows_per_task(rows),
        [&mut out],
        |range, [mut part]| {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for (i, id) in ids[range].iter().enumerate() {
                let row = table.row(*id as usize, &mut from);
                part.write(i, &mut to, |out| out.copy_from_slice(row));
            }
        },
    );
    out.into_tensor([rows, width])
}

/// Rows of a gradient per task. Most have no token.
const ROWS: usize = 256;

pub(crate) fn backward(
    d_out: FlexTensor,
    ids: FlexTensor,
    order: &TokenOrder,
    rows: usize,
) -> FlexTensor {
    if !is_native(&d_out) {
        return fallback::backward::<Flex>(d_out, ids, rows);
    }
    let [_, width] = d_out.layout().shape().dims::<2>();
    let d_out = RowReader::new(d_out);
    let runs = order.runs();
    let mut sums = Output::new(rows, width, DType::F32);
    for_rows(rows, ROWS, [&mut sums], |range, [mut part]| {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let mut next = runs
            .starts
            .partition_point(|(id, _)| (*id as usize) < range.start);
        for (i, id) in range.enumerate() {
            let positions = match runs.starts.get(next) {
                Some((found, first)) if *found as usize == id => {
                    next += 1;
                    let end = runs.starts.get(next).map(|(_, first)| *first as usize);
                    &runs.positions[*first as usize..end.unwrap_or(runs.positions.len())]
                }
                _ => &[],
            };
            part.write(i, &mut to, |sum| {
                sum.fill(0.0);
                for position in positions {
                    let row = d_out.row(*position as usize, &mut from);
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum += x;
                    }
                }
            });
        }
    });
    sums.into_tensor([rows, width])
}
