//! Cross-entropy on the CPU: two passes over each row, rows in parallel.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{ScoreSpec, fallback};
use crate::ops::host::{HostTensor, indices, is_native, tensor};
use crate::ops::simd;

pub(crate) fn forward(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
    if !is_native(&logits) {
        return fallback::forward::<Flex>(logits, targets);
    }
    let [rows, classes] = logits.layout().shape().dims::<2>();
    let logits = HostTensor::new(logits);
    let losses: Vec<f32> = logits
        .values()
        .par_chunks(classes.max(1))
        .zip(indices(targets))
        .map(|(row, target)| simd::log_sum_exp(row) - row[target])
        .collect();
    tensor(losses, [rows], DType::F32)
}

pub(crate) fn backward(d_loss: FlexTensor, logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
    if !is_native(&logits) {
        return fallback::backward::<Flex>(d_loss, logits, targets);
    }
    let dtype = logits.dtype();
    let [rows, classes] = logits.layout().shape().dims::<2>();
    let (logits, d_loss) = (HostTensor::new(logits), HostTensor::new(d_loss));
    let mut d_logits = logits.values().to_vec();
    d_logits
        .par_chunks_mut(classes.max(1))
        .zip(indices(targets))
        .zip(d_loss.values().par_iter())
        .for_each(|((row, target), &d_loss)| {
            // Normalized by the sum, not by the log-sum-exp, whose rounding error grows with the logits.
            simd::softmax_row(row);
            row.iter_mut().for_each(|p| *p *= d_loss);
            row[target] -= d_loss;
        });
    tensor(d_logits, [rows, classes], dtype)
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
    let [logits, bias, weights] = [logits, bias, weights].map(HostTensor::new);
    let mut scores = logits.values().to_vec();
    let (losses, hits): (Vec<f32>, Vec<f32>) = scores
        .par_chunks_mut(classes.max(1))
        .zip(indices(targets))
        .zip(weights.values().par_iter())
        .map(|((row, target), &weight)| {
            if spec.bias {
                for (score, bias) in row.iter_mut().zip(bias.values()) {
                    *score += bias;
                }
            }
            let target_score = row[target];
            let is_beaten = row[..target].iter().any(|&x| x >= target_score)
                || row[target..].iter().any(|&x| x > target_score);
            let lse = if spec.gradient {
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
        })
        .unzip();
    (
        tensor(losses, [rows], DType::F32),
        tensor(hits, [rows], DType::F32),
        tensor(scores, [rows, classes], dtype),
    )
}
