//! Cross-entropy with label smoothing and z-loss.

use burn::tensor::{Int, Tensor};

use crate::config::flexbert::LossSpec;
use crate::ops::cross_entropy::cross_entropy;

/// Loss `[rows]` of each row of `logits [rows, classes]` in f32, for scores `x` and the true class `y`:
///
/// ```text
/// lse - (1 - smoothing) x_y - smoothing mean(x) + z lse²        lse = log sum_j exp(x_j)
/// ```
pub(super) fn row_losses(spec: LossSpec, logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    if spec.is_cross_entropy() || logits.dims()[0] == 0 {
        return cross_entropy(logits, targets);
    }
    let largest = logits.clone().detach().max_dim(1);
    let sum = (logits.clone() - largest.clone()).exp().sum_dim(1);
    let lse = (sum.log() + largest).squeeze_dim::<1>(1);
    let of_class = logits
        .clone()
        .gather(1, targets.unsqueeze_dim(1))
        .squeeze_dim::<1>(1);
    let mean = logits.mean_dim(1).squeeze_dim::<1>(1);
    let loss = lse.clone() - of_class * (1.0 - spec.smoothing) - mean * spec.smoothing;
    loss + lse.clone() * lse * spec.z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::int_tensor;
    use test_support::{assert_close, device, read, tensor};

    /// `scripts/flexbert_fixtures.py` writes PyTorch's losses with label smoothing, and the z-loss added to them.
    #[test]
    fn smoothed_losses_and_their_gradients_are_those_of_pytorch() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../fixtures/flexbert.json")).unwrap();
        let fixture = &fixture["losses"];
        let numbers = |key: &str| -> Vec<f64> {
            let values = fixture[key].as_array().unwrap().iter();
            values.map(|x| x.as_f64().unwrap()).collect()
        };
        let loss = LossSpec {
            smoothing: fixture["label_smoothing"].as_f64().unwrap(),
            z: fixture["lse_square_scale"].as_f64().unwrap(),
        };
        let device = device().autodiff();
        let narrow: Vec<f32> = numbers("logits").iter().map(|&x| x as f32).collect();
        let logits = tensor(&narrow, [5, 7], &device).require_grad();
        let labels = numbers("labels").into_iter().map(|label| label as i32);
        let losses = row_losses(loss, logits.clone(), int_tensor(labels, &device));
        assert_close(&read(losses.clone()), &numbers("losses"), 1e-6, "losses");
        let weights = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0], [5], &device);
        let grads = (losses * weights).sum().backward();
        let found = read(logits.grad(&grads).unwrap());
        assert_close(&found, &numbers("gradients"), 1e-6, "gradients");
    }
}
