//! Cross-entropy on the CPU: two passes over each row, rows in parallel.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::{ScoreSpec, fallback};
use crate::ops::host::{
    HostTensor, Output, RowReader, for_rows, indices, is_native, map_rows, rows_per_task, tensor,
};
use crate::ops::simd;

pub(crate) fn forward(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
    if !is_native(&logits) {
        return fallback::forward::<Flex>(logits, targets);
    }
    let [rows, _] = logits.layout().shape().dims::<2>();
    let (logits, targets) = (RowReader::new(logits), indices(targets));
    let losses = map_rows(rows, rows_per_task(rows), [], |range, []| {
        let mut from = Vec::new();
        let losses = range.map(|row| {
            let scores = logits.row(row, &mut from);
            simd::log_sum_exp(scores) - scores[targets[row]]
        });
        losses.collect::<Vec<f32>>()
    });
    tensor(losses.concat(), [rows], DType::F32)
}

pub(crate) fn backward(d_loss: FlexTensor, logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
    if !is_native(&logits) {
        return fallback::backward::<Flex>(d_loss, logits, targets);
    }
    let dtype = logits.dtype();
    let [rows, classes] = logits.layout().shape().dims::<2>();
    let (logits, d_loss) = (RowReader::new(logits), HostTensor::new(d_loss));
    let targets = indices(targets);
    let mut d_logits = Output::new(rows, classes, dtype);
    for_rows(
        rows,
        rows_per_task(rows),
        [&mut d_logits],
        |range, [mut part]| {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for (i, row) in range.enumerate() {
                let scores = logits.row(row, &mut from);
                let d_loss = d_loss.values()[row];
                part.write(i, &mut to, |out| {
                    out.copy_from_slice(scores);
                    // Normalized by the sum, not by the log-sum-exp, whose rounding error grows with the logits.
                    simd::softmax_row(out);
                    out.iter_mut().for_each(|p| *p *= d_loss);
                    out[targets[row]] -= d_loss;
                });
            }
        },
    );
    d_logits.into_tensor([rows, classes])
}

/// Weighted losses, weighted hits, and the gradient of the scores (the scores, if `spec.gradient` is false).
pub(crate) fn scores(
    logits: FlexTensor,
    bias: FlexTensor,
    targets: FlexTensor,
    weights: FlexTensor,
    spec: ScoreSpec,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if !is_native(&logits) {
        return fallback::scores::<Flex>(logits, bias, targets, weights, spec);
    }
    let dtype = logits.dtype();
    let [rows, classes] = logits.layout().shape().dims::<2>();
    let logits = RowReader::new(logits);
    let [bias, weights] = [bias, weights].map(HostTensor::new);
    let bias = spec.bias.then(|| bias.values());
    let targets = indices(targets);
    let mut scores = Output::new(rows, classes, dtype);
    let parts = map_rows(
        rows,
        rows_per_task(rows),
        [&mut scores],
        |range, [mut part]| {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            let results = range.enumerate().map(|(i, row)| {
                let given = logits.row(row, &mut from);
                part.write(i, &mut to, |out| {
                    out.copy_from_slice(given);
                    for (score, bias) in out.iter_mut().zip(bias.into_iter().flatten()) {
                        *score += bias;
                    }
                    score(out, targets[row], weights.values()[row], spec.gradient)
                })
            });
            results.collect::<Vec<(f32, f32)>>()
        },
    );
    let (losses, hits) = parts.into_iter().flatten().unzip();
    (
        tensor(losses, [rows], DType::F32),
        tensor(hits, [rows], DType::F32),
        scores.into_tensor([rows, classes]),
    )
}

/// Weighted loss and hit of a row of scores, which becomes its gradient if `gradient`.
fn score(row: &mut [f32], target: usize, weight: f32, gradient: bool) -> (f32, f32) {
    let target_score = row[target];
    let is_beaten = row[..target].iter().any(|&x| x >= target_score)
        || row[target..].iter().any(|&x| x > target_score);
    let lse = if gradient {
        let lse = simd::softmax_row(row);
        row.iter_mut().for_each(|p| *p *= weight);
        row[target] -= weight;
        lse
    } else {
        simd::log_sum_exp(row)
    };
    (
        weight * (lse - target_score),
        if is_beaten { 0.0 } else { weight },
    )
}

/// Rows of a part of a column sum. Fixed, so that a sum does not depend on the number of threads.
const STEP: usize = 64;

/// Sum of each column, in f32.
pub(crate) fn column_sums(input: FlexTensor) -> FlexTensor {
    if !is_native(&input) {
        return fallback::column_sums::<Flex>(input);
    }
    let [rows, width] = input.layout().shape().dims::<2>();
    let input = RowReader::new(input);
    let parts = map_rows(rows, STEP, [], |range, []| {
        let (mut from, mut sums) = (Vec::new(), vec![0.0f32; width]);
        for row in range {
            for (sum, x) in sums.iter_mut().zip(input.row(row, &mut from)) {
                *sum += x;
            }
        }
        sums
    });
    let mut sums = vec![0.0f32; width];
    for part in parts {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x;
        }
    }
    tensor(sums, [width], DType::F32)
}
