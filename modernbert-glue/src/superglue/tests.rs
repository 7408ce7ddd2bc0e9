#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;
use tempfile::TempDir;

/// A folder whose training and dev file of a task have this content.
fn folder(task: SuperTask, content: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let own = place.path().join(task.name());
    fs::create_dir(&own).unwrap();
    fs::write(own.join("train.jsonl"), content).unwrap();
    fs::write(own.join("val.jsonl"), content).unwrap();
    place
}

fn rows(task: SuperTask, content: &str) -> Vec<(String, String, usize, usize)> {
    let place = folder(task, content);
    let read = read_pairs(place.path(), task).unwrap();
    assert_eq!(read.train, read.dev);
    let rows = read.dev.into_iter();
    rows.map(|row| (row.text, row.pair, row.class, row.group))
        .collect()
}

fn row(text: &str, pair: &str, class: usize, group: usize) -> (String, String, usize, usize) {
    (text.to_string(), pair.to_string(), class, group)
}

#[test]
fn pairs_are_those_of_each_task() {
    let boolq = rows(
        SuperTask::BoolQ,
        "{\"question\":\"q\",\"passage\":\"p\",\"idx\":0,\"label\":true}\n{\"question\":\"r\",\"passage\":\"p\",\"idx\":1,\"label\":false}\n",
    );
    assert_eq!(boolq, [row("q", "p", 1, 0), row("r", "p", 0, 1)]);
    let cb = rows(
        SuperTask::Cb,
        "{\"premise\":\"a\",\"hypothesis\":\"b\",\"label\":\"neutral\",\"idx\":0}\n",
    );
    assert_eq!(cb, [row("a", "b", 2, 0)]);
    let wic = rows(
        SuperTask::Wic,
        "{\"word\":\"w\",\"sentence1\":\"a w\",\"sentence2\":\"w b\",\"idx\":0,\"label\":true,\"start1\":2,\"end1\":3,\"start2\":0,\"end2\":1,\"version\":1.1}\n",
    );
    assert_eq!(wic, [row("w: a w", "w b", 1, 0)]);
    let multirc = rows(
        SuperTask::MultiRc,
        concat!(
            "{\"idx\":0,\"passage\":{\"text\":\"p\",\"questions\":[",
            "{\"question\":\"q?\",\"idx\":0,\"answers\":[{\"text\":\"x\",\"idx\":0,\"label\":1},{\"text\":\"y\",\"idx\":1,\"label\":0}]},",
            "{\"question\":\"r?\",\"idx\":1,\"answers\":[{\"text\":\"x\",\"idx\":2,\"label\":0}]}]}}\n",
            "{\"idx\":1,\"passage\":{\"text\":\"o\",\"questions\":[{\"question\":\"q?\",\"idx\":2,\"answers\":[{\"text\":\"z\",\"idx\":3,\"label\":1}]}]}}\n",
        ),
    );
    assert_eq!(
        multirc,
        [
            row("p", "q? x", 1, 0),
            row("p", "q? y", 0, 0),
            row("p", "r? x", 0, 1),
            row("o", "q? z", 1, 2)
        ]
    );
}

#[test]
fn copa_has_choices() {
    let place = folder(
        SuperTask::Copa,
        "{\"premise\":\"It rained.\",\"choice1\":\"a\",\"choice2\":\"b\",\"question\":\"effect\",\"label\":1,\"idx\":0}\n",
    );
    let read = read_choices(place.path()).unwrap();
    let first = &read.dev.rows[0];
    assert_eq!(first.prompt, "It rained. What happened as a result?");
    assert_eq!((first.choices.len(), first.label), (2, 1));
}

#[test]
fn broken_rows_are_named_with_their_line() {
    for (task, content, said) in [
        (
            SuperTask::BoolQ,
            "{\"question\":\"q\",\"passage\":\"p\"}",
            "train.jsonl:1: the label is not true",
        ),
        (
            SuperTask::Cb,
            "{\"premise\":\"a\",\"hypothesis\":\"b\",\"label\":\"yes\"}",
            "none of entailment",
        ),
        (
            SuperTask::MultiRc,
            "{\"passage\":{\"text\":\"p\"}}",
            "train.jsonl:1: the passage is not",
        ),
        (
            SuperTask::Wic,
            "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":true}",
            "\"word\"",
        ),
        (
            SuperTask::Wic,
            "{\"word\":\"w\",\"sentence1\":\"a w\",\"sentence2\":\"w b\",\"label\":true,\"start1\":2,\"end1\":9,\"start2\":0,\"end2\":1}",
            "train.jsonl:1: the word of sentence1 is at 2..9 of 3 characters",
        ),
        (SuperTask::BoolQ, "", "holds no rows"),
    ] {
        let place = folder(task, content);
        let message = read_pairs(place.path(), task).unwrap_err().to_string();
        assert!(message.contains(said), "{said} not in {message}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let message = read_choices(nothing.path()).unwrap_err().to_string();
    assert!(message.contains("COPA"), "{message}");
}

#[test]
fn scores_are_the_means_of_two_metrics() {
    // Classes 0, 1, 2 with F1 of 2/3, 0 and 2/3, by hand.
    let (truth, predicted) = ([0, 0, 1, 2], [0, 2, 0, 2]);
    let f1 = macro_f1(&truth, &predicted).unwrap();
    assert!((f1 - (0.5 + 0.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12, "{f1}");
    let score = SuperTask::Cb.score(&truth, &predicted, &[]);
    assert!((score.main.unwrap() - (0.5 + f1) / 2.0).abs() < 1e-12);
    // Of MultiRC two questions, one of them right in all of its answers; F1 of the right answers 2 / 3.
    let score = SuperTask::MultiRc.score(&[1, 0, 0, 1], &[1, 0, 1, 1], &[0, 0, 1, 1]);
    let main = (2.0 * 2.0 / 5.0 + 0.5) / 2.0;
    assert!((score.main.unwrap() - main).abs() < 1e-12, "{score:?}");
    assert_eq!(SuperTask::BoolQ.score(&[], &[], &[]).main, None);
    assert_eq!(SuperTask::MultiRc.score(&[1], &[1], &[]).main, None);
    assert_eq!(SuperTask::named("multirc"), Some(SuperTask::MultiRc));
}
