//! Decoder fused with cross-entropy: loss, hits and gradients, in one chunk and several, with rows of weight 0.

use burn::tensor::{DType, FloatDType, Int, Tensor};
use burn_packed::batch::int_tensor;
use burn_packed::ops::cross_entropy::{cross_entropy_scores, decoder_loss};

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, ids, normals, read, tensor, wide,
};

struct Inputs {
    rows: usize,
    width: usize,
    classes: usize,
    hidden: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

/// Loss, hits, and gradients of hidden states, weight and bias of the loss times `factor`.
#[derive(Debug)]
struct Found {
    loss: Vec<f32>,
    hits: Vec<f32>,
    d_hidden: Vec<f32>,
    d_weight: Vec<f32>,
    d_bias: Option<Vec<f32>>,
}

const FACTOR: f32 = 0.25;

impl Inputs {
    fn new(rows: usize, width: usize, classes: usize) -> Self {
        Self {
            rows,
            width,
            classes,
            hidden: normals(1, rows * width),
            weight: normals(2, classes * width),
            bias: normals(3, classes),
            targets: ids(4, rows, classes as u32),
            // Every fourth row has weight 0.
            weights: (0..rows)
                .map(|i| if i % 4 == 3 { 0.0 } else { 1.0 })
                .collect(),
        }
    }

    fn targets(&self, device: &burn::tensor::Device) -> Tensor<1, Int> {
        int_tensor(self.targets.iter().map(|&t| t as i32), device)
    }

    fn run(&self, dtype: DType, bias: bool, chunk: Option<usize>) -> Found {
        let device = autodiff_device();
        let hidden = tensor(&self.hidden, [self.rows, self.width], &device).cast(dtype);
        let hidden = hidden.require_grad();
        let weight = tensor(&self.weight, [self.classes, self.width], &device).require_grad();
        let b = tensor(&self.bias, [self.classes], &device).require_grad();
        let (loss, hits) = decoder_loss(
            hidden.clone(),
            weight.clone(),
            bias.then(|| b.clone()),
            self.targets(&device),
            tensor(&self.weights, [self.rows], &device),
            chunk,
        );
        assert_eq!((loss.dtype(), hits.dtype()), (DType::F32, DType::F32));
        let grads = (loss.clone() * FACTOR).backward();
        let d_weight = weight.grad(&grads).unwrap();
        assert_eq!(d_weight.dtype(), DType::F32);
        Found {
            loss: read(loss.inner()),
            hits: read(hits.inner()),
            d_hidden: read(hidden.grad(&grads).unwrap()),
            d_weight: read(d_weight),
            d_bias: b.grad(&grads).map(read),
        }
    }

