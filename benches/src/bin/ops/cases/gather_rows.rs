//! The row gather as the token embedding uses it, and its gradient.

use burn::tensor::DType;
use modernbert::batch::{TokenOrder, int_tensor};
use modernbert::ops::gather_rows::{self as op, gather_rows_backward};

use super::{BatchSizes, CHECKED, training_ids};
use crate::check::{close, first_rows, read};
use crate::measure::{Meter, Work};

/// Measures `gather-rows`, forward and backward.
pub(crate) fn gather_rows(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    if !meter.wants("gather-rows") {
        return Ok(());
    }
    let table = meter.normal([shape.vocab, shape.hidden], DType::F32);
    let host = training_ids(shape.tokens, shape.vocab);
    let ids = int_tensor(host.iter().map(|&id| id as i32), &meter.device);
    let order = TokenOrder::new(host.clone());
    let out = op::gather_rows(table.clone(), ids.clone(), order.clone());
    let expected = table.clone().select(0, ids.clone().narrow(0, 0, CHECKED));
    close(
        "gather-rows",
        &read(first_rows(&out, CHECKED))?,
        &read(expected)?,
        0.0,
    )?;
    meter.row(
        &shape.name,
        ("gather-rows", "forward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.hidden, 8)),
        || drop(op::gather_rows(table.clone(), ids.clone(), order.clone())),
    );
    let d_out = meter.normal([shape.tokens, shape.hidden], DType::F32);
    let backward = || gather_rows_backward(d_out.clone(), ids.clone(), order.clone(), shape.vocab);
    const COLUMNS: usize = 8;
    let some = read(d_out.clone().slice([0..shape.tokens, 0..COLUMNS]))?;
    let mut expected = vec![0.0; shape.vocab * COLUMNS];
    for (token, &id) in host.iter().enumerate() {
        for j in 0..COLUMNS {
            expected[id as usize * COLUMNS + j] += some[token * COLUMNS + j];
        }
    }
    let found = read(backward().slice([0..shape.vocab, 0..COLUMNS]))?;
    close("gather-rows, gradient", &found, &expected, 1e-5)?;
    meter.row(
        &shape.name,
        ("gather-rows", "backward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.hidden, 4) + (shape.vocab * shape.hidden * 4) as f64),
        || drop(backward()),
    );
    Ok(())
}
