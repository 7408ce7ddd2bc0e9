//! The masked-language-model head: labelled rows alone, the tied matrix, training from a plain device.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use modernbert::batch::{PackedBatch, int_tensor};
use modernbert::model::{MaskedLm, MaskedTokens};
use modernbert::ops::row_moves;

use crate::reference::Reference;
use crate::toy;
use test_support::{assert_close, autodiff_device, device, ids, read, relative_error, wide};

fn model(tied: bool, device: &Device) -> MaskedLm {
    let mut config = toy::config(3);
    config.tie_word_embeddings = tied;
    let model = toy::build(|device| MaskedLm::new(&config, device).unwrap(), 5, device);
    if tied {
        return model;
    }
    // The untied decoder starts as a copy of the embedding, so that both models compute the same.
    let table = toy::values(&model)["model.embeddings.tok_embeddings.weight"].clone();
    toy::edit(model, |name, values| {
        if name == "decoder.weight" {
            values.copy_from_slice(&table);
        }
    })
}

const LENGTHS: [usize; 3] = [9, 1, 14];
const POSITIONS: [u32; 6] = [0, 3, 9, 12, 13, 23];
const LABELS: [u32; 6] = [4, 36, 0, 7, 7, 20];

fn batch(device: &Device) -> PackedBatch {
    let sequences: Vec<_> = LENGTHS
        .iter()
        .map(|&n| ids(30 + n as u64, n, toy::VOCAB as u32))
        .collect();
    PackedBatch::from_sequences(&sequences, device).unwrap()
}

fn labelled(device: &Device) -> MaskedTokens {
    MaskedTokens::new(&POSITIONS, &LABELS, &[1.0; 6], device)
}

/// The loss with logits at all 24 tokens, of which those without label are ignored.
fn dense_loss(model: &MaskedLm, device: &Device) -> Tensor<1> {
    let logits = model.logits(&batch(device), int_tensor(0..24, device));
    let (mut labels, mut weights) = ([0i32; 24], [0.0f32; 24]);
    for (&position, &label) in POSITIONS.iter().zip(&LABELS) {
        (labels[position as usize], weights[position as usize]) = (label as i32, 1.0);
    }
    let labels = int_tensor(labels.into_iter(), device).reshape([24, 1]);
    let picked = activation::log_softmax(logits, 1)
        .gather(1, labels)
        .reshape([24]);
    -(picked * Tensor::<1>::from_floats(weights, device)).sum()
}

#[test]
fn masked_prediction_equals_the_dense_loss_in_value_and_gradients() {
    let device = autodiff_device();
    let model = model(true, &device);
    let sparse = model.forward(&batch(&device), &labelled(&device)).loss_sum;
    let dense = dense_loss(&model, &device);
    assert_close(
        &read(sparse.clone()),
        &wide(&read(dense.clone())),
        1e-6,
        "loss",
    );
    toy::assert_gradients_close(
        &toy::gradients(&model, &sparse),
        &toy::gradients(&model, &dense),
        1e-5,
    );
}

/// Head and decoder compute the rows of the second gather alone: those of the labelled tokens, and of the padding where a caller fills the
/// number of rows up to a fixed one.
#[test]
fn the_head_computes_as_many_rows_as_there_are_labels() {
    for device in [device(), autodiff_device()] {
        let model = model(true, &device);
        let rows = |masked: &MaskedTokens| {
            let (output, moves) = row_moves(|| model.forward(&batch(&device), masked));
            assert_eq!(output.loss_sum.dims(), [1]);
            assert!(moves.scattered.is_empty());
            moves.gathered
        };
        assert_eq!(rows(&labelled(&device)), [24, 6]);
        let filled = MaskedTokens::new(
            &[&POSITIONS[..], &[0, 0]].concat(),
            &[&LABELS[..], &[0, 0]].concat(),
            &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
            &device,
        );
        assert_eq!(rows(&filled), [24, 8]);
        let one = MaskedTokens::new(&POSITIONS[..1], &LABELS[..1], &[1.0], &device);
        assert_eq!(rows(&one), [24, 1]);
    }
}

#[test]
fn loss_and_hits_equal_a_count_by_hand() {
    let device = device();
    let model = model(true, &device);
    let (config, weights) = (toy::config(3), toy::values(&model));
    let reference = Reference {
        config: &config,
        weights: &weights,
    };
    let logits: Vec<Vec<f64>> = LENGTHS
        .iter()
        .flat_map(|&n| reference.mlm_logits(&ids(30 + n as u64, n, toy::VOCAB as u32)))
        .collect();
    let best = |row: &[f64]| {
        (0..row.len())
            .max_by(|&a, &b| row[a].total_cmp(&row[b]))
            .unwrap() as u32
    };
    // Two of the labels are the model's predictions.
    let mut labels = LABELS;
    for i in [1, 4] {
        labels[i] = best(&logits[POSITIONS[i] as usize]);
    }
    let (mut loss, mut hits) = (0.0, 0.0);
    for (&position, &label) in POSITIONS.iter().zip(&labels) {
        let row = &logits[position as usize];
        loss += row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label as usize];
        hits += f32::from(u8::from(best(row) == label));
    }
    let masked = MaskedTokens::new(&POSITIONS, &labels, &[1.0; 6], &device);
    let output = model.forward(&batch(&device), &masked);
    assert_close(&read(output.loss_sum), &[loss], 1e-5, "loss");
    assert_eq!(read(output.correct), [hits]);
    assert!(hits >= 2.0);
}

