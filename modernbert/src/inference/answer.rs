//! Spans of a text that answer a question.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;

use super::runner::{Runner, read};
use super::spans::Characters;
use super::{BatchOptions, InferenceError, Progress};
use crate::checkpoint::{CheckpointError, open_checked};
use crate::model::{Precision, QuestionAnswerer};
use crate::tokenizer::Tokenizer;

/// What counts as an answer, and how long contexts are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Answers given, best first.
    pub n_best: usize,
    /// Tokens of an answer at most.
    pub max_answer: usize,
    /// Tokens of the context that neighbouring windows share, where it doesn't fit into one sequence.
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
    /// The span's text, blanks at both ends left out.
    pub text: String,
    /// First character.
    pub start: usize,
    /// The character behind the last one.
    pub end: usize,
    /// Sum of the scores of its first and last token.
    pub score: f32,
    /// Softmax of that over all spans that could have been the answer.
    pub probability: f32,
}

/// What a model says to a question.
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

/// A question answerer and its tokenizer.
#[derive(Debug)]
pub struct Answerer {
    model: QuestionAnswerer,
    runner: Runner,
    options: AnswerOptions,
}

/// A window of a context beside its question.
struct Window {
    ids: Vec<u32>,
    /// Number of the question.
    item: usize,
    /// Position in `ids` of the first token of the context.
    first: usize,
    /// Number in the context of that token.
    from: usize,
    /// Tokens of the context.
    count: usize,
}

impl Answerer {
    /// An answerer of these parts.
    ///
    /// # Errors
    /// Batches without tokens, or a maximum length beyond the model's.
    pub fn new(
        model: QuestionAnswerer,
        tokenizer: Tokenizer,
        options: AnswerOptions,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            options,
        })
    }

    /// Loads a finetuned question answerer and its tokenizer.
    ///
    /// # Errors
    /// A folder without a model, a head for questions or a tokenizer, and those of [`Self::new`].
    pub fn from_folder(
        folder: &Path,
        precision: Precision,
        options: AnswerOptions,
        batches: BatchOptions,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        open_checked(folder)?;
        let (model, report) = QuestionAnswerer::from_folder(folder, 0, device)?;
        if let Some(name) = report.fresh.into_iter().next() {
            let place = folder.display().to_string();
            return Err(CheckpointError::Missing { place, name }.into());
        }
        let tokenizer = Tokenizer::from_folder(folder)?;
        Self::new(model.with_precision(precision), tokenizer, options, batches)
    }

    /// Answers to questions, each about its context, in order.
    ///
    /// # Errors
    /// A question that leaves no room for a context; a tokenizer that doesn't belong to the model; a device that fails.
    pub fn answer<S: AsRef<str>>(
        &self,
        questions: &[(S, S)],
        progress: &mut dyn FnMut(Progress),
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
        })?;
        let mut windows = windows.iter().zip(&scores).peekable();
        let mut answers = Vec::with_capacity(questions.len());
        for (item, (_, context)) in questions.iter().enumerate() {
            let mut spans = BTreeMap::new();
            let (mut none_score, mut count) = (f32::INFINITY, 0);
            while let Some((window, (start, end))) =
                windows.next_if(|(window, _)| window.item == item)
            {
                self.spans(window, start, end, &mut spans);
                none_score = none_score.min(start[0] + end[0]);
                count += 1;
            }
            answers.push(Answers {
                best: self.best(context.as_ref(), &offsets[item], spans),
                none_score,
                windows: count,
            });
        }
        Ok(answers)
    }

    /// Adds the windows of one context; returns where each of its tokens stands, in bytes.
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
        self.runner.check_ids(&question)?;
        self.runner.check_ids(tokens)?;
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

    /// Collects the score of every span of a window; of a span that stands in several windows, the best.
    fn spans(
        &self,
        window: &Window,
        start: &[f32],
        end: &[f32],
        spans: &mut BTreeMap<(usize, usize), f32>,
    ) {
        for i in 0..window.count {
            let last = (i + self.options.max_answer.max(1)).min(window.count);
            for j in i..last {
                let score = start[window.first + i] + end[window.first + j];
                let best = spans
                    .entry((window.from + i, window.from + j))
                    .or_insert(score);
                *best = best.max(score);
            }
        }
    }

    fn best(
        &self,
        context: &str,
        offsets: &[(usize, usize)],
        spans: BTreeMap<(usize, usize), f32>,
    ) -> Vec<Answer> {
        let largest = spans.values().copied().fold(f32::NEG_INFINITY, f32::max);
        let power = |score: f32| f64::from(score - largest).exp();
        let sum: f64 = spans.values().map(|&score| power(score)).sum();
        let mut ranking: Vec<_> = spans.into_iter().collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let characters = Characters::new(context);
        let mut best: Vec<Answer> = Vec::new();
        for ((first, last), score) in ranking {
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
                probability: (power(score) / sum) as f32,
            });
        }
        best
    }
}
