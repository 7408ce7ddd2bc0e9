//! Question answering: the first and the last token of an answer in each window of its context.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::LoadReport;
use modernbert::device::read;
use modernbert::inference::{AnswerOptions, Answers, ContextWindows};
use modernbert::model::{QuestionAnswerer, SpanLabels};
use modernbert::parallel::try_map;
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, InferenceError, LoadError, Loader};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

use super::FinetuneError;
use super::example::{Example, cross_entropy};
use super::table::{QuestionFile, QuestionRow};

/// A window of a context beside its question, with the answer in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanSample {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// Position in `ids` of the first token of type 1; their number where there is none.
    pub second: usize,
    /// Position of the answer's first token; 0, that of `[CLS]`, where the window doesn't hold the answer.
    pub start: u32,
    /// Position of the answer's last token, or 0.
    pub end: u32,
}

/// Questions in windows.
#[derive(Clone, Debug, Default)]
pub struct EncodedQuestions {
    /// The windows of all questions, those of the first question first.
    pub samples: Vec<SpanSample>,
    /// The windows of each question.
    pub questions: Vec<ContextWindows>,
    /// Number of answers that begin or end inside of a token; the whole token counts as part of the answer.
    pub inside_tokens: usize,
}

/// Tokenizes questions on all cores, in windows of at most `max_length` tokens of which neighbors share `stride` tokens of the context, as
/// [`Answerer`](modernbert::Answerer) reads them.
///
/// The first answer of a question is the target. A window that doesn't contain the whole answer has `[CLS]` as its target, as does every window of a
/// question without an answer.
///
/// # Errors
/// A question that leaves no space for its context, a text that can't be encoded, an answer without a token: with file and line.
pub fn encode_questions(
    tokenizer: &Tokenizer,
    file: &QuestionFile,
    max_length: usize,
    stride: usize,
) -> Result<EncodedQuestions, QuestionsError> {
    let encode = |row: &QuestionRow| {
        let failed = |source| QuestionsError::Encode {
            path: file.path.clone(),
            line: row.line,
            source: Box::new(source),
        };
        let windows =
            ContextWindows::of(tokenizer, &row.question, &row.context, max_length, stride)
                .map_err(failed)?;
        let tokens = match row.answers.first() {
            Some(answer) => {
                let mut bytes = row.context.char_indices().map(|(at, _)| at);
                let start = bytes.nth(answer.start).unwrap_or(row.context.len());
                // Blanks at both ends are no part of tokens.
                let begun = answer.text.len() - answer.text.trim_start().len();
                let start = start + begun;
                let found = windows.tokens_of(start..start + answer.text.trim().len());
                Some(found.ok_or_else(|| QuestionsError::NoToken {
                    path: file.path.clone(),
                    line: row.line,
                    answer: answer.text.clone(),
                })?)
            }
            None => None,
        };
        Ok((windows, tokens))
    };
    let rows = try_map::<_, _, QuestionsError>(&file.rows, encode)?;
    let mut all = EncodedQuestions::default();
    for ((windows, tokens), row) in rows.into_iter().zip(&file.rows) {
        for window in windows.windows() {
            let inside = |&(first, last): &(usize, usize)| {
                first >= window.from && last < window.from + window.count
            };
            let at = |token: usize| (window.first + token - window.from) as u32;
            let (start, end) = match tokens.filter(inside) {
                Some((first, last)) => (at(first), at(last)),
                None => (0, 0),
            };
            all.samples.push(SpanSample {
                ids: window.ids.clone(),
                second: window.second,
                start,
                end,
            });
        }
        if let (Some(span), Some(answer)) = (tokens, row.answers.first()) {
            let text = windows.text_of(&row.context, span);
            all.inside_tokens += usize::from(text != answer.text.trim());
        }
        all.questions.push(windows);
    }
    Ok(all)
}

impl EncodedQuestions {
    /// The answers to each question of the file they were encoded from, by the outputs for all windows.
    pub fn answers(
        &self,
        file: &QuestionFile,
        outputs: &[Vec<f32>],
        options: &AnswerOptions,
    ) -> Vec<Answers> {
        let mut rest = outputs.iter();
        let rows = self.questions.iter().zip(&file.rows);
        rows.map(|(windows, row)| {
            let own = rest.by_ref().take(windows.windows().len());
            let scores: Vec<(&[f32], &[f32])> = own
                .map(|values| values.split_at(values.len() / 2))
                .collect();
            windows.answers(&row.context, &scores, options)
        })
        .collect()
    }
}

/// Reason why questions can't be encoded.
#[derive(Debug, thiserror::Error)]
pub enum QuestionsError {
    /// No space for the context, or a text that can't be encoded.
    #[error("{}:{line}: {source}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The reason.
        source: Box<InferenceError>,
    },
    /// An answer of characters that the tokenizer drops.
    #[error("{}:{line}: the answer {answer:?} has no token; leave the row out", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The answer.
        answer: String,
    },
}

impl Example for SpanSample {
    type Model = QuestionAnswerer;

    fn load(
        loader: Loader,
        _outputs: usize,
        seed: u64,
    ) -> Result<(Self::Model, LoadReport), LoadError> {
        QuestionAnswerer::load_for_finetuning(loader, HeadStart::Fresh, seed)
    }

    fn outputs(_model: &QuestionAnswerer) -> usize {
        2
    }

    fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        std::iter::once(self.ids.as_slice())
    }

    fn seconds(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.second)
    }

    fn mismatch_reason(&self, _first: &Self, _outputs: usize) -> Option<String> {
        let (start, end, tokens) = (self.start, self.end, self.ids.len());
        (start > end || end as usize >= tokens)
            .then(|| format!("an answer at {start} to {end} in a window of {tokens} tokens"))
    }

    fn loss(model: &QuestionAnswerer, batch: &PackedBatch, examples: &[Self]) -> Tensor<1> {
        let labels = SpanLabels {
            starts: examples.iter().map(|e| Some(e.start)).collect(),
            ends: examples.iter().map(|e| Some(e.end)).collect(),
        };
        let output = model.forward(batch, &labels);
        output.expect("answers are checked before the run").loss
    }

    fn predict(
        model: &QuestionAnswerer,
        batch: &PackedBatch,
        _examples: &[&Self],
    ) -> Result<Vec<Vec<f32>>, FinetuneError> {
        let logits = model.logits(batch);
        let (start, end) = (read(logits.start)?, read(logits.end)?);
        let both = |range: std::ops::Range<usize>| [&start[range.clone()], &end[range]].concat();
        Ok(batch.layout.ranges().map(both).collect())
    }

    fn width(&self, _outputs: usize) -> usize {
        2 * self.ids.len()
    }

    fn loss_of(&self, outputs: &[f32]) -> Option<f64> {
        let (start, end) = outputs.split_at(outputs.len() / 2);
        if start.len() != end.len() {
            return None;
        }
        let start = cross_entropy(start, self.start as usize)?;
        Some((start + cross_entropy(end, self.end as usize)?) / 2.0)
    }

    fn hash_target(&self, hash: &mut Sha256) {
        hash.update(self.start.to_le_bytes());
        hash.update(self.end.to_le_bytes());
    }
}
