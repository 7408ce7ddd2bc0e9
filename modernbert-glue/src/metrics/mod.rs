//! Scores as GLUE defines them, equal to scikit-learn's and SciPy's to 1e-12 (`scripts/metrics_fixtures.py`).
//!
//! A score that does not exist, such as the correlation of a constant, is `None` and written as `null`, never as
//! 0. Two zeros are scores by convention, as in scikit-learn: Matthews when labels or predictions have one class
//! only, and F1 when class 1 neither occurs nor is predicted.

pub mod classification;
pub mod correlation;
pub(crate) mod sample;
mod table;

#[cfg(test)]
mod tests;

pub use table::Metrics;

use std::path::PathBuf;

use crate::data::{Label, Split, TaskData};
use crate::task::{Metric, Task, TaskKind};

/// Prediction of a model for one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prediction {
    /// A class id.
    Class(usize),
    /// A score.
    Score(f32),
}

impl Prediction {
    /// Reads the head's output for one example: the class of the largest logit (the first of equals), or the score.
    pub fn from_outputs(task: Task, outputs: &[f32]) -> Result<Self, MetricError> {
        if outputs.len() != task.num_outputs() {
            return Err(MetricError::Outputs {
                task,
                expected: task.num_outputs(),
                found: outputs.len(),
            });
        }
        if let Some(value) = outputs.iter().find(|value| !value.is_finite()) {
            return Err(MetricError::NotFinite {
                task,
                value: *value,
            });
        }
        Ok(match task.kind() {
            TaskKind::Regression { .. } => Self::Score(outputs[0]),
            TaskKind::Classification { .. } => {
                let mut best = 0;
                for (id, logit) in outputs.iter().enumerate() {
                    if *logit > outputs[best] {
                        best = id;
                    }
                }
                Self::Class(best)
            }
        })
    }
}

/// Reason why predictions could not be scored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// Every row to train on has the same label.
    #[error("{task}: {}: all rows have one label; a classifier needs two or more: take more rows", path.display())]
    OneLabel {
        /// The task.
        task: Task,
        /// The file.
        path: PathBuf,
    },
    /// Labels of a dev set for which the main metric is undefined, whatever the predictions.
    #[error("{task}: {}: {metric} is undefined for these labels, since they do not differ; take more rows", path.display())]
    Undefined {
        /// The task.
        task: Task,
        /// The file.
        path: PathBuf,
        /// The metric.
        metric: &'static str,
    },
    /// Not one prediction per label.
    #[error(
        "{task}: {predictions} predictions for {labels} labels; predict every example of the split, once"
    )]
    Length {
        /// The task.
        task: Task,
        /// Number of predictions.
        predictions: usize,
        /// Number of labels.
        labels: usize,
    },
    /// Not one list of predictions per dev set.
    #[error(
        "{task}: predictions for {predictions} dev sets, the task has {splits}; predict every dev set, in order"
    )]
    Splits {
        /// The task.
        task: Task,
        /// Number of lists of predictions.
        predictions: usize,
        /// Number of dev sets.
        splits: usize,
    },
    /// Nothing to score.
    #[error("{task}: no examples to score; load a split that has some")]
    Empty {
        /// The task.
        task: Task,
    },
    /// A label that no prediction can be compared with: hidden, or of the other kind of task.
    #[error(
        "{task}: the label of example {index} is {label:?}; score a labelled split of the same task"
    )]
    Label {
        /// The task.
        task: Task,
        /// Position of the example.
        index: usize,
        /// The label there.
        label: Label,
    },
    /// A prediction of the other kind of task, or of a class the task does not have.
    #[error(
        "{task}: the prediction for example {index} is {prediction:?}; take the predictions of a model of this task"
    )]
    Prediction {
        /// The task.
        task: Task,
        /// Position of the example.
        index: usize,
        /// The prediction there.
        prediction: Prediction,
    },
    /// A head of the wrong width.
    #[error(
        "{task}: the model has {found} outputs, the task needs {expected}; load a model with that many labels"
    )]
    Outputs {
        /// The task.
        task: Task,
        /// Outputs of the task.
        expected: usize,
        /// Outputs of the model.
        found: usize,
    },
    /// A non-finite output: the training diverged.
    #[error(
        "{task}: the model's output is {value}; the training diverged, lower the learning rate"
    )]
    NotFinite {
        /// The task.
        task: Task,
        /// The output.
        value: f32,
    },
}