    /// Checks against the formula, with hidden states and weights rounded to `dtype`.
    fn check(&self, found: &Found, dtype: DType, bias: bool, tolerance: f64, what: &str) {
        let rounded = |values: &[f32], shape: [usize; 2]| {
            wide(&read(tensor(values, shape, &device()).cast(dtype)))
        };
        let hidden = rounded(&self.hidden, [self.rows, self.width]);
        let weight = rounded(&self.weight, [self.classes, self.width]);
        let b = rounded(&self.bias, [1, self.classes]);
        let (mut loss, mut hits) = (0.0, 0.0);
        let mut d_hidden = vec![0.0; hidden.len()];
        let (mut d_weight, mut d_bias) = (vec![0.0; weight.len()], vec![0.0; self.classes]);
        for t in 0..self.rows {
            let h = &hidden[t * self.width..(t + 1) * self.width];
            let scores: Vec<f64> = (0..self.classes)
                .map(|v| {
                    let w = &weight[v * self.width..(v + 1) * self.width];
                    let dot: f64 = h.iter().zip(w).map(|(a, b)| a * b).sum();
                    dot + if bias { b[v] } else { 0.0 }
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
            let target = self.targets[t] as usize;
            let share = f64::from(self.weights[t]);
            loss += share * (lse - scores[target]);
            if scores.iter().position(|&s| s == max) == Some(target) {
                hits += share;
            }
            for v in 0..self.classes {
                let one = if v == target { 1.0 } else { 0.0 };
                let d = f64::from(FACTOR) * share * ((scores[v] - lse).exp() - one);
                d_bias[v] += d;
                for j in 0..self.width {
                    d_hidden[t * self.width + j] += d * weight[v * self.width + j];
                    d_weight[v * self.width + j] += d * h[j];
                }
            }
        }
        assert_close(&found.loss, &[loss], tolerance, &format!("loss, {what}"));
        assert_close(&found.hits, &[hits], 1e-7, &format!("hits, {what}"));
        assert_close(
            &found.d_hidden,
            &d_hidden,
            tolerance,
            &format!("d_hidden, {what}"),
        );
        assert_close(
            &found.d_weight,
            &d_weight,
            tolerance,
            &format!("d_weight, {what}"),
        );
        assert_eq!(found.d_bias.is_some(), bias);
        if let Some(found) = &found.d_bias {
            assert_close(found, &d_bias, tolerance, &format!("d_bias, {what}"));
        }
    }
}

#[test]
fn loss_hits_and_gradients_equal_the_formula() {
    for (rows, width, classes) in [(1, 3, 2), (9, 8, 17), (30, 16, 64), (13, 12, 1000)] {
        let inputs = Inputs::new(rows, width, classes);
        for bias in [true, false] {
            for chunk in [None, Some(4)] {
                let found = inputs.run(DType::F32, bias, chunk);
                let what = format!("{rows} x {width}, {classes} classes, {bias} {chunk:?}");
                inputs.check(&found, DType::F32, bias, 1e-5, &what);
            }
        }
    }
}

#[test]
fn half_precision_is_within_its_rounding() {
    for dtype in [DType::BF16, DType::F16] {
        if !computes_in(dtype) {
            continue;
        }
        let mut inputs = Inputs::new(20, 16, 64);
        // Targets win or lose by a margin, so that rounding does not change hits.
        inputs.weight.iter_mut().for_each(|w| *w *= 2.0);
        for row in 0..10 {
            let target = inputs.targets[row] as usize;
            let chosen: Vec<f32> = inputs.weight[target * 16..(target + 1) * 16].to_vec();
            inputs.hidden[row * 16..(row + 1) * 16].copy_from_slice(&chosen);
        }
        let found = inputs.run(dtype, true, Some(8));
        inputs.check(&found, dtype, true, 3e-2, &format!("{dtype:?}"));
    }
}

#[test]
fn loss_and_hits_are_the_same_without_autodiff() {
    let inputs = Inputs::new(11, 8, 33);
    let found = inputs.run(DType::F32, true, None);
    let device = device();
    let (loss, hits) = decoder_loss(
        tensor(&inputs.hidden, [11, 8], &device),
        tensor(&inputs.weight, [33, 8], &device),
        Some(tensor(&inputs.bias, [33], &device)),
        inputs.targets(&device),
        tensor(&inputs.weights, [11], &device),
        Some(5),
    );
    assert_close(&read(loss), &wide(&found.loss), 1e-6, "loss");
    assert_close(&read(hits), &wide(&found.hits), 1e-7, "hits");
}

#[test]
fn first_of_equal_scores_wins() {
    let logits = tensor(&[1.0, 2.0, 2.0, 0.0, 2.0, 1.0, 2.0, 2.0], [2, 4], &device());
    let targets = int_tensor([1, 2].into_iter(), &device());
    let weights = tensor(&[1.0, 1.0], [2], &device());
    let (_, hits, _) = cross_entropy_scores(logits, None, targets, weights);
    assert_eq!(read(hits), [1.0, 0.0]);
}

#[test]
fn shared_scores_are_not_overwritten() {
    let values = normals(1, 3 * 10);
    let logits = tensor(&values, [3, 10], &device());
    let targets = int_tensor([1, 2, 9].into_iter(), &device());
    let weights = tensor(&[1.0; 3], [3], &device());
    let (_, _, gradient) = cross_entropy_scores(logits.clone(), None, targets, weights);
    assert_ne!(bits(&read(gradient)), bits(&values));
    assert_eq!(bits(&read(logits)), bits(&values));
}

/// Rows of at least 1 KiB whose size is no multiple of 512 bytes: a backend may pad them in a copy.
#[test]
fn shared_contiguous_scores_give_the_same_results() {
    for (rows, classes) in [(5, 1000), (7, 333)] {
        let values = normals(1, rows * classes);
        let targets = ids(2, rows, classes as u32);
        let run = |held: bool| {
            let flat = tensor(&values, [rows * classes], &device());
            // Read back before the reshape, or Fusion makes one kernel of both and pads the rows.
            assert_eq!(bits(&read(flat.clone())), bits(&values));
            let logits: Tensor<2> = flat.reshape([rows, classes]);
            let keep = held.then(|| logits.clone());
            let targets = int_tensor(targets.iter().map(|&t| t as i32), &device());
            let weights = tensor(&vec![1.0; rows], [rows], &device());
            let (losses, hits, gradient) = cross_entropy_scores(logits, None, targets, weights);
            let found = [losses, hits, gradient.reshape([rows * classes])];
            let found = found.map(|x| bits(&read(x)));
            assert!(keep.is_none_or(|keep| bits(&read(keep)) == bits(&values)));
            found
        };
        assert_eq!(run(true), run(false), "{rows} x {classes}");
    }
}

#[test]
fn empty_input_has_no_loss() {
    let device = autodiff_device();
    let weight = tensor(&normals(2, 12), [3, 4], &device).require_grad();
    let hidden = tensor(&[], [0, 4], &device);
    let targets = int_tensor([].into_iter(), &device);
    let none = tensor(&[], [0], &device);
    let (_, hits, _) = cross_entropy_scores(
        tensor(&[], [0, 4], &device).inner(),
        None,
        int_tensor([].into_iter(), &device.inner()),
        none.clone().inner(),
    );
    assert_eq!(hits.dims(), [0]);
    let (loss, hits) = decoder_loss(hidden, weight, None, targets, none, None);
    assert_eq!(
        (read(loss.inner()), read(hits.inner())),
        (vec![0.0], vec![0.0])
    );
}

#[test]
fn two_runs_are_bit_identical() {
    let inputs = Inputs::new(40, 12, 90);
    let run = || {
        let found = inputs.run(DType::F32, true, Some(16));
        [found.loss, found.d_hidden, found.d_weight].map(|values| bits(&values))
    };
    assert_eq!(run(), run());
}

/// The cast in a half-precision pass must not change the parameters.
#[test]
fn weight_stays_in_f32() {
    if !computes_in(DType::BF16) {
        return;
    }
    let inputs = Inputs::new(4, 8, 6);
    let hidden = tensor(&inputs.hidden, [4, 8], &device()).cast(FloatDType::BF16);
    let weight = tensor(&inputs.weight, [6, 8], &device());
    let weights = tensor(&inputs.weights, [4], &device());
    let (loss, _) = decoder_loss(
        hidden,
        weight,
        None,
        inputs.targets(&device()),
        weights,
        None,
    );
    assert_eq!(loss.dtype(), DType::F32);
}
