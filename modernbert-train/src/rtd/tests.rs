#![allow(clippy::unwrap_used)] // a test may fail loudly

use burn::tensor::Tensor;
use burn::train::Interrupter;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::{
    Cadence, EvaluationError, Loop, LoopSettings, Progress, ProgressUnit, Reporter,
    ReporterOptions, Task,
};
use crate::loader::{LoaderOptions, TrainLoader, TrainStream};
use crate::mask::Masker;
use crate::optim::{NamedOptimizer, StableAdamWConfig};
use crate::schedule::{LearningRate, Schedule, TokenSpan};
use crate::shard::{Shard, ShardWriter, TokenizerHash};
use crate::snapshot::RunState;
use crate::snapshot::tests::small_config;

const VOCAB: usize = 64;

/// Rows of samples that count upward: a replaced token is out of order.
fn stream() -> TrainStream {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.tokens");
    let mut writer = ShardWriter::create(&path, VOCAB, TokenizerHash([0; 32])).unwrap();
    for (i, length) in [20, 30, 9, 12, 17, 24, 28, 15].into_iter().enumerate() {
        let sample: Vec<u32> = (0..length).map(|j| 10 + (i * 7 + j) as u32 % 50).collect();
        writer.push(&sample).unwrap();
    }
    writer.commit().unwrap();
    let options = LoaderOptions {
        row_length: 64,
        micro_batches: 2,
        pad_id: 3,
        seed: 5,
        sequences: None,
        length_warmup: None,
    };
    let masker = Masker::from_ids(0.3, 4, 3, VOCAB as u32, vec![]).unwrap();
    let shard = Arc::new(Shard::open(&path).unwrap());
    TrainStream::new(shard, masker, options).unwrap()
}

/// A generator of one layer, which stays weak, and a discriminator of four.
fn model(device: &Device) -> RtdModel {
    let generator = ModernBertConfig {
        num_hidden_layers: 1,
        layer_types: ModernBertConfig::of_shape(1, 16, 16, 2).layer_types,
        ..small_config(VOCAB)
    };
    // The published deviation of 0.02 is that of a width of 768; see `model.initializer_range` of a recipe.
    let discriminator = ModernBertConfig {
        hidden_size: 32,
        intermediate_size: 32,
        initializer_range: 0.1,
        ..small_config(VOCAB)
    };
    RtdModel::new(&generator, &discriminator, 11, device).unwrap()
}

