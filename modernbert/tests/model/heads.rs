//! Token classification, question answering and multiple choice: outputs, losses, gradients, labels that don't fit.

use burn::tensor::{Device, Tensor};
use modernbert::batch::{PackedBatch, Unpadded};
use modernbert::config::{Activation, ModernBertConfig, Pooling};
use modernbert::model::{
    ClassificationLabels, LabelError, ModernBert, MultipleChoice, QuestionAnswerer, SpanLabels,
    TokenClassifier,
};
use proptest::prelude::*;

use crate::reference::{Reference, Rows, pooled};
use crate::toy;
use test_support::{assert_close, autodiff_device, bits, device, ids, normals, read, tensor, wide};

const LENGTHS: [usize; 4] = [4, 1, 11, 6];

fn sequences() -> Vec<Vec<u32>> {
    LENGTHS
        .map(|length| ids(60 + length as u64, length, toy::VOCAB as u32))
        .to_vec()
}

fn batch(device: &Device) -> PackedBatch {
    PackedBatch::from_sequences(&sequences(), device).unwrap()
}

fn tokens(config: &ModernBertConfig, device: &Device) -> TokenClassifier {
    toy::build(|d| TokenClassifier::new(config, 3, d).unwrap(), 8, device)
}

fn spans(config: &ModernBertConfig, device: &Device) -> QuestionAnswerer {
    toy::build(|d| QuestionAnswerer::new(config, d).unwrap(), 9, device)
}

fn choices(config: &ModernBertConfig, device: &Device) -> MultipleChoice {
    toy::build(|d| MultipleChoice::new(config, d).unwrap(), 10, device)
}

/// Outputs of the independent model for every token of every sequence.
fn expected(config: &ModernBertConfig, weights: &toy::Named) -> Vec<Rows> {
    let reference = Reference { config, weights };
    let all = sequences();
    all.iter().map(|ids| reference.token_logits(ids)).collect()
}

/// `-log softmax(row)[class]`.
fn surprise(row: &[f64], class: usize) -> f64 {
    row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[class]
}

#[test]
fn token_outputs_and_loss_equal_the_independent_model() {
    let config = toy::config(2);
    let model = tokens(&config, &device());
    let rows: Rows = expected(&config, &toy::values(&model)).concat();
    let labels: Vec<Option<u32>> = (0..rows.len() as u32)
        .map(|i| (i % 4 != 0).then_some(i % 3))
        .collect();
    let output = model.forward(&batch(&device()), &labels).unwrap();
    assert_eq!(output.logits.dims(), [22, 3]);
    assert_close(&read(output.logits), &rows.concat(), 1e-5, "outputs");
    let losses: Vec<f64> = rows
        .iter()
        .zip(&labels)
        .filter_map(|(row, label)| label.map(|label| surprise(row, label as usize)))
        .collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert_close(&read(output.loss), &[mean], 1e-5, "loss");
}

#[test]
fn tokens_without_labels_have_no_loss() {
    let model = tokens(&toy::config(1), &device());
    let output = model.forward(&batch(&device()), &[None; 22]).unwrap();
    assert_eq!(read(output.loss), [0.0]);
    let empty = PackedBatch::from_sequences::<Vec<u32>>(&[], &device()).unwrap();
    assert_eq!(model.logits(&empty).dims(), [0, 3]);
}

#[test]
fn span_scores_and_loss_equal_the_independent_model() {
    let config = toy::config(2);
    let model = spans(&config, &device());
    let rows = expected(&config, &toy::values(&model));
    let labels = SpanLabels {
        starts: vec![Some(1), Some(0), None, Some(5)],
        ends: vec![Some(3), Some(0), Some(10), None],
    };
    let output = model.forward(&batch(&device()), &labels).unwrap();
    let channel = |i: usize| -> Vec<Vec<f64>> {
        let of = |rows: &Rows| rows.iter().map(|row| row[i]).collect();
        rows.iter().map(of).collect()
    };
    let (starts, ends) = (channel(0), channel(1));
    assert_close(&read(output.logits.start), &starts.concat(), 1e-5, "starts");
    assert_close(&read(output.logits.end), &ends.concat(), 1e-5, "ends");
    let mean = |scores: &[Vec<f64>], positions: &[Option<u32>]| {
        let losses: Vec<f64> = scores
            .iter()
            .zip(positions)
            .filter_map(|(row, position)| position.map(|p| surprise(row, p as usize)))
            .collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let loss = (mean(&starts, &labels.starts) + mean(&ends, &labels.ends)) / 2.0;
    assert_close(&read(output.loss), &[loss], 1e-5, "loss");
}

#[test]
fn choices_are_scored_alone_and_compete_within_their_question() {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let mut config = toy::config(2);
        config.classifier_pooling = pooling;
        let model = choices(&config, &device());
        let weights = toy::values(&model);
        let reference = Reference {
            config: &config,
            weights: &weights,
        };
        let pool = |rows: &Rows| pooled(rows, pooling);
        let scores: Vec<f64> = sequences()
            .iter()
            .flat_map(|ids| reference.class_logits(ids, pool))
            .collect();
        let output = model.forward(&batch(&device()), 2, &[1, 0]).unwrap();
        assert_eq!(output.logits.dims(), [2, 2]);
        assert_close(&read(output.logits), &scores, 1e-5, pooling.name());
        let loss = (surprise(&scores[..2], 1) + surprise(&scores[2..], 0)) / 2.0;
        assert_close(&read(output.loss), &[loss], 1e-5, "loss");
    }
}

