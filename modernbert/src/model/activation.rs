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
