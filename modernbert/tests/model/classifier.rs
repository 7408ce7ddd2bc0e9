//! Sequence classification: pooling, outputs, the three losses.

use modernbert::batch::PackedBatch;
use modernbert::config::{ModernBertConfig, Pooling};
use modernbert::model::{ClassificationLabels, SequenceClassifier};

use crate::reference::{Reference, Rows, pooled};
use crate::toy;
use test_support::{assert_close, autodiff_device, device, ids, read, wide};

fn config(pooling: Pooling) -> ModernBertConfig {
    let mut config = toy::config(2);
    config.classifier_pooling = pooling;
    config
}

fn sequences() -> Vec<Vec<u32>> {
    [4, 1, 11]
        .map(|length| ids(40 + length as u64, length, toy::VOCAB as u32))
        .to_vec()
}

fn model(
    config: &ModernBertConfig,
    labels: usize,
    device: &burn::tensor::Device,
) -> SequenceClassifier {
    toy::build(
        |device| SequenceClassifier::new(config, labels, device).unwrap(),
        6,
        device,
    )
}

/// Outputs of the independent model, row-major.
fn expected_logits(config: &ModernBertConfig, model: &SequenceClassifier) -> Vec<f64> {
    let weights = toy::values(model);
    let reference = Reference {
        config,
        weights: &weights,
    };
    let pool = |rows: &Rows| pooled(rows, config.classifier_pooling);
    sequences()
        .iter()
        .flat_map(|ids| reference.class_logits(ids, pool))
        .collect()
}

/// Loss and outputs for labels, with the outputs compared with the independent model.
fn run(labels: usize, targets: &ClassificationLabels) -> (Vec<f32>, Vec<f64>) {
    let config = config(Pooling::Mean);
    let model = model(&config, labels, &device());
    let batch = PackedBatch::from_sequences(&sequences(), &device()).unwrap();
    let output = model.forward(&batch, targets);
    let expected = expected_logits(&config, &model);
    assert_eq!(output.logits.dims(), [3, labels]);
    assert_close(&read(output.logits), &expected, 1e-5, "outputs");
    (read(output.loss), expected)
}

#[test]
fn outputs_equal_the_independent_model_for_both_poolings() {
    let outputs = [Pooling::Cls, Pooling::Mean].map(|pooling| {
        let config = config(pooling);
        let model = model(&config, 3, &device());
        let found =
            read(model.logits(&PackedBatch::from_sequences(&sequences(), &device()).unwrap()));
        assert_close(
            &found,
            &expected_logits(&config, &model),
            1e-5,
            pooling.name(),
        );
        found
    });
    // A sequence of one token is its own mean; the others are not.
    assert_close(
        &outputs[0][3..6],
        &wide(&outputs[1][3..6]),
        1e-5,
        "one token",
    );
    for range in [0..3, 6..9] {
        let (cls, mean) = (&outputs[0][range.clone()], &outputs[1][range]);
        assert!(cls.iter().zip(mean).any(|(a, b)| (a - b).abs() > 0.01));
    }
}

#[test]
fn classes_give_cross_entropy() {
    let (loss, logits) = run(4, &ClassificationLabels::Classes(vec![2, 0, 3]));
    let row_loss =
        |(row, class): (&[f64], usize)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[class];
    let expected = logits.chunks(4).zip([2, 0, 3]).map(row_loss).sum::<f64>() / 3.0;
    assert_close(&loss, &[expected], 1e-5, "loss");
}

#[test]
fn scores_give_mean_squared_error() {
    let scores = [0.5, -1.0, 4.2];
    let (loss, logits) = run(1, &ClassificationLabels::Scores(scores.to_vec()));
    let expected = logits
        .iter()
        .zip(scores)
        .map(|(x, s)| (x - f64::from(s)).powi(2))
        .sum::<f64>()
        / 3.0;
    assert_close(&loss, &[expected], 1e-5, "loss");
}

#[test]
fn several_labels_give_binary_cross_entropy() {
    let labels = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    let (loss, logits) = run(2, &ClassificationLabels::MultiLabel(labels.to_vec()));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let element = |(&x, t): (&f64, f32)| match t {
        1.0 => -sigmoid(x).ln(),
        _ => -sigmoid(-x).ln(),
    };
    let expected = logits.iter().zip(labels).map(element).sum::<f64>() / 6.0;
    assert_close(&loss, &[expected], 1e-5, "loss");
}

#[test]
fn every_loss_reaches_every_parameter() {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let config = config(pooling);
        for labels in [
            ClassificationLabels::Classes(vec![1, 0, 1]),
            ClassificationLabels::MultiLabel(vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0]),
            ClassificationLabels::Scores(vec![1.0, 0.0, 0.5, 0.0, 1.0, -1.0]),
        ] {
            let device = autodiff_device();
            let model = model(&config, 2, &device);
            let batch = PackedBatch::from_sequences(&sequences(), &device).unwrap();
            let grads = toy::gradients(&model, &model.forward(&batch, &labels).loss);
            for (name, grad) in grads {
                assert!(grad.iter().all(|g| g.is_finite()), "{name}");
                assert!(
                    grad.iter().any(|&g| g != 0.0),
                    "{name}: {labels:?} gives it no gradient"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "1 labels for 3 sequences")]
fn fewer_classes_than_sequences_are_refused() {
    run(2, &ClassificationLabels::Classes(vec![1]));
}
