#![allow(clippy::unwrap_used)]

use super::*;
use crate::metrics::Metrics;
use crate::results::SeedResult;
use crate::run::{EvaluationRecord, RunSettings};

fn record(task: Task, seed: u64, score: f64) -> RunRecord {
    let metrics: Metrics = [(task.main_metric().name(), Some(score))]
        .into_iter()
        .collect();
    RunRecord {
        task,
        model: "tiny".to_string(),
        settings: RunSettings {
            start: "pretrained".to_string(),
            start_sha256: "ab".repeat(32),
            seed,
            epochs: 3,
            batch_size: 64,
            learning_rate: 5e-5,
            weight_decay: 1e-5,
            warmup: 0.06,
            attention_output_dropout: None,
            max_length: 256,
            evaluate_every: 10,
            patience: None,
            precision: "f32".to_string(),
            data_sha256: String::new(),
            train_rows: 100,
            dev_rows: 10,
        },
        metrics: metrics.clone(),
        best_step: 20,
        steps: 30,
        planned_steps: 30,
        evaluations: vec![EvaluationRecord { step: 20, metrics }],
        losses: vec![(10, 0.7)],
        device: "flex".to_string(),
        train_seconds: 10.0,
        eval_seconds: 1.0,
        evaluated: 30,
    }
}

/// A job's folder with these scores of each task's seeds.
fn job(folder: &Path, tasks: &[(Task, &[f64])]) -> JobView {
    let mut results = Results::default();
    for (task, scores) in tasks {
        let mut seeds = Vec::new();
        for (seed, &score) in scores.iter().enumerate() {
            let record = record(*task, seed as u64, score);
            let place = crate::run::seed_folder(folder, *task, seed as u64);
            record.write(&place).unwrap();
            seeds.push(SeedResult {
                seed: seed as u64,
                metrics: record.metrics,
            });
        }
        let runs = || seeds.iter().map(|seed| &seed.metrics);
        let result = TaskResult {
            metrics: Metrics::mean(runs()),
            spread: Metrics::spread(runs()),
            start: "pretrained".to_string(),
            baseline: [(task.main_metric().name(), Some(0.5))]
                .into_iter()
                .collect(),
            train_rows: 100,
            dev_rows: 10,
            partial: *task == Task::Mnli,
            notes: if *task == Task::Mnli {
                vec!["train is partial: 100 of 392702 rows".to_string()]
            } else {
                Vec::new()
            },
            failed: if *task == Task::Rte {
                vec!["seed 7: the loss of step 3 is NaN".to_string()]
            } else {
                Vec::new()
            },
            seeds,
        };
        results.tasks.insert(*task, result);
    }
    results.write(folder).unwrap();
    JobView::open(folder).unwrap()
}

#[test]
fn the_page_has_every_number_and_says_what_is_partial() {
    let place = tempfile::tempdir().unwrap();
    let mine = job(
        &place.path().join("pretrained"),
        &[
            (Task::Cola, &[0.40, 0.42, 0.44]),
            (Task::Mnli, &[0.6, 0.6, 0.6]),
            (Task::Rte, &[0.53, 0.51]),
        ],
    );
    let other = job(
        &place.path().join("random"),
        &[
            (Task::Cola, &[0.10, 0.12, 0.14]),
            (Task::Mnli, &[0.6, 0.61, 0.59]),
        ],
    );
    let page = markdown(&[mine], Some(&other));
    for said in [
        "| CoLA | matthews | 50.0 | 42.0 ± 2.0 (40.0, 42.0, 44.0) | 12.0 ± 2.0 (10.0, 12.0, 14.0) | 65.1 | 71.4 |",
        "| MNLI\\* | accuracy | 50.0 | 60.0 ± 0.0",
        "| RTE | accuracy | 50.0 | 52.0 ± 1.4 (53.0, 51.0) | – | 87.4 | 92.1 |",
        "## pretrained against random",
        "| CoLA | matthews | +30.0 | 2.0 and 2.0 | 3 and 3 | 5.2e-5 | 1.0e-4 | better |",
        "| MNLI\\* | accuracy | +0.0 | 0.0 and 1.0 | 3 and 3 | 1.0 | 1.0 | no difference shown |",
        "- MNLI: 100 training and 10 dev rows; train is partial: 100 of 392702 rows",
        "- CoLA: 100 training and 10 dev rows; complete",
        "| CoLA | pretrained | 3 | 64 | 5.00e-5 | 1e-5 | f32 | 0, 1, 2 | 20 of 30, 20 of 30, 20 of 30 | 3.00 | 30 |",
        "- pretrained, RTE: seed 7: the loss of step 3 is NaN",
        "fewer rows than the official GLUE release",
    ] {
        assert!(page.contains(said), "{said:?} is not in:\n{page}");
    }
    assert!(!page.contains("mean of the paper's 8"), "{page}");
}

#[test]
fn the_mean_needs_the_papers_eight_and_leaves_wnli_out() {
    let place = tempfile::tempdir().unwrap();
    let mut tasks: Vec<(Task, &[f64])> = Vec::new();
    for task in Task::PAPER {
        tasks.push((task, &[0.5]));
    }
    tasks.push((Task::Wnli, &[0.0]));
    let view = job(&place.path().join("all"), &tasks);
    let page = markdown(std::slice::from_ref(&view), None);
    assert!(
        page.contains("| mean of the paper's 8 | | | 50.0 | 88.4 | 90.4 |"),
        "{page}"
    );
    assert!(page.contains("| WNLI | accuracy | 50.0 | 0.0 |"), "{page}");
    let files = pictures(place.path(), &[&view], crate::task::paper::ModelSize::Base).unwrap();
    for file in files {
        assert!(std::fs::read(file).unwrap().starts_with(b"\x89PNG"));
    }
}

#[test]
fn folders_of_one_name_are_told_apart_and_others_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut views = [
        job(&place.path().join("a/glue"), &[(Task::Rte, &[0.5])]),
        job(&place.path().join("b/glue"), &[(Task::Rte, &[0.5])]),
    ];
    assert_eq!(views[0].name, "glue");
    distinguish(&mut views);
    assert!(views[0].name.ends_with("a/glue") && views[1].name.ends_with("b/glue"));
    let missing = JobView::open(place.path()).err().unwrap().to_string();
    assert!(missing.contains("no results.json"), "{missing}");
}

#[test]
fn a_run_without_a_defined_score_is_never_the_best() {
    let place = tempfile::tempdir().unwrap();
    let write = |seed: u64, score: f64| {
        let folder = crate::run::seed_folder(place.path(), Task::Stsb, seed);
        std::fs::create_dir_all(folder.join("model")).unwrap();
        // `Metrics` keeps a number that is not finite as undefined.
        record(Task::Stsb, seed, score).write(&folder).unwrap();
    };
    write(1, f64::NAN);
    assert!(crate::run::best_run(place.path(), Task::Stsb).is_none());
    write(2, -0.9);
    let (best, _) = crate::run::best_run(place.path(), Task::Stsb).unwrap();
    assert_eq!(best.settings.seed, 2);
}
