//! Texts to classes or scores.

use super::runner::{Runner, Sequence, read_rows};
use super::{BatchOptions, InferenceError, Input, ResultStream, StreamProgress};
use crate::config::{ModernBertConfig, ProblemType};
use crate::loader::Loader;
use crate::model::SequenceClassifier;
use crate::tokenizer::{Encoded, Tokenizer};

/// The prediction for a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// One number per label: probabilities that add up to one, an independent probability each, or plain scores, by
    /// [`TextClassifier::problem_type`].
    pub scores: Vec<f32>,
    /// Tokens that the model read, special tokens included.
    pub tokens: usize,
    /// True if the text was longer than that.
    pub truncated: bool,
}

impl Prediction {
    /// Numbers of the labels by falling score.
    pub fn ranking(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]).then(a.cmp(&b)));
        order
    }
}

/// A sequence classifier and its tokenizer, for classes or scores of texts.
///
/// ```
/// use modernbert::TextClassifier;
///
/// # let folder = tiny_models::sequence_classifier(&["bad", "good"]);
/// # let name = folder.path();
/// let classifier = TextClassifier::load(name)?;
/// for prediction in classifier.classify(&["one two", "three"])? {
///     let best = prediction.ranking()[0];
///     println!("{} {:.2}", classifier.labels()[best], prediction.scores[best]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TextClassifier {
    model: SequenceClassifier,
    runner: Runner,
    labels: Vec<String>,
    problem: ProblemType,
}

impl TextClassifier {
    /// A classifier of these parts; its labels are named by the model's config or `LABEL_0`, `LABEL_1`, ….
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model; a number of label names that differs
    /// from the number of outputs.
    pub fn new(
        model: SequenceClassifier,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let config = model.model.config();
        let outputs = model.outputs();
        let labels = label_names(config, outputs)?;
        let problem = problem_type(config.problem_type, outputs);
        let runner = Runner::new(config, tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            labels,
            problem,
        })
    }

    /// Loads a finetuned classifier and its tokenizer, from a folder or by its name on the Hub.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`] and [`Self::new`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<SequenceClassifier>()?;
        let classifier = opened.classifier_for_inference(None, SequenceClassifier::new)?;
        Self::new(classifier, opened.tokenizer()?, opened.batches.clone())
    }

    /// Names of the labels, in the order of the scores.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Tokens of a text at most, special tokens included; longer texts are truncated.
    pub fn max_length(&self) -> usize {
        self.runner.max_length
    }

    /// Meaning of the scores.
    pub fn problem_type(&self) -> ProblemType {
        self.problem
    }

    /// The prediction for every text or pair, in order.
    ///
    /// # Errors
    /// A text that can't be encoded, an output that is not finite, a device that fails.
    pub fn classify<'a, T>(&self, texts: &'a [T]) -> Result<Vec<Prediction>, InferenceError>
    where
        &'a T: Into<Input<'a>>,
    {
        self.classify_with(&Input::of_all(texts), &mut |_| {})
    }

    /// As [`Self::classify`], reporting progress after each batch.
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn classify_with(
        &self,
        inputs: &[Input<'_>],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<Prediction>, InferenceError> {
        let encoded = self.runner.tokenize(inputs)?;
        let sequences = Sequence::of_all(&encoded);
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
        progress: impl FnMut(StreamProgress) + 'm,
    ) -> ResultStream<'m, I::IntoIter, Prediction, E>
    where
        I: IntoIterator<Item = Result<Input<'static>, E>>,
        E: From<InferenceError>,
    {
        let options = self.runner.options.clone();
        let run = Box::new(
            |window: &[Input<'static>], progress: &mut dyn FnMut(StreamProgress)| {
                self.classify_with(window, progress)
            },
        );
        ResultStream::new(inputs.into_iter(), options, run, Box::new(progress))
    }
}

/// Meaning of the outputs.
///
/// A single output is a score, as in Hugging Face's models, unless the config says otherwise. Classes of which there is only one can't
/// exclude each other: that output is an independent probability.
fn problem_type(given: Option<ProblemType>, outputs: usize) -> ProblemType {
    match (given, outputs) {
        (None, 1) => ProblemType::Regression,
        (Some(ProblemType::SingleLabel), 1) => ProblemType::MultiLabel,
        (Some(given), _) => given,
        (None, _) => ProblemType::SingleLabel,
    }
}

/// Names of the labels of `outputs` outputs.
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

/// Scores of a classifier's outputs.
fn scores(logits: Vec<f32>, problem: ProblemType) -> Vec<f32> {
    match problem {
        ProblemType::Regression => logits,
        ProblemType::MultiLabel => logits.iter().map(|x| sigmoid(*x)).collect(),
        ProblemType::SingleLabel => softmax(&logits),
    }
}

/// Logistic function, computed in f64.
fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
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

    #[test]
    fn a_single_output_is_never_a_certainty() {
        assert_eq!(problem_type(None, 1), ProblemType::Regression);
        assert_eq!(problem_type(None, 2), ProblemType::SingleLabel);
        let single = Some(ProblemType::SingleLabel);
        assert_eq!(problem_type(single, 1), ProblemType::MultiLabel);
        assert_eq!(problem_type(single, 2), ProblemType::SingleLabel);
        let regression = Some(ProblemType::Regression);
        assert_eq!(problem_type(regression, 1), ProblemType::Regression);
    }
}
