//! Activations of heads, and of MLPs for which there is no fused op.

use burn::tensor::{Tensor, activation};

use crate::config::Activation;

/// `kind` applied to each element, with a derivative that matches.
pub(super) fn activate(kind: Activation, x: Tensor<2>) -> Tensor<2> {
    match kind {
        // Composed from `erf`: the derivative of Burn's own `gelu` is that of the tanh approximation.
        Activation::Gelu => {
            let cdf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
            x * cdf
        }
        Activation::GeluTanh => {
            // Burn's version cubes with a floating-point power, which some backends refuse for negative numbers.
            let cubic = x.clone() * x.clone() * x.clone() * 0.044_715 + x.clone();
            let sqrt_2_over_pi = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            x * ((cubic * sqrt_2_over_pi).tanh() + 1.0) * 0.5
        }
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
    }
}
