//! A model that learns memorizes 64 rows: from the task's files to its metrics, through the public API.
//!
//! The rows are the first of the official training set where `MODERNBERT_DATA` names a folder with `glue/`, else random
//! words with random labels, in which there is nothing to learn but the rows themselves.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod common;

use modernbert::config::ModernBertConfig;
use modernbert::model::{SequenceClassifier, initialize};
use modernbert::tokenizer::{TrainOptions, train::train};
use modernbert_glue::data::TaskData;
use modernbert_glue::metrics::{Metrics, Prediction, evaluate};
use modernbert_glue::task::Task;
use modernbert_train::engine::Progress;
use modernbert_train::finetune::{DevScore, FinetuneOptions, Finetuning, Sample, encode, predict};
use std::path::PathBuf;

/// Rows to learn.
const ROWS: usize = 64;
/// Rows whose words the tokenizer is learned from.
const TEXTS: usize = 500;
/// Longest input; a few premises of RTE are longer and are cut.
const MAX_LENGTH: usize = 96;
const BATCH: usize = 16;
/// Score from which on a model has memorized its training set.
const LEARNED: f64 = 0.95;

/// The scores of a small fresh model on the first rows of a task before and after it was trained on them.
fn overfit(task: Task) -> (Metrics, Metrics) {
    let work = tempfile::tempdir().unwrap();
    let official = std::env::var_os("MODERNBERT_DATA").map(|data| PathBuf::from(data).join("glue"));
    let glue = official.unwrap_or_else(|| {
        println!("MODERNBERT_DATA not set: {task} from generated rows");
        let glue = work.path().join("glue");
        common::write_task(&glue, task, TEXTS, 8);
        glue
    });
    let data = TaskData::load(&glue, task).unwrap();
    let texts = data.train.examples[..TEXTS]
        .iter()
        .flat_map(|row| [Some(row.text_a.as_str()), row.text_b.as_deref()])
        .flatten();
    let options = TrainOptions {
        vocab_size: 1024,
        ..TrainOptions::default()
    };
    let tokenizer = train(texts, &options).unwrap();

    let mut rows = data.train;
    rows.truncate(ROWS);
    let samples: Vec<Sample> = encode(&tokenizer, &rows.texts(), MAX_LENGTH)
        .unwrap()
        .samples;

    let mut config = ModernBertConfig::of_shape(2, 64, 96, 2);
    config.vocab_size = tokenizer.vocab_size();
    config.max_position_embeddings = MAX_LENGTH;
    config.pad_token_id = Some(tokenizer.special().pad);
    config.initializer_range = 0.07;
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = SequenceClassifier::new(&config, task.num_outputs(), &device).unwrap();
    let model = initialize(model, &config, 5);

    let sequences: Vec<&[u32]> = samples.iter().map(|sample| sample.ids.as_slice()).collect();
    let score = |model: &SequenceClassifier| {
        let predictions: Vec<Prediction> = predict(model, &sequences)
            .unwrap()
            .iter()
            .map(|outputs| Prediction::from_outputs(task, outputs).unwrap())
            .collect();
        evaluate(task, &predictions, &rows.labels()).unwrap()
    };
    let before = score(&model);
    let options = FinetuneOptions {
        epochs: 40,
        batch_size: BATCH,
        learning_rate: 2e-3,
        weight_decay: 1e-6,
        warmup: 0.1,
        seed: 3,
        label: task.name().to_string(),
        ..FinetuneOptions::default()
    };
    // Every evaluation has a better score than the previous one, so that the last weights are the result.
    let mut count = 0.0;
    let rising = move |_: &[Vec<f32>]| {
        count += 1.0;
        Ok(DevScore::of("scoring", count))
    };
    let dev = samples[..BATCH].to_vec();
    let mut finetuning = Finetuning::new(samples.clone(), dev, options, rising);
    finetuning.progress = Progress::Silent;
    let model = finetuning.run(model).unwrap().model;
    let after = score(&model);
    println!("{task}: {before} -> {after}");
    (before, after)
}

fn assert_learned(task: Task, metrics: &[&str]) {
    let (before, after) = overfit(task);
    for metric in metrics {
        let score = after.get(metric).unwrap();
        assert!(score >= LEARNED, "{task}: {metric} is {score}");
        // Else the rows would be of one label, or the scores of something else.
        let fresh = before.get(metric).unwrap_or(0.0);
        assert!(
            fresh < LEARNED,
            "{task}: {metric} of a fresh model is {fresh}"
        );
    }
}

#[test]
fn cola_is_learned_by_heart_to_a_matthews_correlation_of_095() {
    assert_learned(Task::Cola, &["matthews"]);
}

#[test]
fn rte_is_learned_by_heart_to_an_accuracy_of_095() {
    assert_learned(Task::Rte, &["accuracy"]);
}

#[test]
fn stsb_is_learned_by_heart_to_both_correlations_of_095() {
    assert_learned(Task::Stsb, &["pearson", "spearman"]);
}
