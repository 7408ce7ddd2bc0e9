//! Activations of heads, and of MLPs for which there is no fused op.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};

use crate::config::Activation;

/// Slope of `prelu` before training, PyTorch's.
pub(super) const PRELU_SLOPE: f32 = 0.25;

/// An activation with the parameter of `prelu`.
#[derive(Module, Debug)]
pub(super) struct Activate {
    weight: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: Activation,
}

impl Activate {
    pub(super) fn new(kind: Activation, device: &Device) -> Self {
        let count = kind.parameters();
        let slope = || Param::from_tensor(Tensor::full([count], PRELU_SLOPE, device));
        Self {
            weight: (count > 0).then(slope),
            kind,
        }
    }

    /// The function of each element (`softmin`: of each row), in the dtype of `x`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            None => activate(self.kind, x),
            Some(slope) => {
                let slope = slope.val().cast(x.dtype()).unsqueeze();
                activation::relu(x.clone()) - activation::relu(x.neg()) * slope
            }
        }
    }
}

/// `kind` applied to each element, with a derivative that matches.
pub(super) fn activate(kind: Activation, x: Tensor<2>) -> Tensor<2> {
    match kind {
        Activation::Gelu => exact_gelu(x),
        Activation::GeluTanh => {
            // Burn's version cubes with a floating-point power, which some backends refuse for negative numbers.
            let cubic = x.clone() * x.clone() * x.clone() * 0.044_715 + x.clone();
            let sqrt_2_over_pi = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            x * ((cubic * sqrt_2_over_pi).tanh() + 1.0) * 0.5
        }
        Activation::Gelu10 => exact_gelu(x).clamp(-10.0, 10.0),
        Activation::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
        Activation::Relu => activation::relu(x),
        Activation::ReluSquared => {
            let positive = activation::relu(x);
            positive.clone() * positive
        }
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu => activation::leaky_relu(x, 0.01),
        Activation::Prelu => activation::leaky_relu(x, f64::from(PRELU_SLOPE)),
        Activation::Rrelu => activation::leaky_relu(x, 11.0 / 48.0),
        Activation::Elu => elu(x),
        Activation::Selu => {
            let (scale, alpha) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);
            activation::relu(x.clone()) * scale + negative_exponential(x) * (scale * alpha)
        }
        Activation::Silu => activation::silu(x),
        Activation::Hardswish => x.clone() * hard_sigmoid(x),
        Activation::Mish => x.clone() * softplus(x).tanh(),
        Activation::Sigmoid => activation::sigmoid(x),
        Activation::Hardsigmoid => hard_sigmoid(x),
        Activation::Logsigmoid => softplus(x.neg()).neg(),
        Activation::Softplus => softplus(x),
        Activation::Tanh => x.tanh(),
        Activation::Hardtanh => x.clamp(-1.0, 1.0),
        Activation::Tanhshrink => x.clone() - x.tanh(),
        Activation::Hardshrink => {
            let small = x.clone().abs().lower_equal_elem(0.5);
            x.mask_fill(small, 0.0)
        }
        Activation::Softshrink => x.clone() - x.clamp(-0.5, 0.5),
        Activation::Softsign => x.clone() / (x.abs() + 1.0),
        Activation::Softmin => activation::softmax(x.neg(), 1),
        Activation::Laplace => {
            // The published constants, six digits of each: the exact square root would be another function.
            #[allow(clippy::approx_constant)]
            let mean = 0.707_107;
            let scale = 0.282_095 * std::f64::consts::SQRT_2;
            (((x - mean) / scale).erf() + 1.0) * 0.5
        }
        Activation::Linear => x,
    }
}

/// ln(1 + e^x) as max(x, 0) + ln(1 + e^-|x|), which overflows nowhere.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x.clone()) + (x.abs().neg().exp() + 1.0).log()
}

