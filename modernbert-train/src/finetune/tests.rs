#![allow(clippy::unwrap_used)]
use super::predict::predict_in_batches;
use super::*;
use crate::engine::Progress;
use crate::saving::{Saving, SavingError, has_checkpoints, remove_checkpoints};
use modernbert::config::ModernBertConfig;
use modernbert::model::SequenceClassifier;
use modernbert::model::initialize;
use std::sync::{Arc, Mutex};

fn samples(lengths: &[usize]) -> Vec<Sample> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &length)| Sample {
            ids: vec![i as u32; length],
            second: length,
            target: Target::Class(i as u32 % 2),
        })
        .collect()
}

/// Micro-batches of training have a key of their own each, over all epochs.
#[test]
fn every_micro_batch_has_its_own_dropout_key() {
    let lengths: Vec<usize> = (0..40).map(|i| 1 + i % 7).collect();
    for micro_batches in [1, 3] {
        let mut batches = Batches::new(samples(&lengths), 8, micro_batches, 3);
        let mut keys: Vec<(u64, u64)> = (0..10)
            .flat_map(|step| batches.after(step))
            .map(|batch| batch.dropout_key)
            .collect();
        assert!(keys.iter().all(|&(seed, _)| seed == 3));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 10 * micro_batches);
    }
}

#[test]
fn micro_batches_share_the_sequences_of_a_step() {
    let mut whole = Batches::new(samples(&[3; 20]), 8, 1, 7);
    let mut cut = Batches::new(samples(&[3; 20]), 8, 3, 7);
    for step in 0..6 {
        let (one, several) = (whole.after(step), cut.after(step));
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].share, 1.0);
        let ids: Vec<_> = several.iter().flat_map(Batch::sequences).collect();
        assert_eq!(ids, one[0].sequences());
        let shares: f64 = several.iter().map(|batch| batch.share).sum();
        assert!((shares - 1.0).abs() < 1e-12, "{shares}");
    }
}

#[test]
fn a_batch_of_any_size_has_every_sample() {
    for size in [21, usize::MAX / 2, usize::MAX] {
        let mut batches = Batches::new(samples(&[3; 20]), size, 1, 7);
        assert_eq!(batches.per_epoch(), 1);
        assert_eq!(batches.after(0)[0].examples.len(), 20);
    }
}

#[test]
fn every_sample_comes_once_an_epoch_and_in_another_order_each_time() {
    let lengths: Vec<usize> = (0..97).map(|i| 1 + i * 7 % 31).collect();
    let epoch = |seed: u64, epoch: u64| -> Vec<u32> {
        let mut batches = Batches::new(samples(&lengths), 8, 1, seed);
        let steps = batches.per_epoch();
        assert_eq!(steps, 13);
        (epoch * steps..(epoch + 1) * steps)
            .flat_map(|step| batches.after(step))
            .flat_map(|batch| batch.examples)
            .map(|sample| sample.ids[0])
            .collect()
    };
    let (first, second) = (epoch(3, 0), epoch(3, 1));
    assert_ne!(first, second);
    for mut ids in [first.clone(), second] {
        ids.sort_unstable();
        assert_eq!(ids, (0..97).collect::<Vec<u32>>());
    }
    assert_eq!(first, epoch(3, 0));
    assert_ne!(first, epoch(4, 0));
}

#[test]
fn the_rate_rises_falls_and_is_never_zero() {
    let options = FinetuneOptions {
        learning_rate: 1.0,
        warmup: 0.1,
        ..FinetuneOptions::default()
    };
    let rates: Vec<f64> = (1..=100).map(|step| options.rate().at(step, 100)).collect();
    assert!(
        rates.iter().all(|&rate| rate > 0.0 && rate <= 1.0),
        "{rates:?}"
    );
    let peak = (0..100)
        .max_by(|&a, &b| rates[a].total_cmp(&rates[b]))
        .unwrap();
    assert!((8..12).contains(&peak), "{peak}");
    assert!(rates[99] < 0.02);
}

