//! Texts to classes or scores.

use std::path::Path;

use burn::tensor::Device;

use super::runner::{Runner, read_rows};
use super::{BatchOptions, InferenceError, Input, Progress, Stream};
use crate::checkpoint::{CheckpointError, TensorFiles, open_checked};
use crate::config::{ModernBertConfig, ProblemType};
use crate::model::{Precision, SequenceClassifier};
use crate::tokenizer::{Encoded, Tokenizer};

/// What a classifier says of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// One number per label: probabilities that add up to one, an independent probability each, or plain scores, by
    /// [`TextClassifier::problem`].
    pub scores: Vec<f32>,
    /// Tokens the model saw, special tokens included.
    pub tokens: usize,
    /// Whether the text was longer than that.
    pub truncated: bool,
}

impl Prediction {
    /// Labels by falling score.
    pub fn ranking(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]).then(a.cmp(&b)));
        order
    }
}

/// A classifier and its tokenizer.
#[derive(Debug)]
pub struct TextClassifier {
    model: SequenceClassifier,
    runner: Runner,
    labels: Vec<String>,
    problem: ProblemType,
}

impl TextClassifier {
    /// A classifier of these parts with `outputs` labels, named by the model's config or `LABEL_0`, `LABEL_1`, ….
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, as many names as there are no outputs.
    pub fn new(
        model: SequenceClassifier,
        outputs: usize,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let config = model.model.config();
        let labels = label_names(config, outputs)?;
        let problem = config.problem_type.unwrap_or(if outputs == 1 {
            ProblemType::Regression
        } else {
            ProblemType::SingleLabel
        });
        let runner = Runner::new(config, tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            labels,
            problem,
        })
    }

    /// Loads a finetuned classifier and its tokenizer.
    ///
    /// # Errors
    /// A folder without a model, a classifier or a tokenizer, and those of [`Self::new`].
    pub fn from_folder(
        folder: &Path,
        precision: Precision,
        batches: BatchOptions,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        let (_, files) = open_checked(folder)?;
        let outputs = classifier_outputs(&files)?;
        drop(files);
        let (model, report) = SequenceClassifier::from_folder(folder, outputs, 0, device)?;
        if let Some(name) = report.fresh.into_iter().next() {
            let place = folder.display().to_string();
            return Err(CheckpointError::Missing { place, name }.into());
        }
        let tokenizer = Tokenizer::from_folder(folder)?;
        Self::new(model.with_precision(precision), outputs, tokenizer, batches)
    }

    /// Names of the labels, in the order of the scores.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What the scores mean.
    pub fn problem(&self) -> ProblemType {
        self.problem
    }

    /// The prediction for every input, in order.
    ///
    /// # Errors
    /// A tokenizer that doesn't belong to the model; a device that fails.
    pub fn classify(&self, inputs: &[Input<'_>]) -> Result<Vec<Prediction>, InferenceError> {
        self.classify_with(inputs, &mut |_| {})
    }

    /// As [`Self::classify`], telling after each batch how far it has come.
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn classify_with(
        &self,
        inputs: &[Input<'_>],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Prediction>, InferenceError> {
        let encoded = self.runner.tokenize(inputs)?;
        let sequences: Vec<&[u32]> = encoded.iter().map(|e| e.ids.as_slice()).collect();
        let encoder = &self.model.model;
        let logits = self.runner.run(&sequences, encoder, progress, |batch| {
            read_rows(self.model.logits(batch))
        })?;
        let finish = |(logits, encoded): (Vec<f32>, &Encoded)| Prediction {
            scores: scores(logits, self.problem),
            tokens: encoded.ids.len(),
            truncated: encoded.truncated,
        };
        Ok(logits.into_iter().zip(&encoded).map(finish).collect())
    }

    /// Predictions for a stream of inputs that need not fit into memory, in order.
    pub fn stream<'m, I, E>(
        &'m self,
        inputs: I,
        progress: impl FnMut(Progress) + 'm,
    ) -> Stream<'m, I::IntoIter, Prediction, E>
    where
        I: IntoIterator<Item = Result<Input<'static>, E>>,
        E: From<InferenceError>,
    {
        let options = self.runner.options.clone();
        let run = Box::new(
            |window: &[Input<'static>], progress: &mut dyn FnMut(Progress)| {
                self.classify_with(window, progress)
            },
        );
        Stream::new(inputs.into_iter(), options, run, Box::new(progress))
    }
}

/// Rows of the classifier in the files: the shape in the file decides, because config.json often doesn't say.
pub(super) fn classifier_outputs(files: &TensorFiles) -> Result<usize, CheckpointError> {
    let name = "classifier.weight";
    match files.shape(name)? {
        Some(shape) if !shape.is_empty() => Ok(shape[0]),
        _ => Err(CheckpointError::Missing {
            place: files.place(),
            name: name.to_string(),
        }),
    }
}

/// Names of `outputs` labels.
pub(super) fn label_names(
    config: &ModernBertConfig,
    outputs: usize,
) -> Result<Vec<String>, InferenceError> {
    match &config.id2label {
        Some(names) if names.len() != outputs => Err(InferenceError::Labels {
            names: names.len(),
            outputs,
        }),
        Some(names) => Ok(names.clone()),
        None => Ok((0..outputs).map(|i| format!("LABEL_{i}")).collect()),
    }
}

/// What a classifier's outputs mean to people.
fn scores(logits: Vec<f32>, problem: ProblemType) -> Vec<f32> {
    match problem {
        ProblemType::Regression => logits,
        ProblemType::MultiLabel => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        ProblemType::SingleLabel => softmax(&logits),
    }
}

/// Probabilities that add up to one, computed in f64.
pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|&x| f64::from(x - largest).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|x| (x / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_problem() {
        let logits = vec![1.0, 3.0, -2.0];
        assert_eq!(scores(logits.clone(), ProblemType::Regression), logits);
        let single = scores(logits.clone(), ProblemType::SingleLabel);
        assert!((single.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((single[1] - 0.875_600_6).abs() < 1e-6, "{single:?}");
        let multi = scores(logits, ProblemType::MultiLabel);
        assert!((multi[1] - 0.952_574_1).abs() < 1e-6, "{multi:?}");
        assert_eq!(softmax(&[1000.0, -1000.0]), [1.0, 0.0]);
    }
}
