//! The ops, their inputs, their checks and what they move.

use burn::tensor::{DType, Int, Tensor};
use modernbert::batch::{TokenOrder, int_tensor};
use modernbert::config::ModernBertConfig;
use modernbert::ops::cross_entropy::{cross_entropy, cross_entropy_scores, decoder_loss};
use modernbert::ops::embedding::{embedding, embedding_backward};
use modernbert::ops::layer_norm::{
    AddNormBackward, Saved, add_layer_norm, add_layer_norm_backward, add_layer_norm_forward,
    layer_norm_backward, layer_norm_to,
};
use modernbert::ops::optimizer::{AdamWStep, Parameter, adamw, adamw_all};
use modernbert::ops::{geglu as gated, geglu::geglu_backward_again};

use crate::check::{close, head, read, unit};
use crate::measure::{Meter, Work};

const EPS: f64 = 1e-5;
/// Rows of a result that are compared with a reference.
const CHECKED: usize = 48;
/// Share of tokens that are predicted.
const PREDICTED: f64 = 0.3;

/// A model's sizes and the batch.
pub(crate) struct Shape {
    name: String,
    tokens: usize,
    hidden: usize,
    inner: usize,
    vocab: usize,
    layers: usize,
    dtype: DType,
}

impl Shape {
    pub(crate) fn new(name: &str, config: &ModernBertConfig, tokens: usize, dtype: DType) -> Self {
        Self {
            name: name.to_owned(),
            tokens,
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            vocab: config.vocab_size,
            layers: config.layer_types.len(),
            dtype,
        }
    }

    /// Bytes of `[tokens, width]` at so many bytes an element.
    fn bytes(&self, width: usize, each: usize) -> f64 {
        (self.tokens * width * each) as f64
    }
}

/// Normalised rows and inverse standard deviations by plain operations.
fn normalised(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let centred = x.clone() - x.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let inv_std = (variance + EPS).sqrt().recip();
    (centred * inv_std.clone(), inv_std)
}

