//! Tests on the official files, if `MODERNBERT_DATA` names a folder that contains them as `glue/`.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;

fn glue_dir() -> Option<PathBuf> {
    Some(test_support::data()?.join("glue"))
}

fn counts(split: &Split, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for example in &split.examples {
        match example.label {
            Label::Class(id) => counts[id] += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

#[test]
fn rows_are_those_of_the_official_files_or_said_to_be_partial() {
    let Some(dir) = glue_dir() else { return };
    for (task, train, dev, partial) in [
        (Task::Cola, 8551, 1043, false),
        (Task::Sst2, 67349, 872, false),
        (Task::Mrpc, 3668, 408, false),
        (Task::Stsb, 5749, 1500, false),
        (Task::Rte, 2490, 277, false),
        (Task::Wnli, 635, 71, false),
        (Task::Qnli, 3298, 5463, true),
        (Task::Mnli, 3345, 9815, true),
        (Task::Qqp, 9000, 1000, true),
    ] {
        let data = TaskData::load(&dir, task).unwrap();
        assert_eq!(
            (data.train.examples.len(), data.dev_rows(), data.partial()),
            (train, dev, partial),
            "{task}"
        );
        assert!(
            data.train.skipped.is_empty() && data.dev[0].skipped.is_empty(),
            "{task}"
        );
        assert_eq!(data.dev[0].partial, task == Task::Qqp, "{task}");
        assert_eq!(data.missing.len(), usize::from(task == Task::Mnli));
        for (position, example) in data.train.examples.iter().enumerate() {
            assert_eq!(example.index, position);
            assert_eq!(example.text_b.is_some(), task.is_pair());
        }
    }
}

#[test]
fn label_counts_are_those_of_the_official_files() {
    let Some(dir) = glue_dir() else { return };
    // Dev, then train where it is complete or known; in the order of the class ids.
    let known: [(Task, &[usize], &[usize]); 8] = [
        (Task::Cola, &[322, 721], &[2528, 6023]),
        (Task::Sst2, &[428, 444], &[29780, 37569]),
        (Task::Mrpc, &[129, 279], &[1194, 2474]),
        (Task::Rte, &[146, 131], &[1249, 1241]),
        (Task::Wnli, &[40, 31], &[323, 312]),
        (Task::Qqp, &[622, 378], &[5667, 3333]),
        (Task::Qnli, &[2702, 2761], &[]),
        (Task::Mnli, &[3479, 3123, 3213], &[]),
    ];
    for (task, dev, train) in known {
        let data = TaskData::load(&dir, task).unwrap();
        assert_eq!(counts(&data.dev[0], task.num_outputs()), dev, "{task}");
        if !train.is_empty() {
            assert_eq!(counts(&data.train, task.num_outputs()), train, "{task}");
        }
    }
}

#[test]
fn test_files_hide_their_labels() {
    let Some(dir) = glue_dir() else { return };
    for (task, rows) in [
        (Task::Cola, 1063),
        (Task::Sst2, 1821),
        (Task::Mrpc, 1725),
        (Task::Stsb, 1379),
        (Task::Rte, 3000),
        (Task::Wnli, 146),
        (Task::Qnli, 5463),
        (Task::Ax, 1104),
    ] {
        let [split] = &TaskData::load_test(&dir, task).unwrap()[..] else {
            panic!("{task}")
        };
        assert_eq!(
            (split.examples.len(), split.partial),
            (rows, false),
            "{task}"
        );
        assert!(
            split
                .examples
                .iter()
                .all(|example| example.label == Label::Hidden),
            "{task}"
        );
    }
    for task in [Task::Mnli, Task::Qqp] {
        assert!(
            matches!(
                TaskData::load_test(&dir, task),
                Err(GlueDataError::NoFile { .. })
            ),
            "{task}"
        );
    }
}

#[test]
fn the_sample_of_the_official_mnli_layout_parses() {
    let Some(dir) = glue_dir() else { return };
    let samples = dir.join("format_samples");
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join("MNLI");
    std::fs::create_dir(&folder).unwrap();
    for split in ["train", "dev_matched", "dev_mismatched"] {
        let name = file_name(split);
        std::fs::copy(samples.join(format!("MNLI_{name}")), folder.join(name)).unwrap();
    }
    std::fs::copy(
        samples.join("MNLI_test_matched.tsv"),
        folder.join("test_matched.tsv"),
    )
    .unwrap();
    let data = TaskData::load(copy.path(), Task::Mnli).unwrap();
    assert_eq!(data.dev.len(), 2);
    assert!(data.missing.is_empty() && data.partial());
    for example in data.dev.iter().flat_map(|split| &split.examples) {
        // The text columns, not the parses, which begin with a bracket.
        assert!(!example.text_a.starts_with('('), "{example:?}");
    }
    assert_eq!(
        TaskData::load_test(copy.path(), Task::Mnli).unwrap().len(),
        1
    );
}
