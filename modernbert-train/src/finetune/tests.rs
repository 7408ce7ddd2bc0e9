#![allow(clippy::unwrap_used)]
use super::predict::predict_in_batches;
use super::strategy::is_better;
use super::*;
use burn::data::dataloader::DataLoader;
use burn::optim::lr_scheduler::LrScheduler;
use modernbert::config::ModernBertConfig;
use modernbert::model::initialize;

fn samples(lengths: &[usize]) -> Vec<Sample> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &length)| Sample {
            ids: vec![i as u32; length],
            target: Target::Class(i as u32 % 2),
        })
        .collect()
}

/// Batches that train have a key of their own each, over all epochs; batches that score drop nothing.
#[test]
fn every_training_batch_has_its_own_dropout_key() {
    let lengths: Vec<usize> = (0..40).map(|i| 1 + i % 7).collect();
    let loader = BatchLoader::shuffled(samples(&lengths), 8, 3);
    let keys = || -> Vec<Option<(u64, u64)>> {
        loader
            .iter()
            .map(|batch| batch.unwrap().dropout_key)
            .collect()
    };
    let mut all = [keys(), keys()].concat();
    assert!(all.iter().all(|key| key.is_some_and(|(seed, _)| seed == 3)));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10);
    let scoring = BatchLoader::in_order(samples(&lengths), 8);
    assert!(
        scoring
            .iter()
            .all(|batch| batch.unwrap().dropout_key.is_none())
    );
}

#[test]
fn every_sample_comes_once_an_epoch_and_in_another_order_each_time() {
    let lengths: Vec<usize> = (0..97).map(|i| 1 + i * 7 % 31).collect();
    let loader = BatchLoader::shuffled(samples(&lengths), 8, 3);
    let epoch = |loader: &BatchLoader| -> Vec<u32> {
        loader
            .iter()
            .flat_map(|batch| batch.unwrap().sequences)
            .map(|ids| ids[0])
            .collect()
    };
    let (first, second) = (epoch(&loader), epoch(&loader));
    assert_ne!(first, second);
    for mut ids in [first.clone(), second] {
        ids.sort_unstable();
        assert_eq!(ids, (0..97).collect::<Vec<u32>>());
    }
    assert_eq!(
        first,
        epoch(&BatchLoader::shuffled(samples(&lengths), 8, 3))
    );
    assert_ne!(
        first,
        epoch(&BatchLoader::shuffled(samples(&lengths), 8, 4))
    );
}

#[test]
fn the_rate_rises_falls_and_is_never_zero() {
    let mut schedule = WarmupLinear::new(1.0, 0.1, 100);
    let rates: Vec<f64> = (0..100).map(|_| schedule.step()).collect();
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

/// Finetunes on 32 short sequences, the scorings having these main scores; the outputs of each scoring are kept.
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
        Ok(Score {
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
    assert!(is_better(Some(-1.0), None) && !is_better(None, None) && !is_better(None, Some(0.0)));
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
fn a_loss_that_is_no_number_ends_the_run_and_names_the_step() {
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
            target,
        });
        let finetuning = Finetuning::new(samples.to_vec(), samples.to_vec(), options(1e-3), |_| {
            Ok(Score::default())
        });
        finetuning.run(tiny(outputs)).unwrap_err().to_string()
    };
    let (class, score) = (Target::Class, Target::Score);
    for (targets, outputs, said) in [
        (
            [class(0), class(2)],
            2,
            "sample 1: class 2, but the model has 2",
        ),
        ([class(0), score(1.0)], 2, "some samples have classes"),
        (
            [score(0.0), score(f32::NAN)],
            1,
            "sample 1: its score is NaN",
        ),
        ([score(0.0), score(1.0)], 2, "has 2 outputs instead of one"),
    ] {
        let message = error(targets, outputs);
        assert!(message.contains(said), "{said} not in {message}");
    }
    let empty = Finetuning::new(Vec::new(), samples(&[2]), options(1e-3), |_| {
        Ok(Score::default())
    });
    let message = empty.run(tiny(2)).unwrap_err().to_string();
    assert!(message.contains("no training samples"), "{message}");
}

#[test]
fn the_clock_of_a_job_knows_what_is_left() {
    let clock = Arc::new(JobClock::new(0));
    assert_eq!((clock.share(), clock.seconds_left()), (1.0, None));
    let clock = JobClock::new(100);
    clock.start();
    clock.add(25);
    clock.drop_work(50);
    assert_eq!(clock.share(), 0.5);
    assert!(clock.seconds_left().unwrap() >= 0.0);

    // A run that stops early takes what it leaves undone out of the job.
    let (train, dev) = (samples(&[4; 32]), samples(&[3; 4]));
    let settings = FinetuneOptions {
        patience: Some(1),
        ..options(1e-3)
    };
    let work = settings.work(&train, &dev);
    assert_eq!(work, 3 * 4 * 128 + 8 * 12);
    let clock = Arc::new(JobClock::new(work));
    let mut run = Finetuning::new(train, dev, settings, |_| Ok(Score::of("toy", 1.0)));
    run.progress = Progress::Silent;
    run.clock = Some(clock.clone());
    assert_eq!(run.run(tiny(2)).unwrap().steps, 4);
    assert_eq!(clock.done(), 3 * 4 * 32 + 2 * 12);
    assert_eq!(clock.share(), 1.0);
}