#[test]
fn padded_choices_are_flattened_question_by_question() {
    let model = choices(&toy::config(2), &device());
    // [2 questions, 2 choices, 11 tokens], padded left for the first question and right for the second.
    let (mut padded, mut mask) = (vec![0u32; 4 * 11], vec![false; 4 * 11]);
    for (row, ids) in sequences().iter().enumerate() {
        let shift = if row < 2 { 11 - ids.len() } else { 0 };
        padded[row * 11 + shift..][..ids.len()].copy_from_slice(ids);
        mask[row * 11 + shift..][..ids.len()].fill(true);
    }
    let unpadded = Unpadded::new(&padded, &mask, 4, 11).unwrap();
    let packed = PackedBatch::new(&unpadded.ids, unpadded.layout.clone(), &device());
    let found = read(model.logits(&packed, 2).unwrap());
    let direct = read(model.logits(&batch(&device()), 2).unwrap());
    assert_eq!(bits(&found), bits(&direct));
}

fn assert_reaches(grads: &toy::Named, what: &str) {
    for (name, grad) in grads {
        assert!(grad.iter().all(|g| g.is_finite()), "{what}: {name}");
        assert!(
            grad.iter().any(|&g| g != 0.0),
            "{what}: {name} has no gradient"
        );
    }
}

/// Takes out the gradients that are zero by definition where a softmax runs over choices or positions.
///
/// A number added to every score changes no probability; the norm's bias adds the same one through the classifier. The
/// computed gradients are rounding errors, exactly 0 on some processors.
fn assert_shifts_nothing(grads: &mut toy::Named) {
    for name in ["classifier.bias", "head.norm.bias"] {
        let shift = grads.remove(name).unwrap();
        assert!(shift.iter().all(|g| g.abs() < 1e-6), "{name}: {shift:?}");
    }
}

#[test]
fn every_loss_reaches_every_parameter() {
    let mut config = toy::config(2);
    (config.attention_bias, config.mlp_bias) = (true, true);
    (config.norm_bias, config.classifier_bias) = (true, true);
    let device = autodiff_device();
    let batch = batch(&device);
    let model = tokens(&config, &device);
    let labels: Vec<Option<u32>> = (0..22).map(|i| Some(i % 3)).collect();
    let loss = model.forward(&batch, &labels).unwrap().loss;
    assert_reaches(&toy::gradients(&model, &loss), "tokens");

    let model = spans(&config, &device);
    let labels = SpanLabels {
        starts: vec![Some(0), None, Some(2), Some(5)],
        ends: vec![Some(3), None, Some(9), Some(5)],
    };
    let loss = model.forward(&batch, &labels).unwrap().loss;
    let mut grads = toy::gradients(&model, &loss);
    assert_shifts_nothing(&mut grads);
    assert_reaches(&grads, "spans");

    for pooling in [Pooling::Cls, Pooling::Mean] {
        config.classifier_pooling = pooling;
        let model = choices(&config, &device);
        let loss = model.forward(&batch, 2, &[0, 1]).unwrap().loss;
        let mut grads = toy::gradients(&model, &loss);
        assert_shifts_nothing(&mut grads);
        assert_reaches(&grads, "choices");
    }
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let config = toy::config(1);
    let batch = batch(&device());
    let model = tokens(&config, &device());
    assert!(matches!(
        model.forward(&batch, &[None; 21]),
        Err(LabelError::Count {
            unit: "tokens",
            expected: 22,
            found: 21
        })
    ));
    let mut labels = [None; 22];
    labels[7] = Some(3);
    assert!(matches!(
        model.forward(&batch, &labels),
        Err(LabelError::Class {
            index: 7,
            class: 3,
            classes: 3
        })
    ));
    let model = spans(&config, &device());
    let labels = |end: u32| SpanLabels {
        starts: vec![None; 4],
        ends: vec![None, Some(end), None, None],
    };
    assert!(model.forward(&batch, &labels(0)).is_ok());
    let message = model.forward(&batch, &labels(1)).unwrap_err().to_string();
    assert!(
        message.contains("end of span 1 is token 1 of a sequence of 1"),
        "{message}"
    );
    assert!(matches!(
        model.forward(&batch, &SpanLabels::default()),
        Err(LabelError::Count { .. })
    ));
    let model = choices(&config, &device());
    for count in [0, 3] {
        assert!(matches!(
            model.logits(&batch, count),
            Err(LabelError::Choices { sequences: 4, .. })
        ));
    }
    assert!(matches!(
        model.forward(&batch, 2, &[0, 2]),
        Err(LabelError::Class { index: 1, .. })
    ));
    assert!(matches!(
        model.forward(&batch, 2, &[0]),
        Err(LabelError::Count { .. })
    ));
    assert!(
        ClassificationLabels::Classes(vec![0, 2])
            .check(2, 2)
            .is_err()
    );
    assert!(ClassificationLabels::Scores(vec![0.5]).check(2, 1).is_err());
    assert!(
        ClassificationLabels::MultiLabel(vec![1.0; 6])
            .check(2, 3)
            .is_ok()
    );
}

