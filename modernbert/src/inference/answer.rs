//! Spans of a text that answer a question.

use super::runner::{Runner, Sequence};
use super::{BatchOptions, ContextWindows, InferenceError, StreamProgress};
use crate::device::read;
use crate::loader::Loader;
use crate::model::QuestionAnswerer;
use crate::tokenizer::Tokenizer;

/// Limits on answers, and the overlap of the windows in which a long context is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Answers given, best first.
    pub n_best: usize,
    /// Tokens of an answer at most.
    pub max_answer: usize,
    /// Tokens of the context that neighboring windows share, where it doesn't fit into one sequence.
    pub stride: usize,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            n_best: 1,
            max_answer: 30,
            stride: 128,
        }
    }
}

/// A span of the context.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Text of the span, without blanks at both ends.
    pub text: String,
    /// First character.
    pub start: usize,
    /// Character after the last one.
    pub end: usize,
    /// Sum of the scores of its first and last token.
    pub score: f32,
    /// Softmax of that over all spans that could have been the answer.
    pub probability: f32,
}

/// The answers to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// The best spans, best first; none if the context is empty.
    pub best: Vec<Answer>,
    /// Score of "no answer": that of `[CLS]`, the lowest of all windows. A model trained for it answers nothing where
    /// this is above the best span's score.
    pub none_score: f32,
    /// Windows the context was read in.
    pub windows: usize,
}

/// A model for extractive question answering and its tokenizer.
///
/// ```
/// use modernbert::Answerer;
///
/// # let folder = tiny_models::question_answerer();
/// # let name = folder.path();
/// let answerer = Answerer::load(name)?;
/// let found = answerer.answer(&[("two", "one two three")])?;
/// println!("{:?}", found[0].best[0].text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Answerer {
    model: QuestionAnswerer,
    runner: Runner,
    options: AnswerOptions,
}

impl Answerer {
    /// An answerer of these parts, with the options at their defaults.
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model.
    pub fn new(
        model: QuestionAnswerer,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            options: AnswerOptions::default(),
        })
    }

    /// Loads a finetuned question answerer and its tokenizer, from a folder or by its name on the Hub.
    ///
    /// # Errors
    /// As [`QuestionAnswerer::load`] and [`Self::new`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<QuestionAnswerer>()?;
        let build = |config: &_, _, device: &_| QuestionAnswerer::new(config, device);
        let model = opened.classifier_for_inference(Some(2), build)?;
        Self::new(model, opened.tokenizer()?, opened.batches.clone())
    }

    /// The same answerer with other options.
    #[must_use]
    pub fn with_options(mut self, options: AnswerOptions) -> Self {
        self.options = options;
        self
    }

    /// Answers to questions, each with its context, in order.
    ///
    /// # Errors
    /// A question that leaves no space for a context; a text that can't be encoded, an output that is not finite, a device that fails.
    pub fn answer<Q: AsRef<str>, C: AsRef<str>>(
        &self,
        questions: &[(Q, C)],
    ) -> Result<Vec<Answers>, InferenceError> {
        self.answer_with(questions, &mut |_| {})
    }

    /// As [`Self::answer`], reporting progress after each batch of windows.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answer_with<Q: AsRef<str>, C: AsRef<str>>(
        &self,
        questions: &[(Q, C)],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<Answers>, InferenceError> {
        let windows = |(question, context): &(Q, C)| {
            ContextWindows::of(
                &self.runner.tokenizer,
                question.as_ref(),
                context.as_ref(),
                self.runner.max_length,
                self.options.stride,
            )
        };
        let windows: Vec<ContextWindows> =
            questions.iter().map(windows).collect::<Result<_, _>>()?;
        let all = windows.iter().enumerate();
        let (question_of, sequences): (Vec<usize>, Vec<Sequence<'_>>) = all
            .flat_map(|(item, of_item)| {
                let windows = of_item.windows().iter();
                windows.map(move |w| (item, Sequence::pair(&w.ids, w.second)))
            })
            .unzip();
        let encoder = &self.model.model;
        let scores = self.runner.run(&sequences, encoder, progress, |batch| {
            let logits = self.model.logits(batch);
            let (start, end) = (read(logits.start)?, read(logits.end)?);
            let ranges = batch.layout.ranges();
            Ok(ranges
                .map(|range| (start[range.clone()].to_vec(), end[range].to_vec()))
                .collect())
        });
        let scores: Vec<(Vec<f32>, Vec<f32>)> =
            scores.map_err(|error| error.of_question(&question_of))?;
        let mut rest = scores.iter();
        let answers = windows
            .iter()
            .zip(questions)
            .map(|(windows, (_, context))| {
                let of_item = rest.by_ref().take(windows.windows().len());
                let scores: Vec<(&[f32], &[f32])> =
                    of_item.map(|(s, e)| (&s[..], &e[..])).collect();
                windows.answers(context.as_ref(), &scores, &self.options)
            });
        Ok(answers.collect())
    }
}