/// LayerNorm alone and behind the residual sum.
pub(crate) fn norms(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
    let (size, dtype) = ([shape.tokens, shape.hidden], shape.dtype);
    let each = dtype.size();
    let x = meter.normal(size, DType::F32);
    let weight = meter.normal([shape.hidden], DType::F32) * 0.1 + 1.0;
    if meter.wants("norm") {
        let out = layer_norm_to(x.clone(), weight.clone(), EPS, dtype);
        let (y, inv_std) = normalised(head(&x, CHECKED));
        let expected = read(y.clone() * weight.clone().unsqueeze())?;
        close(
            "norm",
            &read(head(&out, CHECKED))?,
            &expected,
            2.0 * unit(dtype),
        )?;
        meter.row(
            &shape.name,
            ("norm", "forward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 4 + each)),
            || drop(layer_norm_to(x.clone(), weight.clone(), EPS, dtype)),
        );
        let d_out = meter.normal(size, DType::F32);
        let (d_x, d_weight) = layer_norm_backward(d_out.clone(), x.clone(), weight.clone(), EPS);
        let g = head(&d_out, CHECKED) * weight.clone().unsqueeze();
        let expected =
            (g.clone() - g.clone().mean_dim(1) - y.clone() * (g * y).mean_dim(1)) * inv_std;
        close(
            "norm, d_x",
            &read(head(&d_x, CHECKED))?,
            &read(expected)?,
            1e-4,
        )?;
        let expected = read((d_out.clone() * normalised(x.clone()).0).sum_dim(0))?;
        close("norm, d_weight", &read(d_weight)?, &expected, 1e-4)?;
        meter.row(
            &shape.name,
            ("norm", "backward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 12)),
            || {
                layer_norm_backward(d_out.clone(), x.clone(), weight.clone(), EPS);
            },
        );
    }
    if meter.wants("add+norm") {
        let branch = meter.normal(size, dtype);
        let (sum, normed, inv_std) =
            add_layer_norm_forward(x.clone(), branch.clone(), weight.clone(), EPS, dtype);
        let expected = head(&x, CHECKED) + head(&branch, CHECKED).cast(DType::F32);
        close(
            "sum",
            &read(head(&sum, CHECKED))?,
            &read(expected.clone())?,
            1e-5,
        )?;
        let (y, scale) = normalised(expected);
        let expected = read(y.clone() * weight.clone().unsqueeze())?;
        close(
            "add+norm",
            &read(head(&normed, CHECKED))?,
            &expected,
            2.0 * unit(dtype),
        )?;
        meter.row(
            &shape.name,
            ("add+norm", "forward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 8 + 2 * each)),
            || {
                add_layer_norm(x.clone(), branch.clone(), weight.clone(), EPS, dtype);
            },
        );
        let d_sum = meter.normal(size, DType::F32);
        let d_normed = meter.normal(size, dtype);
        let spec = AddNormBackward {
            eps: EPS,
            saved: Saved::for_output(dtype),
            joined: true,
            sum: DType::F32,
            branch: dtype,
        };
        let (saved, kept) = match spec.saved {
            Saved::Sum => (sum, 4),
            Saved::Normed => (normed, each),
        };
        let backward = || {
            add_layer_norm_backward(
                (d_sum.clone(), d_normed.clone()),
                (saved.clone(), inv_std.clone()),
                weight.clone(),
                spec,
            )
        };
        let (d_x, d_branch, d_weight) = backward();
        let d = head(&d_normed, CHECKED).cast(DType::F32);
        let g = d * weight.clone().unsqueeze();
        let through = (g.clone() - g.clone().mean_dim(1) - y.clone() * (g * y).mean_dim(1)) * scale;
        let expected = read(head(&d_sum, CHECKED) + through)?;
        close(
            "add+norm, d_x",
            &read(head(&d_x, CHECKED))?,
            &expected,
            2.0 * unit(dtype),
        )?;
        let found = read(head(&d_branch, CHECKED))?;
        close("add+norm, d_branch", &found, &expected, 2.0 * unit(dtype))?;
        let all = normalised(x.clone() + branch.clone().cast(DType::F32)).0;
        let expected = read((d_normed.clone().cast(DType::F32) * all).sum_dim(0))?;
        close(
            "add+norm, d_weight",
            &read(d_weight)?,
            &expected,
            unit(dtype),
        )?;
        let second = if dtype == DType::F32 { 0 } else { each };
        meter.row(
            &shape.name,
            ("add+norm", "backward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 8 + each + kept + second)),
            || {
                backward();
            },
        );
    }
    Ok(())
}

/// GeGLU, and its backward that gives the output again.
pub(crate) fn geglu(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
    if !meter.wants("geglu") {
        return Ok(());
    }
    let each = shape.dtype.size();
    let input = meter.normal([shape.tokens, 2 * shape.inner], shape.dtype);
    let d_out = meter.normal([shape.tokens, shape.inner], shape.dtype);
    let (d_input, again) = geglu_backward_again(d_out.clone(), input.clone());
    let out = gated::geglu(input.clone());
    let wide = head(&input, CHECKED).cast(DType::F32);
    let x = wide.clone().slice([0..CHECKED, 0..shape.inner]);
    let gate = wide.slice([0..CHECKED, shape.inner..2 * shape.inner]);
    let cdf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let density = (x.clone() * x.clone() * -0.5).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let expected = read(x.clone() * cdf.clone() * gate.clone())?;
    let tolerance = 2.0 * unit(shape.dtype);
    close("geglu", &read(head(&out, CHECKED))?, &expected, tolerance)?;
    close(
        "geglu again",
        &read(head(&again, CHECKED))?,
        &expected,
        tolerance,
    )?;
    let d = head(&d_out, CHECKED).cast(DType::F32);
    let d_x = d.clone() * gate * (cdf.clone() + x.clone() * density);
    let expected = read(Tensor::cat(vec![d_x, d * x * cdf], 1))?;
    close(
        "geglu, d_input",
        &read(head(&d_input, CHECKED))?,
        &expected,
        tolerance,
    )?;
    meter.row(
        &shape.name,
        ("geglu", "forward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.inner, 3 * each)),
        || drop(gated::geglu(input.clone())),
    );
    meter.row(
        &shape.name,
        ("geglu+out", "backward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.inner, 6 * each)),
        || {
            geglu_backward_again(d_out.clone(), input.clone());
        },
    );
    Ok(())
}

/// Ids as they occur in training: a fifth of them one and the same (the mask), the rest the more frequent the smaller.
fn training_ids(tokens: usize, vocab: usize) -> Vec<u32> {
    // Any fixed sequence does; this one is a multiplicative congruence.
    let mut state = 1u64;
    (0..tokens)
        .map(|token| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
            if token % 5 == 0 {
                (vocab - 1) as u32
            } else {
                // A logarithmic law, close to that of words.
                ((vocab as f64).powf(uniform) as u32).min(vocab as u32 - 1)
            }
        })
        .collect()
}

/// The embedding and its gradient.
pub(crate) fn lookups(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
    if !meter.wants("embedding") {
        return Ok(());
    }
    let table = meter.normal([shape.vocab, shape.hidden], DType::F32);
    let host = training_ids(shape.tokens, shape.vocab);
    let ids = int_tensor(host.iter().map(|&id| id as i32), &meter.device);
    let order = TokenOrder::new(host.clone());
    let out = embedding(table.clone(), ids.clone(), order.clone());
    let expected = table.clone().select(0, ids.clone().narrow(0, 0, CHECKED));
    close(
        "embedding",
        &read(head(&out, CHECKED))?,
        &read(expected)?,
        0.0,
    )?;
    meter.row(
        &shape.name,
        ("embedding", "forward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.hidden, 8)),
        || drop(embedding(table.clone(), ids.clone(), order.clone())),
    );
    let d_out = meter.normal([shape.tokens, shape.hidden], DType::F32);
    let backward = || embedding_backward(d_out.clone(), ids.clone(), order.clone(), shape.vocab);
    const COLUMNS: usize = 8;
    let some = read(d_out.clone().slice([0..shape.tokens, 0..COLUMNS]))?;
    let mut expected = vec![0.0; shape.vocab * COLUMNS];
    for (token, &id) in host.iter().enumerate() {
        for j in 0..COLUMNS {
            expected[id as usize * COLUMNS + j] += some[token * COLUMNS + j];
        }
    }
    let found = read(backward().slice([0..shape.vocab, 0..COLUMNS]))?;
    close("embedding, gradient", &found, &expected, 1e-5)?;
    meter.row(
        &shape.name,
        ("embedding", "backward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.hidden, 4) + (shape.vocab * shape.hidden * 4) as f64),
        || drop(backward()),
    );
    Ok(())
}

/// Rows of a chunk of scores, as the decoder cuts them, and their targets and weights.
fn scores(meter: &Meter, shape: &Shape) -> (usize, Tensor<1, Int>, Tensor<1>) {
    let rows = ((shape.tokens as f64 * PREDICTED) as usize).min(4096);
    let targets = training_ids(rows, shape.vocab).into_iter();
    let targets = int_tensor(targets.map(|id| id as i32), &meter.device);
    let weights = Tensor::ones([rows], (&meter.device, DType::F32));
    (rows, targets, weights)
}

/// Cross-entropy over a chunk of scores, alone and with the gradient in their place.
pub(crate) fn losses(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
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
    let wide = read(head(&logits, FEW))?;
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
        &read(head(&gradient, FEW))?,
        &gradients,
        2.0 * unit(shape.dtype),
    )?;
    meter.row(
        &shape.name,
        ("loss", "forward"),
        rows,
        Work::Bytes((rows * shape.vocab * each) as f64),
        || drop(cross_entropy(logits.clone(), targets.clone())),
    );
    // The gradient of one call is the input of the next: in place, as in the decoder.
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

/// Decoder and loss with all gradients: three products and the loss per chunk.
pub(crate) fn decoder(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
    let rows = (shape.tokens as f64 * PREDICTED) as usize;
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

/// StableAdamW over tensors of the sizes of the model.
pub(crate) fn optimizer(meter: &mut Meter, shape: &Shape) -> anyhow::Result<()> {
    if !meter.wants("adamw") {
        return Ok(());
    }
    let (h, i) = (shape.hidden, shape.inner);
    let mut sizes = vec![
        [shape.vocab, h],
        [1, shape.vocab],
        [h, h],
        [1, h],
        [1, h],
        [1, h],
    ];
    for _ in 0..shape.layers {
        sizes.extend([[3 * h, h], [h, h], [2 * i, h], [h, i], [1, h], [1, h]]);
    }
    let elements: usize = sizes.iter().map(|[a, b]| a * b).sum();
    let step = AdamWStep {
        lr: 1e-4,
        b1: 0.9,
        b2: 0.98,
        epsilon: 1e-6,
        root_scale: 1.0,
        stable: true,
        decay: 1e-2,
    };
    let tensors: Vec<[Tensor<2>; 2]> = sizes
        .iter()
        .map(|&size| {
            [
                meter.normal(size, DType::F32),
                meter.normal(size, DType::F32),
            ]
        })
        .collect();
    check_step(&tensors[2], step)?;
    let grads: Vec<Tensor<2>> = tensors.iter().map(|[_, grad]| grad.clone()).collect();
    let mut state: Vec<[Tensor<2>; 3]> = tensors
        .into_iter()
        .map(|[weight, _]| {
            let (m, v) = (weight.zeros_like(), weight.zeros_like());
            [weight, m, v]
        })
        .collect();
    meter.row(
        &shape.name,
        ("adamw", "step"),
        shape.tokens,
        Work::Bytes(28.0 * elements as f64),
        || {
            let parameters = std::mem::take(&mut state).into_iter().zip(&grads);
            let parameters = parameters
                .map(|([weight, m, v], grad)| Parameter::new(weight, grad.clone(), (m, v), step));
            let stepped = adamw_all(parameters.collect(), None).into_iter();
            state = stepped
                .map(|stepped| {
                    let (weight, m, v) = stepped.into_tensors();
                    [weight, m, v]
                })
                .collect();
        },
    );
    Ok(())
}

fn check_step([weight, grad]: &[Tensor<2>; 2], step: AdamWStep) -> anyhow::Result<()> {
    let moments = (weight.zeros_like(), weight.zeros_like());
    let (found, ..) = adamw(weight.clone(), grad.clone(), moments, step, None);
    let (weight, grad) = (read(weight.clone())?, read(grad.clone())?);
    let v: Vec<f64> = grad.iter().map(|g| (1.0 - step.b2) * g * g).collect();
    let floor = step.epsilon * step.epsilon;
    let ratio: f64 = grad.iter().zip(&v).map(|(g, v)| g * g / v.max(floor)).sum();
    let eta = step.lr / (ratio / grad.len() as f64).sqrt().max(1.0);
    let expected: Vec<f64> = weight
        .iter()
        .zip(grad.iter().zip(&v))
        .map(|(w, (g, v))| {
            w * (1.0 - eta * step.decay) - eta * (1.0 - step.b1) * g / (v.sqrt() + step.epsilon)
        })
        .collect();
    close("adamw", &read(found)?, &expected, 1e-6)
}
