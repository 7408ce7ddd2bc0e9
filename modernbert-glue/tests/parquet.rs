//! The Hub's form and the official form of the same data give the same examples: files that pyarrow wrote from the TSV files, read
//! beside these.
//!
//! Needs a Python with pyarrow, named by `MODERNBERT_PYTHON`; made-up files are always compared then, the official ones where
//! `MODERNBERT_DATA` has them.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod common;

use modernbert_glue::data::{Split, TaskData};
use modernbert_glue::task::Task;
use std::path::Path;
use std::process::Command;

/// Converts the tasks of a GLUE folder with `scripts/glue_parquet.py`; none without Python.
fn convert(glue: &Path) -> Option<tempfile::TempDir> {
    let python = test_support::variable("MODERNBERT_PYTHON")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/glue_parquet.py");
    let out = tempfile::tempdir().unwrap();
    let run = Command::new(python)
        .arg(script)
        .args([glue, out.path()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{stderr}");
    Some(out)
}

fn assert_same(task: Task, official: &[Split], hub: &[Split]) {
    assert_eq!(official.len(), hub.len(), "{task}");
    for (official, hub) in official.iter().zip(hub) {
        assert_eq!(official.name, hub.name, "{task}");
        assert!(official.examples == hub.examples, "{task} {}", hub.name);
        assert_eq!(official.partial, hub.partial, "{task} {}", hub.name);
        assert_eq!(official.empty_sentences, hub.empty_sentences, "{task}");
    }
}

#[test]
fn what_trips_readers_up_trips_neither_form() {
    let glue = tempfile::tempdir().unwrap();
    for task in [Task::Cola, Task::Rte, Task::Stsb, Task::Mnli] {
        common::write_task(glue.path(), task, 30, 10);
    }
    let write = |name: &str, text: &str| {
        let path = glue.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let mrpc = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t\" a \tb\"\r\n0\t7\t8\té\tb";
    write("MRPC/train.tsv", mrpc);
    write("MRPC/dev.tsv", mrpc);
    let qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t1\n1\t3\t4\tc\nd\te\t0\n\n2\t5\t6\tf\t\t0\n";
    write("QQP/train.tsv", qqp);
    write("QQP/dev.tsv", qqp);
    let Some(hub) = convert(glue.path()) else {
        return;
    };
    for task in [
        Task::Cola,
        Task::Rte,
        Task::Stsb,
        Task::Mnli,
        Task::Mrpc,
        Task::Qqp,
    ] {
        let official = TaskData::load(glue.path(), task).unwrap();
        let hub = TaskData::load(hub.path(), task).unwrap();
        assert_same(task, &[official.train], &[hub.train]);
        assert_same(task, &official.dev, &hub.dev);
    }
}

#[test]
fn the_official_files_are_the_same_in_both_forms() {
    let Some(data) = test_support::data() else {
        return;
    };
    let glue = data.join("glue");
    let Some(hub) = convert(&glue) else {
        return;
    };
    for task in Task::ALL {
        if task.train_split().is_some() {
            let official = TaskData::load(&glue, task).unwrap();
            let hub = TaskData::load(hub.path(), task).unwrap();
            assert_same(task, &[official.train], &[hub.train]);
            assert_same(task, &official.dev, &hub.dev);
        }
        if let Ok(official) = TaskData::load_test(&glue, task) {
            let hub = TaskData::load_test(hub.path(), task).unwrap();
            assert_same(task, &official, &hub);
        }
    }
}
