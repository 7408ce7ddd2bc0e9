//! Multiple choice: the probability of each choice of a question.

use super::classify::softmax;
use super::runner::{Runner, Sequence};
use super::{BatchOptions, InferenceError, Input, StreamProgress};
use crate::device::read;
use crate::loader::Loader;
use crate::model::MultipleChoice;
use crate::tokenizer::Tokenizer;

/// The result for a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Probability of each choice; they add up to one.
    pub probabilities: Vec<f32>,
    /// Number of the most probable choice, from 0.
    pub best: usize,
    /// True if the question with one of its choices was truncated.
    pub truncated: bool,
}

/// A multiple-choice model and its tokenizer.
///
/// ```
/// use modernbert::Chooser;
///
/// # let folder = tiny_models::multiple_choice();
/// # let name = folder.path();
/// let chooser = Chooser::load(name)?;
/// let found = chooser.choose(&[("one", vec!["two", "three"])])?;
/// assert_eq!(found[0].probabilities.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Chooser {
    model: MultipleChoice,
    runner: Runner,
}

impl Chooser {
    /// A chooser of these parts.
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model.
    pub fn new(
        model: MultipleChoice,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        Ok(Self { model, runner })
    }

    /// Loads a finetuned multiple-choice model and its tokenizer, from a folder or by its name on the Hub.
    ///
    /// # Errors
    /// As [`MultipleChoice::load`] and [`Self::new`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<MultipleChoice>()?;
        let build = |config: &_, _, device: &_| MultipleChoice::new(config, device);
        let model = opened.classifier_for_inference(Some(1), build)?;
        Self::new(model, opened.tokenizer()?, opened.batches.clone())
    }

    /// Tokens of a question with a choice at most, special tokens included; longer ones are truncated.
    pub fn max_length(&self) -> usize {
        self.runner.max_length
    }

    /// The probability of each choice of every question, in order. A question is read with each of its choices as a pair.
    ///
    /// # Errors
    /// A question without choices, a text that can't be encoded, an output that is not finite, a device that fails.
    pub fn choose<Q: AsRef<str>, C: AsRef<str>>(
        &self,
        questions: &[(Q, Vec<C>)],
    ) -> Result<Vec<Choice>, InferenceError> {
        self.choose_with(questions, &mut |_| {})
    }

    /// As [`Self::choose`], reporting progress after each batch; a sequence is a question with one of its choices.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn choose_with<Q: AsRef<str>, C: AsRef<str>>(
        &self,
        questions: &[(Q, Vec<C>)],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<Choice>, InferenceError> {
        if let Some(index) = questions.iter().position(|(_, choices)| choices.is_empty()) {
            return Err(InferenceError::NoChoices { index: index + 1 });
        }
        let (mut inputs, mut question_of): (Vec<Input<'_>>, _) = (Vec::new(), Vec::new());
        for (number, (question, choices)) in questions.iter().enumerate() {
            for choice in choices {
                inputs.push((question.as_ref(), choice.as_ref()).into());
                question_of.push(number);
            }
        }
        let encoded = self.runner.tokenize(&inputs)?;
        let sequences = Sequence::of_all(&encoded);
        let encoder = &self.model.model;
        let scores = self.runner.run(&sequences, encoder, progress, |batch| {
            Ok(read(self.model.decode(encoder.forward(batch), batch))?)
        });
        let scores = scores.map_err(|error| error.of_question(&question_of))?;
        let mut rest = scores.iter().zip(&encoded);
        let results = questions.iter().map(|(_, choices)| {
            let of_question = rest.by_ref().take(choices.len());
            let (scores, truncated): (Vec<f32>, Vec<bool>) =
                of_question.map(|(&score, e)| (score, e.truncated)).unzip();
            let probabilities = softmax(&scores);
            let best =
                (0..scores.len()).reduce(|best, i| if scores[i] > scores[best] { i } else { best });
            Choice {
                probabilities,
                best: best.unwrap_or(0),
                truncated: truncated.contains(&true),
            }
        });
        Ok(results.collect())
    }
}
