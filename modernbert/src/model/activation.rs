//! Activations of heads, and of MLPs for which there is no fused op.

use burn::tensor::{Tensor, activation};

use crate::config::Activation;

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
        Activation::Silu => activation::silu(x),
        Activation::Mish => {
            // ln(1 + e^x) as max(x, 0) + ln(1 + e^-|x|), which overflows nowhere.
            let softplus = activation::relu(x.clone()) + (x.clone().abs().neg().exp() + 1.0).log();
            x * softplus.tanh()
        }
        Activation::Sigmoid => activation::sigmoid(x),
        Activation::Tanh => x.tanh(),
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

    /// transformers' `ACT2FN` at these points in f64 (torch 2.9.0).
    #[rustfmt::skip]
    const VALUES: [(Activation, [f64; 10]); 14] = [
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
}
