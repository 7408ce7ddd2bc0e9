//! Cross-entropy over a chunk of scores, and the whole decoder.

use burn::tensor::{DType, Int, Tensor};
use modernbert::batch::int_tensor;
use modernbert::ops::cross_entropy::{cross_entropy, cross_entropy_scores, decoder_loss};

use super::{BatchSizes, LABELLED, training_ids};
use crate::check::{close, first_rows, read, rounding_unit};
use crate::measure::{Meter, Work};

/// Returns the number of rows of a chunk in the decoder, and targets and weights for them.
fn scores(meter: &Meter, shape: &BatchSizes) -> (usize, Tensor<1, Int>, Tensor<1>) {
    let rows = ((shape.tokens as f64 * LABELLED) as usize).min(4096);
    let targets = training_ids(rows, shape.vocab).into_iter();
    let targets = int_tensor(targets.map(|id| id as i32), &meter.device);
    let weights = Tensor::ones([rows], (&meter.device, DType::F32));
    (rows, targets, weights)
}

/// Measures `loss`, cross-entropy over a chunk of scores, and `loss+grad`, which overwrites them with the gradient.
pub(crate) fn losses(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    if !meter.wants("loss") {
        return Ok(());
    }
    let each = shape.dtype.size();
    let (rows, targets, weights) = scores(meter, shape);
    let logits = meter.normal([rows, shape.vocab], shape.dtype);
    let bias = meter.normal([shape.vocab], shape.dtype);
    let (found, hits, gradient) = cross_entropy_scores(
        logits.clone(),
        Some(bias.clone()),
        targets.clone(),
        weights.clone(),
    );
    const FEW: usize = 4;
    let wide = read(first_rows(&logits, FEW))?;
    let biases = read(bias.clone())?;
    let labels = training_ids(rows, shape.vocab);
    let (mut losses, mut gradients, mut best) = (vec![], vec![], vec![]);
    for (row, &label) in wide.chunks(shape.vocab).zip(&labels) {
        let scores: Vec<f64> = row.iter().zip(&biases).map(|(x, b)| x + b).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
        losses.push(lse - scores[label as usize]);
        let first = scores.iter().position(|&s| s == max);
        best.push(if first == Some(label as usize) {
            1.0
        } else {
            0.0
        });
        for (v, s) in scores.iter().enumerate() {
            let one = if v == label as usize { 1.0 } else { 0.0 };
            gradients.push((s - lse).exp() - one);
        }
    }
    close("loss", &read(found.narrow(0, 0, FEW))?, &losses, 1e-5)?;
    anyhow::ensure!(read(hits.narrow(0, 0, FEW))? == best, "loss: wrong hits");
    close(
        "loss, gradient",
        &read(first_rows(&gradient, FEW))?,
        &gradients,
        2.0 * rounding_unit(shape.dtype),
    )?;
    meter.row(
        &shape.name,
        ("loss", "forward"),
        rows,
        Work::Bytes((rows * shape.vocab * each) as f64),
        || drop(cross_entropy(logits.clone(), targets.clone())),
    );
    // The gradient of a call is the input of the next one, so that the op works in place as in the decoder.
    let mut scores = Some(logits.clone() * 1.0);
    drop(logits);
    meter.row(
        &shape.name,
        ("loss+grad", "backward"),
        rows,
        Work::Bytes((rows * shape.vocab * 2 * each) as f64),
        || {
            if let Some(logits) = scores.take() {
                let (.., gradient) = cross_entropy_scores(
                    logits,
                    Some(bias.clone()),
                    targets.clone(),
                    weights.clone(),
                );
                scores = Some(gradient);
            }
        },
    );
    Ok(())
}

/// Measures `decoder`: the loss with all gradients, three GEMMs and the cross-entropy per chunk.
pub(crate) fn decoder(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    let rows = (shape.tokens as f64 * LABELLED) as usize;
    let labels = training_ids(rows, shape.vocab);
    let device = meter.device.clone().autodiff();
    let targets = int_tensor(labels.iter().map(|&id| id as i32), &device);
    let weights = Tensor::<1>::ones([rows], (&device, DType::F32));
    let graph = |tensor: Tensor<2>| Tensor::from_inner(tensor).require_grad();
    let hidden = graph(meter.normal([rows, shape.hidden], shape.dtype));
    let weight = graph(meter.normal([shape.vocab, shape.hidden], DType::F32) * 0.02);
    let bias = Tensor::from_inner(meter.normal([shape.vocab], DType::F32)).require_grad();
    meter.row(
        &shape.name,
        ("decoder", "both"),
        rows,
        Work::Flops(6.0 * (rows * shape.hidden * shape.vocab) as f64),
        || {
            let (loss, _) = decoder_loss(
                hidden.clone(),
                weight.clone(),
                Some(bias.clone()),
                targets.clone(),
                weights.clone(),
                None,
            );
            drop(loss.backward());
        },
    );
    Ok(())
}
