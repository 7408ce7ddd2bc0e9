#![allow(clippy::unwrap_used)]

use super::*;

fn metrics(values: &[(&str, Option<f64>)]) -> Metrics {
    values.iter().copied().collect()
}

fn result(
    values: &[(&str, Option<f64>)],
    baseline: &[(&str, Option<f64>)],
    partial: bool,
) -> TaskResult {
    let seeds = vec![SeedResult {
        seed: 42,
        metrics: metrics(values),
    }];
    let (metrics, baseline) = (metrics(values), metrics(baseline));
    TaskResult {
        spread: Metrics::spread(seeds.iter().map(|seed| &seed.metrics)),
        metrics,
        start: "mnli".to_string(),
        baseline,
        train_rows: 2490,
        dev_rows: 277,
        partial,
        seeds,
        notes: vec!["a note".to_string()],
        failed: Vec::new(),
    }
}

fn one(task: Task, value: TaskResult) -> Results {
    Results {
        tasks: BTreeMap::from([(task, value)]),
    }
}

#[test]
fn the_file_has_the_promised_form() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/run");
    let value = result(
        &[("spearman", Some(0.5)), ("pearson", None)],
        &[("spearman", None), ("pearson", None)],
        true,
    );
    one(Task::Stsb, value).write(&folder).unwrap();
    let text = fs::read_to_string(folder.join(FILE_NAME)).unwrap();
    let compact: String = text.split_whitespace().collect();
    assert_eq!(
        compact,
        r#"{"stsb":{"metrics":{"spearman":0.5,"pearson":null},"spread":{"spearman":null,"pearson":null},"start":"mnli","baseline":{"spearman":null,"pearson":null},"train_rows":2490,"dev_rows":277,"partial":true,"seeds":[{"seed":42,"metrics":{"spearman":0.5,"pearson":null}}],"notes":["anote"],"failed":[]}}"#
    );
    assert!(text.ends_with("}\n"));
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn other_tasks_of_the_file_are_kept_and_the_same_task_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Results::read(dir.path()).unwrap(), None);
    let old = result(&[("accuracy", Some(0.5))], &[], false);
    let new = result(&[("accuracy", Some(0.7))], &[], false);
    one(Task::Rte, old.clone()).write(dir.path()).unwrap();
    one(Task::Sst2, old.clone()).write(dir.path()).unwrap();
    let all = one(Task::Rte, new.clone()).write(dir.path()).unwrap();
    assert_eq!(
        all.tasks,
        BTreeMap::from([(Task::Sst2, old), (Task::Rte, new)])
    );
    assert_eq!(Results::read(dir.path()).unwrap(), Some(all));
}

#[test]
fn a_file_that_is_something_else_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let extra = r#"{"rte":{"metrics":{},"baseline":{},"train_rows":1,"dev_rows":1,"partial":false,"seeds":[],"note":1}}"#;
    for text in ["", "{\"rte\": 1}", "{\"squad\": {}}", extra] {
        fs::write(&path, text).unwrap();
        let message = one(Task::Rte, result(&[], &[], false))
            .write(dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(FILE_NAME) && message.contains("move it away"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let message = Results::default()
        .write(&dir.path().join("file"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("results.json") && message.contains("check"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn the_file_is_an_ordinary_one() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    Results::default().write(dir.path()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    fs::write(dir.path().join("plain"), "").unwrap();
    assert_eq!(
        mode(&dir.path().join(FILE_NAME)),
        mode(&dir.path().join("plain"))
    );
}

fn eight() -> Results {
    let mut results = Results::default();
    for task in Task::PAPER {
        let values: Vec<_> = task
            .metrics()
            .iter()
            .map(|metric| (metric.name(), Some(0.9)))
            .collect();
        results.tasks.insert(task, result(&values, &values, false));
    }
    results
}

#[test]
fn the_average_needs_all_eight_tasks() {
    let mut results = eight();
    assert!((results.average().unwrap() - 0.9).abs() < 1e-12);
    results.tasks.remove(&Task::Rte);
    assert_eq!(results.average(), None);
}

#[test]
fn the_text_table_is_aligned() {
    let values = [
        ("accuracy", Some(0.55)),
        ("accuracy_matched", Some(0.55)),
        ("accuracy_mismatched", None),
    ];
    let baseline = [
        ("accuracy", Some(0.354)),
        ("accuracy_matched", Some(0.354)),
        ("accuracy_mismatched", None),
    ];
    let mut results = one(Task::Mnli, result(&values, &baseline, true));
    results.tasks.insert(
        Task::Cola,
        result(
            &[("matthews", Some(-0.012))],
            &[("matthews", Some(0.0))],
            false,
        ),
    );
    let expected = "\
task   metric               score  baseline  delta  train  dev  seeds
---------------------------------------------------------------------
CoLA   matthews              -1.2       0.0   -1.2   2490  277      1
MNLI*  accuracy              55.0      35.4  +19.6   2490  277      1
       accuracy_matched      55.0      35.4  +19.6
       accuracy_mismatched    n/a       n/a    n/a
* fewer rows than the official GLUE release: not comparable with published scores
";
    assert_eq!(results.text_table(), expected);
}

#[test]
fn the_markdown_table_escapes_its_stars() {
    let results = one(
        Task::Rte,
        result(&[("accuracy", Some(0.6))], &[("accuracy", Some(0.5))], true),
    );
    let expected = "\
| task | metric | score | baseline | delta | train | dev | seeds |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| RTE\\* | accuracy | 60.0 | 50.0 | +10.0 | 2490 | 277 | 1 |

\\* fewer rows than the official GLUE release: not comparable with published scores
";
    assert_eq!(results.markdown_table(), expected);
}

#[test]
fn the_widest_table_fits_a_terminal() {
    let mut results = eight();
    for result in results.tasks.values_mut() {
        (result.train_rows, result.dev_rows, result.partial) = (392_702, 19_647, true);
        result.metrics.push("accuracy_mismatched", Some(-1.0));
    }
    let table = results.text_table();
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    assert!(table.contains("GLUE*   mean of 8"), "{table}");
    assert!(Results::default().text_table().starts_with("task"));
}