fn task(held_out: Vec<MlmItem>) -> RtdTask {
    RtdTask {
        rows: TrainLoader::new(stream(), 1).rows(),
        micro_batches: 2,
        held_out,
        weight: RtdTask::WEIGHT,
        seed: 3,
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let values: Vec<f32> = tensor.into_data().try_to_vec().unwrap();
    values.into_iter().map(f64::from).collect()
}

#[test]
fn draws_are_those_of_the_inverse_distribution_in_f64() {
    let device = test_support::device();
    let (rows, vocab) = (200, 7);
    let logits: Vec<f32> = (0..rows * vocab)
        .map(|i| 2.0 * (i as f32 * 0.7).sin())
        .collect();
    let uniforms: Vec<f32> = (0..rows).map(|i| uniform(1, 2, i as u64) as f32).collect();
    let tensor = Tensor::<1>::from_floats(logits.as_slice(), &device).reshape([rows, vocab]);
    let drawn = draw(tensor, &uniforms).unwrap();
    let mut counts = [0; 7];
    for (row, &drawn) in drawn.iter().enumerate() {
        let exps: Vec<f64> = logits[row * vocab..][..vocab]
            .iter()
            .map(|&x| f64::from(x).exp())
            .collect();
        let total: f64 = exps.iter().sum();
        let below: f64 = exps[..drawn as usize].iter().sum::<f64>() / total;
        let above = below + exps[drawn as usize] / total;
        let uniform = f64::from(uniforms[row]);
        assert!(
            below - 1e-6 <= uniform && uniform < above + 1e-6,
            "row {row}"
        );
        counts[drawn as usize] += 1;
    }
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    // The same key draws the same number, another one another.
    assert_eq!(uniform(1, 2, 3), uniform(1, 2, 3));
    let others = [
        uniform(2, 2, 3),
        uniform(1, 3, 3),
        uniform(1, 2, 4),
        uniform(1, 2, 3),
    ];
    for (i, one) in others.iter().enumerate() {
        assert!((0.0..1.0).contains(one) && others[..i].iter().all(|other| other != one));
    }
    let mean = (0..10_000).map(|i| uniform(9, 9, i)).sum::<f64>() / 1e4;
    assert!((mean - 0.5).abs() < 0.01, "{mean}");
    // A probability of 1 is drawn by every number.
    let sure = Tensor::<2>::from_floats([[-200.0, 200.0, -200.0]; 2], &device);
    assert_eq!(draw(sure, &[0.0, 0.999_999_9]).unwrap(), [1, 1]);
}

#[test]
fn a_drawn_token_that_is_the_original_is_not_replaced() {
    let item = stream().steps().unwrap().next_row().unwrap();
    assert!(item.labelled >= 4);
    let originals = &item.labels.labels[..item.labelled];
    let mut drawn = originals.to_vec();
    drawn[1] = (originals[1] + 1) % VOCAB as u32;
    drawn[3] = (originals[3] + 5) % VOCAB as u32;
    let corrupted = corrupt(&item, &drawn);
    assert_eq!(corrupted.replaced.len(), item.real_tokens);
    let replaced: Vec<usize> = (0..item.real_tokens)
        .filter(|&i| corrupted.replaced[i])
        .collect();
    let expected = [1, 3].map(|label| item.labels.positions[label] as usize);
    assert_eq!(replaced, expected);
    for (label, &position) in item.labels.positions[..item.labelled].iter().enumerate() {
        assert_eq!(corrupted.ids[position as usize], drawn[label]);
    }
}

/// Both losses of a row and of a step from the models' scores, in f64.
#[test]
fn losses_equal_their_definition_in_f64() {
    let device = test_support::device();
    let model = model(&device);
    let items: Vec<MlmItem> = stream().steps().unwrap().next_step().unwrap();
    let (mut total, mut tokens, mut labelled, mut right, mut replaced) = ([0.0; 2], 0, 0, 0, 0);
    for item in &items {
        let batch = |ids: &[u32]| PackedBatch::new(ids, item.layout.clone(), &device);
        let places = item.labels.positions.iter().map(|&place| place as i32);
        let logits = model
            .generator
            .logits(&batch(&item.input_ids), int_tensor(places, &device));
        let uniforms: Vec<f32> = (0..item.labels.positions.len())
            .map(|label| uniform(3, item.row, label as u64) as f32)
            .collect();
        let drawn = draw(logits.clone(), &uniforms).unwrap();
        let corrupted = corrupt(item, &drawn);
        let scores = values(model.discriminator.logits(&batch(&corrupted.ids)));
        let rows = values(logits);
        let generator: f64 = rows
            .chunks(VOCAB)
            .zip(&item.labels.labels)
            .take(item.labelled)
            .map(|(row, &label)| {
                row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label as usize]
            })
            .sum();
        let discriminator: f64 = scores
            .iter()
            .zip(&corrupted.replaced)
            .map(|(x, &replaced)| {
                let probability = 1.0 / (1.0 + (-x).exp());
                -if replaced {
                    probability
                } else {
                    1.0 - probability
                }
                .ln()
            })
            .sum();
        right += scores
            .iter()
            .zip(&corrupted.replaced)
            .filter(|(x, replaced)| (**x > 0.0) == **replaced)
            .count();
        let found = model.losses(item, 3).unwrap();
        let close = |found: Tensor<1>, expected: f64| {
            let found = values(found)[0];
            assert!(
                (found - expected).abs() < 1e-5 * expected,
                "{found} {expected}"
            );
        };
        close(found.generator, generator);
        close(found.discriminator, discriminator);
        replaced += found.replaced;
        total[0] += generator;
        total[1] += discriminator;
        tokens += item.real_tokens;
        labelled += item.labelled;
    }
    assert!(
        replaced > 10 && replaced < labelled + 1,
        "{replaced} of {labelled}"
    );
    let expected = total[0] / labelled as f64 + 50.0 * total[1] / tokens as f64;

    // The step of the loop has this loss, and gradients in both models.
    let mut task = task(items);
    let model = self::model(&test_support::autodiff_device());
    let batches = task.next_step(&RunState::default(), 0).unwrap().unwrap();
    let counts = task.counts(&batches);
    assert_eq!(
        (counts.tokens, counts.weight, counts.rows),
        (tokens as u64, 1, 2)
    );
    let (sums, gradients) = task.step(&model, batches);
    let found: f64 = sums.into_iter().map(|sums| values(sums.loss)[0]).sum();
    assert!(
        (found - expected).abs() < 1e-5 * expected,
        "{found} {expected}"
    );
    let squares = crate::optim::GradientSquares::of(&model, &gradients);
    let sums = values(squares.sums.unwrap());
    for part in ["generator.", "discriminator."] {
        let names = squares
            .names
            .iter()
            .zip(&sums)
            .filter(|(name, _)| name.starts_with(part));
        let (count, moved) = names.fold((0, 0), |(count, moved), (_, &sum)| {
            (count + 1, moved + usize::from(sum > 0.0))
        });
        assert!(count > 5 && moved == count, "{part} {moved} of {count}");
    }
    // The evaluation is that of all rows.
    let found = task.evaluate(&model.valid(), 0).unwrap();
    assert!((found.loss.unwrap() - total[1] / tokens as f64).abs() < 1e-5);
    assert_eq!(found.accuracy, Some(right as f64 / tokens as f64));
    assert_eq!(found.items, tokens);
}

