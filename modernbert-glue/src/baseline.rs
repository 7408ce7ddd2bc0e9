//! The constant baseline: the score of a model that never reads the sentences.

use crate::data::{Label, TaskData};
use crate::metrics::{MetricError, Metrics, Prediction, evaluate, evaluate_dev};
use crate::task::TaskKind;

/// The constant prediction with the best score on the training labels: the most frequent class (the lowest id of equals), or the
/// mean score.
pub fn constant_prediction(data: &TaskData) -> Result<Prediction, MetricError> {
    let task = data.task;
    let labels = data.train.labels();
    if labels.is_empty() {
        return Err(MetricError::Empty { task });
    }
    let mut counts = vec![0_usize; task.num_outputs()];
    let mut sum = 0.0;
    for (index, label) in labels.iter().enumerate() {
        match (task.kind(), label) {
            (TaskKind::Classification { labels }, Label::Class(id)) if *id < labels.len() => {
                counts[*id] += 1
            }
            (TaskKind::Regression { .. }, Label::Score(score)) => sum += f64::from(*score),
            (_, other) => {
                return Err(MetricError::Label {
                    task,
                    index,
                    label: *other,
                });
            }
        }
    }
    Ok(match task.kind() {
        TaskKind::Regression { .. } => Prediction::Score((sum / labels.len() as f64) as f32),
        TaskKind::Classification { .. } => {
            let mut best = 0;
            for (id, count) in counts.iter().enumerate() {
                if *count > counts[best] {
                    best = id;
                }
            }
            Prediction::Class(best)
        }
    })
}

/// Refuses labels from which nothing can be learned, or for which no predictions have a score.
///
/// # Errors
/// Training rows of one label; dev rows for which the task's main metric is undefined.
pub fn check_labels(data: &TaskData) -> Result<(), MetricError> {
    let task = data.task;
    let labels = data.train.labels();
    if !labels.is_empty() && labels.iter().all(|label| *label == labels[0]) {
        return Err(MetricError::OneLabel {
            task,
            path: data.train.path.clone(),
        });
    }
    let truth = |label: &Label| match label {
        Label::Class(id) => Some(Prediction::Class(*id)),
        Label::Score(score) => Some(Prediction::Score(*score)),
        Label::Hidden => None,
    };
    for split in &data.dev {
        let labels = split.labels();
        let Some(perfect) = labels.iter().map(truth).collect::<Option<Vec<_>>>() else {
            continue;
        };
        let metric = task.main_metric().name();
        // F1 of perfect predictions is 0 where no row is positive: then every prediction has that score.
        let score = evaluate(task, &perfect, &labels)?.get(metric);
        if !perfect.is_empty() && score.is_none_or(|score| score == 0.0) {
            return Err(MetricError::Undefined {
                task,
                path: split.path.clone(),
                metric,
            });
        }
    }
    Ok(())
}

/// Scores [`constant_prediction`] on the dev sets. A constant has no correlation: undefined for STS-B.
pub fn baseline(data: &TaskData) -> Result<Metrics, MetricError> {
    let prediction = constant_prediction(data)?;
    let predictions: Vec<_> = data
        .dev
        .iter()
        .map(|split| vec![prediction; split.examples.len()])
        .collect();
    evaluate_dev(data, &predictions)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::data::{GlueExample, Split};
    use crate::task::Task;

    fn data(task: Task, train: &[Label], dev: &[Label]) -> TaskData {
        let split = |name, labels: &[Label]| Split {
            name,
            path: PathBuf::new(),
            examples: (labels.iter().enumerate())
                .map(|(index, label)| GlueExample {
                    index,
                    text_a: String::new(),
                    text_b: None,
                    label: *label,
                })
                .collect(),
            official_rows: 0,
            partial: false,
            skipped: Vec::new(),
            empty_sentences: 0,
        };
        TaskData {
            task,
            train: split("train", train),
            dev: vec![split("dev", dev)],
            missing: Vec::new(),
        }
    }

    #[test]
    fn labels_without_a_score_are_refused() {
        let classes = |ids: &[usize]| ids.iter().map(|id| Label::Class(*id)).collect::<Vec<_>>();
        let scores = |all: &[f32]| {
            all.iter()
                .map(|score| Label::Score(*score))
                .collect::<Vec<_>>()
        };
        let check = |task, train: &[Label], dev: &[Label]| check_labels(&data(task, train, dev));
        let (both, ones) = (classes(&[0, 1]), classes(&[1, 1]));
        check(Task::Rte, &both, &ones).unwrap();
        check(Task::Cola, &both, &both).unwrap();
        let one = check(Task::Rte, &ones, &both).unwrap_err();
        assert!(matches!(one, MetricError::OneLabel { .. }), "{one}");
        for (task, train, dev) in [
            (Task::Cola, both.clone(), ones.clone()),
            (Task::Mrpc, both.clone(), classes(&[0, 0])),
            (Task::Stsb, scores(&[1.0, 2.0]), scores(&[3.0, 3.0])),
        ] {
            let undefined = check(task, &train, &dev).unwrap_err();
            assert!(
                matches!(undefined, MetricError::Undefined { .. }),
                "{undefined}"
            );
        }
    }

    #[test]
    fn the_class_comes_from_train_and_the_score_from_dev() {
        let data = data(
            Task::Mrpc,
            &[0, 1, 1].map(Label::Class),
            &[0, 0, 0, 1].map(Label::Class),
        );
        assert_eq!(constant_prediction(&data).unwrap(), Prediction::Class(1));
        assert_eq!(
            baseline(&data).unwrap().iter().collect::<Vec<_>>(),
            [("f1", Some(0.4)), ("accuracy", Some(0.25))]
        );
    }

    #[test]
    fn equals_go_to_the_lowest_class() {
        let data = data(Task::Rte, &[1, 0].map(Label::Class), &[0].map(Label::Class));
        assert_eq!(constant_prediction(&data).unwrap(), Prediction::Class(0));
    }

    #[test]
    fn a_mean_score_has_no_correlation() {
        let data = data(
            Task::Stsb,
            &[1.0, 2.0].map(Label::Score),
            &[1.0, 2.0].map(Label::Score),
        );
        assert_eq!(constant_prediction(&data).unwrap(), Prediction::Score(1.5));
        assert_eq!(
            baseline(&data).unwrap().iter().collect::<Vec<_>>(),
            [("spearman", None), ("pearson", None)]
        );
    }

    #[test]
    fn training_rows_without_labels_are_refused() {
        assert!(baseline(&data(Task::Rte, &[Label::Hidden], &[Label::Class(0)])).is_err());
        assert!(baseline(&data(Task::Rte, &[], &[Label::Class(0)])).is_err());
    }

    #[test]
    fn the_real_dev_sets_give_the_known_majorities() {
        let Some(data) = test_support::data() else {
            return;
        };
        let dir = data.join("glue");
        for (task, metric, rows, all) in [
            (Task::Cola, "accuracy", 721.0, 1043.0),
            (Task::Sst2, "accuracy", 444.0, 872.0),
            (Task::Mrpc, "accuracy", 279.0, 408.0),
            (Task::Rte, "accuracy", 146.0, 277.0),
            (Task::Wnli, "accuracy", 40.0, 71.0),
        ] {
            let metrics = baseline(&TaskData::load(&dir, task).unwrap()).unwrap();
            assert_eq!(metrics.get(metric), Some(rows / all), "{task}");
        }
        assert_eq!(
            baseline(&TaskData::load(&dir, Task::Cola).unwrap())
                .unwrap()
                .get("matthews"),
            Some(0.0)
        );
    }
}