/// Scores predictions against labels with every metric of the task, the main one first.
pub fn evaluate(
    task: Task,
    predictions: &[Prediction],
    labels: &[Label],
) -> Result<Metrics, MetricError> {
    if predictions.len() != labels.len() {
        return Err(MetricError::Length {
            task,
            predictions: predictions.len(),
            labels: labels.len(),
        });
    }
    if labels.is_empty() {
        return Err(MetricError::Empty { task });
    }
    let (truth, predicted) = match task.kind() {
        TaskKind::Classification { .. } => return evaluate_classes(task, predictions, labels),
        TaskKind::Regression { .. } => {
            (scores(task, labels)?, predicted_scores(task, predictions)?)
        }
    };
    let value = |metric| match metric {
        Metric::Pearson => correlation::pearson(&truth, &predicted),
        Metric::Spearman => correlation::spearman(&truth, &predicted),
        Metric::Matthews | Metric::Accuracy | Metric::F1 => None,
    };
    Ok(task
        .metrics()
        .iter()
        .map(|metric| (metric.name(), value(*metric)))
        .collect())
}

fn evaluate_classes(
    task: Task,
    predictions: &[Prediction],
    labels: &[Label],
) -> Result<Metrics, MetricError> {
    let classes = task.num_outputs();
    let truth: Vec<usize> = (labels.iter().enumerate())
        .map(|(index, label)| match label {
            Label::Class(id) if *id < classes => Ok(*id),
            other => Err(MetricError::Label {
                task,
                index,
                label: *other,
            }),
        })
        .collect::<Result<_, _>>()?;
    let predicted: Vec<usize> = (predictions.iter().enumerate())
        .map(|(index, prediction)| match prediction {
            Prediction::Class(id) if *id < classes => Ok(*id),
            other => Err(MetricError::Prediction {
                task,
                index,
                prediction: *other,
            }),
        })
        .collect::<Result<_, _>>()?;
    let value = |metric| match metric {
        Metric::Matthews => classification::matthews(&truth, &predicted),
        Metric::Accuracy => classification::accuracy(&truth, &predicted),
        Metric::F1 => classification::f1(&truth, &predicted),
        Metric::Pearson | Metric::Spearman => None,
    };
    Ok(task
        .metrics()
        .iter()
        .map(|metric| (metric.name(), value(*metric)))
        .collect())
}

fn scores(task: Task, labels: &[Label]) -> Result<Vec<f64>, MetricError> {
    let score = |(index, label): (usize, &Label)| match label {
        Label::Score(score) => Ok(f64::from(*score)),
        other => Err(MetricError::Label {
            task,
            index,
            label: *other,
        }),
    };
    labels.iter().enumerate().map(score).collect()
}

fn predicted_scores(task: Task, predictions: &[Prediction]) -> Result<Vec<f64>, MetricError> {
    let score = |(index, prediction): (usize, &Prediction)| match prediction {
        Prediction::Score(score) => Ok(f64::from(*score)),
        other => Err(MetricError::Prediction {
            task,
            index,
            prediction: *other,
        }),
    };
    predictions.iter().enumerate().map(score).collect()
}

/// Scores predictions for all dev sets of a task, one list per entry of `data.dev` and in its order.
///
/// With several official dev sets (MNLI) a metric is the mean over the existing ones, as in the authors' summary,
/// followed by one value per official set: `accuracy`, `accuracy_matched`, `accuracy_mismatched`. The value of a missing
/// set is undefined.
pub fn evaluate_dev(
    data: &TaskData,
    predictions: &[Vec<Prediction>],
) -> Result<Metrics, MetricError> {
    let task = data.task;
    if predictions.len() != data.dev.len() {
        return Err(MetricError::Splits {
            task,
            predictions: predictions.len(),
            splits: data.dev.len(),
        });
    }
    let scored = data.dev.iter().zip(predictions);
    let scored = scored
        .map(|(split, predictions)| Ok((split, evaluate(task, predictions, &split.labels())?)))
        .collect::<Result<Vec<(&Split, Metrics)>, MetricError>>()?;
    let mut all = Metrics::mean(scored.iter().map(|(_, metrics)| metrics));
    if task.dev_splits().len() > 1 {
        for metric in task.metrics() {
            for file in task.dev_splits() {
                let split = scored.iter().find(|(split, _)| split.name == file.name);
                let suffix = file.name.trim_start_matches("dev_");
                all.push(
                    format!("{metric}_{suffix}"),
                    split.and_then(|(_, metrics)| metrics.get(metric.name())),
                );
            }
        }
    }
    Ok(all)
}
