//! Spans of a text that answer a question.

use super::ranking::Ranking;
use super::runner::{Runner, read};
use super::spans::Characters;
use super::{BatchOptions, InferenceError, StreamProgress};
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

/// A window of a context beside its question.
struct Window {
    ids: Vec<u32>,
    /// Number of the question, from 0.
    item: usize,
    /// Position in `ids` of the first token of the context.
    first: usize,
    /// Number in the context of that token.
    from: usize,
    /// Tokens of the context.
    count: usize,
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
        let opened = model.into().open()?;
        let build = |config: &_, _, device: &_| QuestionAnswerer::new(config, device);
        let model = opened.classifier(Some(2), build)?;
        let model = model.with_precision(opened.precision);
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
        let (mut windows, mut offsets) = (Vec::new(), Vec::new());
        for (item, (question, context)) in questions.iter().enumerate() {
            offsets.push(self.windows(item, question.as_ref(), context.as_ref(), &mut windows)?);
        }
        let sequences: Vec<&[u32]> = windows.iter().map(|w| w.ids.as_slice()).collect();
        let encoder = &self.model.model;
        let scores = self.runner.run(&sequences, encoder, progress, |batch| {
            let logits = self.model.logits(batch);
            let (start, end) = (read(logits.start)?, read(logits.end)?);
            let ranges = batch.layout.ranges();
            Ok(ranges
                .map(|range| (start[range.clone()].to_vec(), end[range].to_vec()))
                .collect())
        });
        let question_of: Vec<usize> = windows.iter().map(|window| window.item).collect();
        let scores = scores.map_err(|error| error.of_question(&question_of))?;
        let mut windows = windows.iter().zip(&scores).peekable();
        let mut answers = Vec::with_capacity(questions.len());
        for (item, (_, context)) in questions.iter().enumerate() {
            let mut ranking = Ranking::new(self.options.n_best);
            let (mut none_score, mut count) = (f32::INFINITY, 0);
            while let Some((window, (start, end))) =
                windows.next_if(|(window, _)| window.item == item)
            {
                self.add_spans(window, start, end, &mut ranking);
                let next = windows.peek().filter(|(next, _)| next.item == item);
                ranking.close(next.map(|(next, _)| next.from));
                none_score = none_score.min(start[0] + end[0]);
                count += 1;
            }
            answers.push(Answers {
                best: self.best(context.as_ref(), &offsets[item], ranking),
                none_score,
                windows: count,
            });
        }
        Ok(answers)
    }

    /// Adds the windows of one context; returns the positions of its tokens, in bytes.
    fn windows(
        &self,
        item: usize,
        question: &str,
        context: &str,
        windows: &mut Vec<Window>,
    ) -> Result<Vec<(usize, usize)>, InferenceError> {
        let special = self.runner.tokenizer.special();
        let question = self.runner.tokenizer.encode_plain(question)?;
        let encoded = self.runner.tokenizer.encode_with_offsets(context)?;
        let inner = 1..encoded.ids.len().saturating_sub(1).max(1);
        let tokens = &encoded.ids[inner.clone()];
        let (max_length, stride) = (self.runner.max_length, self.options.stride);
        let room = max_length.saturating_sub(question.len() + 3);
        if room == 0 || (tokens.len() > room && stride >= room) {
            return Err(InferenceError::NoRoom {
                question: question.len(),
                stride,
                max_length,
            });
        }
        let mut from = 0;
        loop {
            let count = room.min(tokens.len() - from);
            let mut ids = vec![special.cls];
            ids.extend_from_slice(&question);
            ids.push(special.sep);
            let first = ids.len();
            ids.extend_from_slice(&tokens[from..from + count]);
            ids.push(special.sep);
            windows.push(Window {
                ids,
                item,
                first,
                from,
                count,
            });
            if from + count == tokens.len() {
                return Ok(encoded.offsets[inner].to_vec());
            }
            from += room - stride;
        }
    }

    /// Adds the score of every span of a window.
    fn add_spans(&self, window: &Window, start: &[f32], end: &[f32], ranking: &mut Ranking) {
        for i in 0..window.count {
            let last = (i + self.options.max_answer.max(1)).min(window.count);
            for j in i..last {
                let score = start[window.first + i] + end[window.first + j];
                ranking.add((window.from + i, window.from + j), score);
            }
        }
    }

    fn best(&self, context: &str, offsets: &[(usize, usize)], ranking: Ranking) -> Vec<Answer> {
        let characters = Characters::new(context);
        let mut best: Vec<Answer> = Vec::new();
        for ((first, last), score, probability) in ranking.ranked() {
            if best.len() >= self.options.n_best {
                break;
            }
            let (start, end, text) = characters.trimmed((offsets[first].0, offsets[last].1));
            // Tokens inside one character, or blanks alone, make different spans of the same text.
            if text.is_empty() || best.iter().any(|a| (a.start, a.end) == (start, end)) {
                continue;
            }
            best.push(Answer {
                text: text.to_string(),
                start,
                end,
                score,
                probability,
            });
        }
        best
    }
}