/// The entropy of a share: the loss of the best constant score.
fn entropy(share: f64) -> f64 {
    -share * share.ln() - (1.0 - share) * (1.0 - share).ln()
}

#[test]
fn the_discriminators_loss_falls_on_a_toy_run() -> Result<(), EvaluationError> {
    let held_out: Vec<MlmItem> = stream().steps().unwrap().next_step().unwrap();
    let steps = 200;
    let settings = LoopSettings {
        cadence: Cadence {
            unit: ProgressUnit::Steps,
            evaluate_every: steps,
            log_every: 50,
            log_before_evaluation: false,
            read_every: 10,
            save_every_steps: None,
            save_every: None,
            evaluate_before_save: false,
            time_limit: None,
        },
        learning_rate: LearningRate {
            peak: 5e-3,
            schedule: Schedule::Constant {
                warmup_tokens: TokenSpan::Fraction(0.1),
            },
            margin: 0,
        },
        max_grad_norm: None,
        spikes: None,
        patience: None,
        saves: false,
        peak_flops: None,
    };
    let interrupter = Interrupter::new();
    let reporter = Reporter::new::<RtdTask>(
        ReporterOptions {
            progress: Progress::Silent,
            title: String::new(),
            prefix: String::new(),
            suffix: None,
            unit: ProgressUnit::Steps,
            evaluations: 1,
            line_every: Duration::ZERO,
            log: None,
            has_mfu: false,
            skips_spikes: false,
        },
        &interrupter,
    );
    let state = RunState {
        phase_total: steps,
        next_evaluation: steps,
        ..RunState::default()
    };
    let model = model(&test_support::device());
    let before = task(held_out.clone()).evaluate(&model, 0)?;
    let optimizer = NamedOptimizer::new(StableAdamWConfig::new(5e-3));
    let training = Loop::new(
        task(held_out),
        settings,
        (optimizer, state),
        reporter,
        interrupter,
    );
    let mut outcome = training
        .run(model)
        .map_err(|failure| failure.error)
        .unwrap();
    let after = outcome.task.evaluate(&outcome.model, steps)?;
    let share = |evaluation: &crate::engine::Evaluation| evaluation.metrics[1].1.unwrap();
    // An untrained discriminator is near a constant, a trained one well below the best constant.
    let (first, last) = (before.loss.unwrap(), after.loss.unwrap());
    assert!(
        last < 0.6 * entropy(share(&after)),
        "{first} {last} {}",
        share(&after)
    );
    assert!(last < 0.5 * first, "{first} {last}");
    assert!(after.accuracy.unwrap() > 1.0 - share(&after), "{after:?}");
    // The generator learns, too.
    assert!(after.metrics[0].1 < before.metrics[0].1);
    Ok(())
}
