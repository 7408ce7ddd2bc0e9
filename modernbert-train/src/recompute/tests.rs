#![allow(clippy::unwrap_used)]

use burn::module::{ModuleVisitor, Param};
use burn::tensor::Device;
use modernbert::batch::{Dropout, DropoutRates};
use modernbert::config::ModernBertConfig;
use modernbert::model::initialize;

use super::*;

fn model(tied: bool, device: &Device) -> MaskedLm {
    let mut config = ModernBertConfig::of_shape(4, 32, 48, 2);
    config.vocab_size = 64;
    config.pad_token_id = None;
    config.local_attention = 8;
    config.tie_word_embeddings = tied;
    initialize(MaskedLm::new(&config, device).unwrap(), &config, 3)
}

fn batch(device: &Device, dropout: Option<Dropout>) -> (PackedBatch, MaskedTokens) {
    let sequences: Vec<Vec<u32>> = [40, 1, 23]
        .map(|n| (0..n).map(|i| (i * i + n) % 64).collect())
        .to_vec();
    let batch = PackedBatch::from_sequences(&sequences, device)
        .unwrap()
        .with_dropout(dropout);
    let masked = MaskedTokens::new(
        &[0, 17, 40, 63, 0],
        &[5, 6, 7, 8, 0],
        &[1.0, 1.0, 1.0, 1.0, 0.0],
        device,
    );
    (batch, masked)
}

/// Bit patterns of every parameter's gradient, in the module's order.
fn bits(model: &MaskedLm, grads: &GradientsParams) -> Vec<Option<Vec<u32>>> {
    struct Collect<'a>(&'a GradientsParams, Vec<Option<Vec<u32>>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self.0.get::<D>(param.id).map(|grad| {
                let values: Vec<f32> = grad.into_data().try_to_vec().unwrap();
                values.iter().map(|x| x.to_bits()).collect()
            });
            self.1.push(grad);
        }
    }
    let mut collect = Collect(grads, Vec::new());
    model.visit(&mut collect);
    collect.1
}

/// Every gradient is that of the usual step, to the last bit: with dropout at every site and without, tied matrices and not.
#[test]
fn gradients_are_those_of_the_usual_step() {
    let rates = DropoutRates {
        embedding: 0.1,
        attention_probabilities: 0.1,
        attention_output: 0.1,
        mlp: 0.1,
        mlp_output: 0.1,
        head: 0.1,
        classifier: 0.1,
    };
    let dropout = Dropout {
        rates,
        seed: 5,
        batch: 12,
    };
    let kernels = Dropout {
        rates: DropoutRates {
            attention_probabilities: 0.0,
            ..rates
        },
        ..dropout
    };
    let device = test_support::autodiff_device();
    for (tied, dropout) in [
        (true, None),
        (true, Some(kernels)),
        (true, Some(dropout)),
        (false, Some(kernels)),
    ] {
        let model = model(tied, &device).train();
        let (batch, masked) = batch(&device, dropout);
        let usual = model.forward(&batch, &masked);
        let loss = usual.loss_sum.clone() / 4.0;
        let expected = GradientsParams::from_grads(loss.backward(), &model);
        let (output, found) = gradients(&model, &batch, &masked, 4.0);
        let (expected, found) = (bits(&model, &expected), bits(&model, &found));
        assert!(
            expected.iter().all(Option::is_some),
            "every parameter has a gradient"
        );
        assert!(expected == found, "tied {tied}, {dropout:?}");
        let number = |x: Tensor<1>| x.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(number(output.loss_sum), number(usual.loss_sum.inner()));
        assert_eq!(number(output.correct), number(usual.correct.inner()));
    }
}