#[test]
fn predictions_keep_the_order_of_the_sequences() {
    let mut config = ModernBertConfig::of_shape(2, 32, 48, 2);
    config.vocab_size = 128;
    config.pad_token_id = None;
    let device = test_support::device();
    let model = SequenceClassifier::new(&config, 2, &device).unwrap();
    let model = initialize(model, &config, 1);
    let samples = samples(&[9, 2, 30, 4, 17]);
    let rows: Vec<&[u32]> = samples.iter().map(|sample| sample.ids.as_slice()).collect();
    let together = predict_in_batches(&model, &rows, 40, &mut |_| {}).unwrap();
    for (row, outputs) in rows.iter().zip(&together) {
        let alone = predict(&model, &[row]).unwrap();
        for (a, b) in alone[0].iter().zip(outputs) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

fn tiny(outputs: usize) -> SequenceClassifier {
    let mut config = ModernBertConfig::of_shape(1, 16, 24, 2);
    config.vocab_size = 128;
    config.pad_token_id = None;
    config.initializer_range = 0.2;
    let model = SequenceClassifier::new(&config, outputs, &test_support::device()).unwrap();
    initialize(model, &config, 1)
}

fn options(learning_rate: f64) -> FinetuneOptions {
    FinetuneOptions {
        epochs: 4,
        batch_size: 8,
        learning_rate,
        evaluate_every: Some(2),
        label: "toy".to_string(),
        ..FinetuneOptions::default()
    }
}

/// Finetunes on 32 short sequences with these main scores of the evaluations; the outputs of each evaluation are kept.
fn run_with(
    options: FinetuneOptions,
    scores: &'static [Option<f64>],
) -> (Result<Finetuned, FinetuneError>, Vec<Vec<Vec<f32>>>) {
    let lengths: Vec<usize> = (0..32).map(|i| 2 + i * 5 % 7).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let score = move |outputs: &[Vec<f32>]| {
        let mut seen = keep.lock().unwrap();
        let main = scores.get(seen.len()).copied().flatten();
        seen.push(outputs.to_vec());
        Ok(DevScore {
            main,
            metrics: vec![("toy".to_string(), main)],
        })
    };
    let dev = samples(&[3, 9, 4]);
    let mut finetuning = Finetuning::new(samples(&lengths), dev, options, score);
    finetuning.progress = Progress::Silent;
    let result = finetuning.run(tiny(2));
    let outputs = seen.lock().unwrap().clone();
    (result, outputs)
}

/// Dropout after the attention output projection alone, as the authors finetune: the config's rate would drop probabilities as well.
#[test]
fn the_attention_output_is_dropped_without_the_probabilities() {
    static SCORES: [Option<f64>; 8] = [Some(0.5); 8];
    let dropping = |rate| FinetuneOptions {
        attention_output_dropout: rate,
        ..options(1e-3)
    };
    let config = ModernBertConfig::of_shape(1, 16, 24, 2);
    let rates = dropping(Some(0.1)).dropout_rates(&config);
    assert_eq!(rates.attention_output, 0.1);
    assert_eq!(rates.attention_probabilities, 0.0);
    let mut tied = config;
    tied.attention_dropout = 0.2;
    let rates = dropping(None).dropout_rates(&tied);
    assert_eq!(
        (rates.attention_output, rates.attention_probabilities),
        (0.2, 0.2)
    );

    let losses = |rate| run_with(dropping(rate), &SCORES).0.unwrap().losses;
    let (without, with) = (losses(None), losses(Some(0.3)));
    assert_ne!(without, with);
    assert_eq!(with, losses(Some(0.3)));
    assert_eq!(without, losses(Some(0.0)));
    let message = run_with(dropping(Some(1.0)), &SCORES)
        .0
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("attention_output_dropout is 1"),
        "{message}"
    );
}

#[test]
fn the_best_weights_come_back_and_not_the_last_ones() {
    static SCORES: [Option<f64>; 8] = [
        None,
        Some(0.1),
        Some(0.7),
        Some(0.7),
        Some(0.2),
        None,
        Some(0.3),
        Some(0.1),
    ];
    let (result, outputs) = run_with(options(1e-2), &SCORES);
    let result = result.unwrap();
    // 4 epochs of 4 steps, scored every second step; the earlier of two equals stays.
    assert_eq!((result.steps, result.planned_steps), (16, 16));
    assert_eq!(result.evaluations.len(), 8);
    assert_eq!((result.best.step, result.best.score.main), (6, Some(0.7)));
    assert_eq!(result.outputs, outputs[2]);
    assert_ne!(result.outputs, outputs[7]);
    let dev = samples(&[3, 9, 4]);
    let rows: Vec<&[u32]> = dev.iter().map(|s| s.ids.as_slice()).collect();
    assert_eq!(predict(&result.model, &rows).unwrap(), outputs[2]);
}

#[test]
fn patience_ends_a_run_that_no_longer_gets_better() {
    static SCORES: [Option<f64>; 8] = [
        Some(0.5),
        Some(0.4),
        Some(0.6),
        Some(0.5),
        Some(0.5),
        Some(0.9),
        Some(0.9),
        Some(0.9),
    ];
    let patient = FinetuneOptions {
        patience: Some(2),
        ..options(1e-2)
    };
    let result = run_with(patient, &SCORES).0.unwrap();
    assert_eq!((result.steps, result.planned_steps), (10, 16));
    assert_eq!(result.best.step, 6);
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_another_one_others() {
    static SCORES: [Option<f64>; 0] = [];
    let run = |seed| {
        let (result, outputs) = run_with(
            FinetuneOptions {
                seed,
                ..options(1e-2)
            },
            &SCORES,
        );
        (result.unwrap().losses, outputs)
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
}

#[test]
fn a_non_finite_loss_ends_the_run_and_names_the_step() {
    let (result, _) = run_with(options(1e30), &[]);
    let error = result.unwrap_err();
    assert!(
        matches!(error, FinetuneError::Diverged { step: 2..=6, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("lower the learning rate"),
        "{error}"
    );
}

#[test]
fn labels_without_an_output_are_refused_before_training() {
    let error = |targets: [Target; 2], outputs: usize| {
        let samples = targets.map(|target| Sample {
            ids: vec![1, 2],
            second: 2,
            target,
        });
        let finetuning = Finetuning::new(samples.to_vec(), samples.to_vec(), options(1e-3), |_| {
            Ok(DevScore::default())
        });
        finetuning.run(tiny(outputs)).unwrap_err().to_string()
    };
    let (class, score) = (Target::Class, Target::Score);
    for (targets, outputs, said) in [
        (
            [class(0), class(2)],
            2,
            "example 1: class 2, but the model has 2",
        ),
        ([class(0), score(1.0)], 2, "some samples have classes"),
        (
            [score(0.0), score(f32::NAN)],
            1,
            "example 1: its score is NaN",
        ),
        ([score(0.0), score(1.0)], 2, "has 2 outputs instead of one"),
    ] {
        let message = error(targets, outputs);
        assert!(message.contains(said), "{said} not in {message}");
    }
    let empty = Finetuning::new(Vec::new(), samples(&[2]), options(1e-3), |_| {
        Ok(DevScore::default())
    });
    let message = empty.run(tiny(2)).unwrap_err().to_string();
    assert!(message.contains("no training examples"), "{message}");
}

#[test]
fn the_clock_of_a_job_knows_what_is_left() {
    let clock = Arc::new(JobClock::new(0));
    assert_eq!((clock.fraction_done(), clock.seconds_left()), (1.0, None));
    let clock = JobClock::new(100);
    clock.start();
    clock.add(25);
    clock.drop_work(50);
    assert_eq!(clock.fraction_done(), 0.5);
    assert!(clock.seconds_left().unwrap() >= 0.0);

    // A run that stops early removes its remaining steps from the job's progress.
    let (train, dev) = (samples(&[4; 32]), samples(&[3; 4]));
    let settings = FinetuneOptions {
        patience: Some(1),
        ..options(1e-3)
    };
    let work = settings.cost_in_tokens(&train, &dev);
    assert_eq!(work, 3 * 4 * 128 + 8 * 12);
    let clock = Arc::new(JobClock::new(work));
    let mut run = Finetuning::new(train, dev, settings, |_| Ok(DevScore::of("toy", 1.0)));
    run.progress = Progress::Silent;
    run.clock = Some(clock.clone());
    assert_eq!(run.run(tiny(2)).unwrap().steps, 4);
    assert_eq!(clock.done(), 3 * 4 * 32 + 2 * 12);
    assert_eq!(clock.fraction_done(), 1.0);
}

/// A run on 32 short sequences in `folder`, saved every third step; `stop_at` interrupts it in that evaluation.
fn saved(
    folder: &std::path::Path,
    resume: bool,
    stop_at: Option<usize>,
    options: FinetuneOptions,
) -> Result<Finetuned, FinetuneError> {
    let lengths: Vec<usize> = (0..32).map(|i| 2 + i * 5 % 7).collect();
    let interrupter = burn::train::Interrupter::new();
    let (stop, mut calls) = (interrupter.clone(), 0);
    let score = move |outputs: &[Vec<f32>]| {
        calls += 1;
        if Some(calls) == stop_at {
            stop.stop(None);
        }
        Ok(DevScore::of(
            "first",
            f64::from(outputs[0][0] - outputs[0][1]),
        ))
    };
    let mut run = Finetuning::new(samples(&lengths), samples(&[3, 9, 4]), options, score);
    run.progress = Progress::Silent;
    run.interrupter = interrupter;
    run.saving = Some(Saving {
        every_steps: Some(3),
        resume,
        identity: "toy".to_string(),
        ..Saving::new(folder)
    });
    run.run(tiny(2))
}

fn toy() -> FinetuneOptions {
    FinetuneOptions {
        micro_batches: 2,
        ..options(1e-2)
    }
}

#[test]
fn an_interrupted_run_goes_on_bit_for_bit() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = saved(one.path(), false, None, toy()).unwrap();
    assert_eq!((whole.steps, whole.interrupted.clone()), (16, None));
    // Interrupted in its second evaluation, after step 4: the best weights so far come back.
    let half = saved(two.path(), false, Some(2), toy()).unwrap();
    let at = half.interrupted.unwrap();
    assert_eq!(at.step, 4);
    assert!(
        at.checkpoint
            .unwrap()
            .ends_with("checkpoints/step-00000004")
    );
    assert_eq!(half.evaluations, whole.evaluations[..2]);
    assert!(half.best.step <= 4);

    // Without being asked to resume, nothing is overwritten.
    let refused = saved(two.path(), false, None, toy()).unwrap_err();
    assert!(refused.to_string().contains("--resume"), "{refused}");
    // Interrupted once more, resumed again.
    let more = saved(two.path(), true, Some(3), toy()).unwrap();
    assert_eq!(more.interrupted.unwrap().step, 10);
    let end = saved(two.path(), true, None, toy()).unwrap();
    assert_eq!(end.losses, whole.losses);
    assert_eq!(end.evaluations, whole.evaluations);
    assert_eq!((end.best, end.outputs), (whole.best, whole.outputs));
    let found = crate::tools::diff(one.path(), two.path()).unwrap();
    assert!(found.identical(), "{:?}", found.differences);
    assert!(found.weights > 0 && found.optimizer == 2 * found.weights && found.rows == 16);
    // Resuming a finished run trains nothing and returns the same.
    let again = saved(two.path(), true, Some(1), toy()).unwrap();
    assert_eq!((again.losses, again.interrupted), (whole.losses, None));
    remove_checkpoints(two.path()).unwrap();
    assert!(!two.path().join("checkpoints").exists());
    assert!(two.path().join("metrics.jsonl").is_file());
}

#[test]
fn a_checkpoint_of_other_settings_or_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    saved(folder.path(), false, Some(2), toy()).unwrap();
    let other = FinetuneOptions { seed: 9, ..toy() };
    let refused = saved(folder.path(), true, None, other).unwrap_err();
    assert!(
        matches!(refused, FinetuneError::Saving(SavingError::OtherRun { .. })),
        "{refused}"
    );
    let newest = crate::run_dir::list_checkpoints(folder.path()).unwrap();
    let weights = newest.last().unwrap().path.join("best/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let damaged = saved(folder.path(), true, None, toy()).unwrap_err();
    let text = damaged.to_string();
    assert!(
        text.contains("best/model.safetensors") && text.contains("delete this checkpoint"),
        "{text}"
    );
}

#[test]
fn a_resumed_run_replaces_no_log_and_removes_no_file_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    saved(folder.path(), false, Some(2), toy()).unwrap();
    let log = std::fs::read_to_string(path("metrics.jsonl")).unwrap();
    let row = log.lines().last().unwrap();
    for changed in [
        "precious",
        &log.replace(":4,", ":9,"),
        &format!("{log}{row}\n"),
    ] {
        std::fs::write(path("metrics.jsonl"), changed).unwrap();
        for _ in 0..2 {
            let refused = saved(folder.path(), true, None, toy()).unwrap_err();
            assert!(
                refused.to_string().contains("metrics.jsonl: the run"),
                "{refused}"
            );
        }
        let now = std::fs::read_to_string(path("metrics.jsonl")).unwrap();
        assert_eq!(now, *changed);
    }
    std::fs::write(path("metrics.jsonl"), &log).unwrap();
    // A copy of the user under the number of a later step, and a file in a checkpoint that would be removed.
    let notes = path("checkpoints/step-00000004/notes.txt");
    std::fs::write(&notes, "precious").unwrap();
    std::fs::create_dir(path("checkpoints/step-7")).unwrap();
    std::fs::write(path("checkpoints/step-7/notes.txt"), "precious").unwrap();
    let resumed = saved(folder.path(), true, None, toy());
    assert!(resumed.is_err(), "step-7 is the newest, and no checkpoint");
    std::fs::rename(path("checkpoints/step-7"), path("checkpoints/mine")).unwrap();
    saved(folder.path(), true, None, toy()).unwrap();
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "precious");
    let warnings = remove_checkpoints(folder.path()).unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("notes.txt"),
        "{warnings:?}"
    );
    assert!(notes.exists() && path("checkpoints/mine/notes.txt").exists());
    assert!(!path("checkpoints/step-00000016").exists());
}

#[test]
fn patience_survives_an_interruption() {
    let patient = FinetuneOptions {
        patience: Some(1),
        // Too small to change any f32 output, and no decay, which does not depend on the peak: no evaluation beats the first.
        learning_rate: 1e-30,
        weight_decay: 0.0,
        ..toy()
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = saved(one.path(), false, None, patient.clone()).unwrap();
    let half = saved(two.path(), false, Some(1), patient.clone()).unwrap();
    assert!(half.interrupted.is_some());
    assert!(whole.steps < 16, "{:?}", whole.evaluations);
    let end = saved(two.path(), true, None, patient).unwrap();
    assert_eq!(
        (end.steps, end.evaluations),
        (whole.steps, whole.evaluations)
    );
}

#[test]
fn a_last_step_that_diverges_is_an_error_and_saves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let diverging = FinetuneOptions {
        epochs: 1,
        batch_size: 32,
        ..options(1e38)
    };
    let error = saved(folder.path(), false, None, diverging).unwrap_err();
    assert!(
        matches!(error, FinetuneError::DivergedAfter { step: 1, .. }),
        "{error}"
    );
    assert!(!has_checkpoints(folder.path()).unwrap());
}

#[test]
fn without_a_defined_score_the_last_weights_come_back() {
    let (result, outputs) = run_with(options(1e-2), &[]);
    let result = result.unwrap();
    assert_eq!((result.best.step, result.best.score.main), (16, None));
    assert_eq!(Some(&result.outputs), outputs.last());
}

/// The list of what a run wrote decides what a resumed run may replace: a malformed one is no empty one.
#[test]
fn a_malformed_list_of_written_files_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    std::fs::create_dir(&checkpoints).unwrap();
    crate::saving::check_written(folder.path()).unwrap();
    let list = checkpoints.join("written.json");
    for content in [
        "",
        "[",
        "3",
        "{\"files\": []}",
        "{\"files\": {\"a\": {\"bytes\": \"1\"}}}",
    ] {
        std::fs::write(&list, content).unwrap();
        let error = crate::saving::check_written(folder.path()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("written.json"), "{message}");
    }
    std::fs::write(&list, "{}").unwrap();
    crate::saving::check_written(folder.path()).unwrap();
}