/// Derivative of every activation without a kink against a difference quotient, through an MLP and a head.
#[test]
fn every_smooth_activation_derives() {
    for name in Activation::names() {
        let kind = Activation::from_name(name).unwrap();
        // A difference quotient across a kink is no slope.
        let kinks = [
            "relu",
            "relu6",
            "leaky_relu",
            "prelu",
            "rrelu",
            "threshold",
            "selu",
            "hardswish",
            "hardsigmoid",
            "hardtanh",
            "hardshrink",
            "softshrink",
        ];
        if kinks.contains(&name) {
            continue;
        }
        let mut config = toy::config(1);
        (config.hidden_activation, config.classifier_activation) = (kind, kind);
        let device = autodiff_device();
        let model = tokens(&config, &device);
        let batch = batch(&device);
        let weights: Tensor<2> = tensor(&normals(3, 66), [22, 3], &device);
        let objective = |model: &TokenClassifier| (model.logits(&batch) * weights.clone()).sum();
        let grads = toy::gradients(&model, &objective(&model));
        let direction = normals(4, 2 * 12 * 16);
        let moved = |step: f32| {
            let moved = toy::edit(model.clone(), |name, values| {
                if name == "model.layers.0.mlp.Wi.weight" {
                    for (value, d) in values.iter_mut().zip(&direction) {
                        *value += step * d;
                    }
                }
            });
            f64::from(read(objective(&moved))[0])
        };
        let step = 1e-3;
        let quotient = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        let slope: f64 = wide(&grads["model.layers.0.mlp.Wi.weight"])
            .iter()
            .zip(&direction)
            .map(|(g, d)| g * f64::from(*d))
            .sum();
        let scale = slope.abs().max(1.0);
        assert!(
            (slope - quotient).abs() < 0.02 * scale,
            "{name}: {slope} against {quotient}"
        );
    }
}

#[test]
fn hidden_states_end_in_the_encoder_output() {
    let config = toy::config(3);
    let model = toy::build(|d| ModernBert::new(&config, d).unwrap(), 1, &device());
    let states = model.hidden_states(&batch(&device()));
    assert_eq!(states.len(), 4);
    let last = read(model.forward(&batch(&device())));
    assert_eq!(bits(&read(states[3].clone())), bits(&last));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any composition of a batch gives each sequence's tokens the same outputs and shapes.
    #[test]
    fn token_outputs_do_not_depend_on_neighbours(lengths in prop::collection::vec(0usize..9, 1..5)) {
        let model = tokens(&toy::config(2), &device());
        let rows: Vec<Vec<u32>> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| ids(i as u64, length, toy::VOCAB as u32))
            .collect();
        let together = model.logits(&PackedBatch::from_sequences(&rows, &device()).unwrap());
        prop_assert_eq!(together.dims(), [lengths.iter().sum(), 3]);
        let mut alone = Vec::new();
        for row in &rows {
            let batch = PackedBatch::from_sequences(&[row], &device()).unwrap();
            alone.extend(read(model.logits(&batch)));
        }
        for (a, b) in read(together).iter().zip(alone) {
            prop_assert!((a - b).abs() < 1e-5);
        }
    }
}