/// e^x - 1 below 0, else 0.
fn negative_exponential(x: Tensor<2>) -> Tensor<2> {
    x.clamp_max(0.0).exp() - 1.0
}

fn elu(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x.clone()) + negative_exponential(x)
}

fn hard_sigmoid(x: Tensor<2>) -> Tensor<2> {
    (x + 3.0).clamp(0.0, 6.0) / 6.0
}

/// Composed from `erf`: the derivative of Burn's own `gelu` is that of the tanh approximation.
fn exact_gelu(x: Tensor<2>) -> Tensor<2> {
    let cdf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * cdf
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::{device, read, tensor};

    const POINTS: [f32; 10] = [-12.0, -3.0, -1.0, -0.4, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0];

    /// transformers' `ACT2FN` at these points in f64, and PyTorch's modules for the names that only FlexBERT has (torch 2.9.0).
    #[rustfmt::skip]
    #[allow(clippy::approx_constant)] // ln 2 among the values
    const VALUES: [(Activation, [f64; 10]); 28] = [
        (Activation::Gelu, [0.0, -0.00404969409, -0.158655254, -0.137831303, 0.0, 0.185373427, 0.841344746, 2.48447584, 7.0, 12.0]),
        (Activation::GeluTanh, [0.0, -0.00363739208, -0.158808009, -0.137838831, 0.0, 0.185370924, 0.841191991, 2.48491573, 7.0, 12.0]),
        (Activation::Gelu10, [0.0, -0.00404969409, -0.158655254, -0.137831303, 0.0, 0.185373427, 0.841344746, 2.48447584, 7.0, 10.0]),
        (Activation::QuickGelu, [-1.61864178e-8, -0.0180713097, -0.154204234, -0.13443311, 0.0, 0.187484135, 0.845795766, 2.46501383, 6.99995313, 12.0]),
        (Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::ReluSquared, [0.0, 0.0, 0.0, 0.0, 0.0, 0.09, 1.0, 6.25, 49.0, 144.0]),
        (Activation::Relu6, [0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 1.0, 2.5, 6.0, 6.0]),
        (Activation::LeakyRelu, [-0.12, -0.03, -0.01, -0.004, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Silu, [-7.37300952e-5, -0.14227762, -0.268941421, -0.160524936, 0.0, 0.172332755, 0.731058579, 2.31035455, 6.99362264, 11.9999263]),
        (Activation::Mish, [-7.37303217e-5, -0.145647461, -0.303401461, -0.188916482, 0.0, 0.208001372, 0.865098388, 2.4713923, 6.99998838, 12.0]),
        (Activation::Sigmoid, [6.1441746e-6, 0.0474258732, 0.268941421, 0.40131234, 0.5, 0.574442517, 0.731058579, 0.92414182, 0.999088949, 0.999993856]),
        (Activation::Tanh, [-1.0, -0.995054754, -0.761594156, -0.379948962, 0.0, 0.291312612, 0.761594156, 0.986614298, 0.999998337, 1.0]),
        (Activation::Laplace, [0.0, 0.0, 7.17372606e-10, 4.34389259e-5, 0.00609445962, 0.0744883114, 0.850429649, 1.0, 1.0, 1.0]),
        (Activation::Linear, [-12.0, -3.0, -1.0, -0.4, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Prelu, [-3.0, -0.75, -0.25, -0.1, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Rrelu, [-2.75, -0.6875, -0.229166667, -0.0916666667, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Elu, [-0.999993856, -0.950212932, -0.632120559, -0.329679954, 0.0, 0.3, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Selu, [-1.75808854, -1.67056873, -1.11133074, -0.57961011, 0.0, 0.315210296, 1.05070099, 2.62675247, 7.35490691, 12.6084118]),
        (Activation::Hardswish, [0.0, 0.0, -0.333333333, -0.173333333, 0.0, 0.165, 0.666666667, 2.29166667, 7.0, 12.0]),
        (Activation::Hardsigmoid, [0.0, 0.0, 0.333333333, 0.433333333, 0.5, 0.55, 0.666666667, 0.916666667, 1.0, 1.0]),
        (Activation::Logsigmoid, [-12.0000061, -3.04858735, -1.31326169, -0.913015252, -0.693147181, -0.554355244, -0.313261688, -0.0788897343, -0.000911466454, -6.14419348e-06]),
        (Activation::Softplus, [6.14419348e-06, 0.0485873516, 0.313261688, 0.513015252, 0.693147181, 0.854355244, 1.31326169, 2.57888973, 7.00091147, 12.0000061]),
        (Activation::Hardtanh, [-1.0, -1.0, -1.0, -0.4, 0.0, 0.3, 1.0, 1.0, 1.0, 1.0]),
        (Activation::Tanhshrink, [-11.0, -2.00494525, -0.238405844, -0.0200510377, 0.0, 0.00868738755, 0.238405844, 1.5133857, 6.00000166, 11.0]),
        (Activation::Hardshrink, [-12.0, -3.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.5, 7.0, 12.0]),
        (Activation::Softshrink, [-11.5, -2.5, -0.5, 0.0, 0.0, 0.0, 0.5, 2.0, 6.5, 11.5]),
        (Activation::Softsign, [-0.923076923, -0.75, -0.5, -0.285714286, 0.0, 0.230769231, 0.5, 0.714285714, 0.875, 0.923076923]),
        (Activation::Softmin, [0.999844602, 0.000123390626, 1.66991054e-05, 9.16466335e-06, 6.14325756e-06, 0.621647893, 0.308701208, 0.0688805499, 0.00076519379, 5.1558352e-06]),
    ];

    #[test]
    fn every_activation_has_the_values_of_transformers() {
        for name in Activation::names() {
            let kind = Activation::from_name(name).unwrap();
            let (_, expected) = VALUES.iter().find(|(known, _)| *known == kind).unwrap();
            let found = read(activate(kind, tensor(&POINTS, [2, 5], &device())));
            for ((x, found), expected) in POINTS.iter().zip(found).zip(expected) {
                let off = (f64::from(found) - expected).abs();
                assert!(
                    off <= 1e-6 * expected.abs().max(1.0),
                    "{name}({x}): {found} {expected}"
                );
            }
        }
    }

    /// `scripts/flexbert_fixtures.py` writes the values and derivatives of PyTorch's modules.
    #[test]
    fn values_and_derivatives_of_the_listed_activations_are_those_of_pytorch() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("fixtures/flexbert.json")).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            let values = value.as_array().unwrap().iter();
            values.map(|x| x.as_f64().unwrap()).collect()
        };
        let points: Vec<f32> = numbers(&fixture["points"])
            .iter()
            .map(|&x| x as f32)
            .collect();
        let cases = fixture["activations"].as_object().unwrap();
        assert_eq!(cases.len(), 26);
        let device = device().autodiff();
        let shape = [2, points.len() / 2];
        let weights: Vec<f32> = (1..=points.len()).map(|i| i as f32).collect();
        for (name, expected) in cases {
            let act = Activate::new(Activation::from_name(name).unwrap(), &device);
            let x = tensor(&points, shape, &device).require_grad();
            let y = act.forward(x.clone());
            let grads = (y.clone() * tensor(&weights, shape, &device))
                .sum()
                .backward();
            let slopes = read(x.grad(&grads).unwrap());
            for (found, key) in [(read(y), "values"), (slopes, "slopes")] {
                let expected = numbers(&expected[key]);
                for ((x, found), expected) in points.iter().zip(found).zip(expected) {
                    let off = (f64::from(found) - expected).abs();
                    assert!(
                        off <= 2e-6 * expected.abs().max(1.0),
                        "{key} of {name}({x}): {found} {expected}"
                    );
                }
            }
        }
    }
}