#[test]
fn filling_rows_of_weight_zero_change_nothing() {
    let device = autodiff_device();
    let model = model(true, &device);
    let output = model.forward(&batch(&device), &labelled(&device));
    let filled = MaskedTokens::new(
        &[&POSITIONS[..], &[0, 0, 17]].concat(),
        &[&LABELS[..], &[0, 0, 5]].concat(),
        &[&[1.0; 6][..], &[0.0; 3]].concat(),
        &device,
    );
    let filled = model.forward(&batch(&device), &filled);
    assert_close(
        &read(filled.loss_sum.clone()),
        &wide(&read(output.loss_sum.clone())),
        1e-6,
        "loss",
    );
    assert_eq!(read(filled.correct), read(output.correct));
    let (found, expected) = (
        toy::gradients(&model, &filled.loss_sum),
        toy::gradients(&model, &output.loss_sum),
    );
    toy::assert_gradients_close(&found, &expected, 1e-5);
}

#[test]
fn the_gradient_of_a_tied_embedding_is_the_sum_of_both_uses() {
    let device = autodiff_device();
    let grads = [true, false].map(|tied| {
        let model = model(tied, &device);
        let loss = model.forward(&batch(&device), &labelled(&device)).loss_sum;
        toy::gradients(&model, &loss)
    });
    let [tied, untied] = &grads;
    let embedding = "model.embeddings.tok_embeddings.weight";
    let uses = untied[embedding].iter().zip(&untied["decoder.weight"]);
    let sum: Vec<f64> = uses.map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
    assert_close(&tied[embedding], &sum, 1e-6, "tied embedding");
    for part in [embedding, "decoder.weight"] {
        let alone = relative_error(&wide(&untied[part]), &sum);
        assert!(alone > 0.01, "{part} alone must not be the whole gradient");
    }
}

/// The gradients of the crate's ops and Burn's together, against the losses themselves.
#[test]
fn the_gradient_of_every_parameter_is_the_slope_of_the_loss() {
    let config = toy::config(3);
    let model = model(true, &autodiff_device());
    let loss = model
        .forward(&batch(&autodiff_device()), &labelled(&autodiff_device()))
        .loss_sum;
    let grads = toy::gradients(&model, &loss);
    let weights = toy::values(&model);
    // The independent model in f64 allows a small step; at most three elements of each parameter are tried.
    let reference_loss = |weights: &toy::Named| -> f64 {
        let reference = Reference {
            config: &config,
            weights,
        };
        let rows = LENGTHS
            .iter()
            .flat_map(|&n| reference.mlm_logits(&ids(30 + n as u64, n, toy::VOCAB as u32)));
        let rows: Vec<Vec<f64>> = rows.collect();
        let labelled = POSITIONS.iter().zip(&LABELS);
        labelled
            .map(|(&p, &label)| {
                let row = &rows[p as usize];
                row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label as usize]
            })
            .sum()
    };
    for (name, grad) in &grads {
        let largest = grad.iter().fold(0.0f32, |max, g| max.max(g.abs()));
        let strongest = grad.iter().position(|g| g.abs() == largest).unwrap();
        for i in [0, strongest, grad.len() - 1] {
            let step = 1.0 / 1024.0;
            let moved = |step: f32| {
                let mut weights = weights.clone();
                weights.get_mut(name).unwrap()[i] += step;
                (f64::from(weights[name][i]), reference_loss(&weights))
            };
            let ((high, above), (low, below)) = (moved(step), moved(-step));
            let slope = (above - below) / (high - low);
            let error = (slope - f64::from(grad[i])).abs();
            assert!(
                error < 1e-3 * f64::from(largest),
                "{name}[{i}]: slope {slope}, gradient {}",
                grad[i]
            );
        }
    }
}

#[test]
fn a_model_made_on_a_plain_device_trains_after_train() {
    let plain = model(true, &device());
    let trained = plain.clone().train();
    let device = autodiff_device();
    let loss = trained
        .forward(&batch(&device), &labelled(&device))
        .loss_sum;
    let direct = model(true, &device);
    let expected = toy::gradients(
        &direct,
        &direct.forward(&batch(&device), &labelled(&device)).loss_sum,
    );
    toy::assert_gradients_close(&toy::gradients(&trained, &loss), &expected, 1e-5);
}
