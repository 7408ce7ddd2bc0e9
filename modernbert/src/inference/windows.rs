//! Windows of a context, each beside its question; from the scores of the windows to answers.

use super::InferenceError;
use super::answer::{Answer, AnswerOptions, Answers};
use super::ranking::Ranking;
use super::spans::Characters;
use crate::tokenizer::Tokenizer;

/// A window of a context beside its question: `[CLS] question [SEP] part of the context [SEP]`, in RoBERTa with two `[SEP]` after the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextWindow {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// Position in `ids` of the first token of the context.
    pub first: usize,
    /// Position in `ids` of the first token of type 1; their number where there is none.
    pub second: usize,
    /// Number in the context of that token.
    pub from: usize,
    /// Tokens of the context.
    pub count: usize,
}

/// The windows of one context; training and inference cut contexts alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextWindows {
    windows: Vec<ContextWindow>,
    /// Positions of the context's tokens, in bytes.
    offsets: Vec<(usize, usize)>,
}

impl ContextWindows {
    /// Cuts a context into windows of at most `max_length` tokens, of which neighbors share `stride` tokens of the context.
    ///
    /// # Errors
    /// A question that leaves no space for a context; a text that can't be encoded.
    pub fn of(
        tokenizer: &Tokenizer,
        question: &str,
        context: &str,
        max_length: usize,
        stride: usize,
    ) -> Result<Self, InferenceError> {
        let special = tokenizer.special();
        let question = tokenizer.encode_plain(question)?;
        let encoded = tokenizer.encode_with_offsets(context)?;
        let inner = 1..encoded.ids.len().saturating_sub(1).max(1);
        let tokens = &encoded.ids[inner.clone()];
        let separators = tokenizer.separators();
        let room = max_length.saturating_sub(question.len() + 2 + separators);
        if room == 0 || (tokens.len() > room && stride >= room) {
            return Err(InferenceError::NoRoom {
                question: question.len(),
                stride,
                max_length,
            });
        }
        let mut windows = Vec::new();
        let mut from = 0;
        loop {
            let count = room.min(tokens.len() - from);
            let mut ids = vec![special.cls];
            ids.extend_from_slice(&question);
            ids.extend(std::iter::repeat_n(special.sep, separators));
            let first = ids.len();
            ids.extend_from_slice(&tokens[from..from + count]);
            ids.push(special.sep);
            windows.push(ContextWindow {
                second: tokenizer.second(first, ids.len()),
                ids,
                first,
                from,
                count,
            });
            if from + count == tokens.len() {
                return Ok(Self {
                    windows,
                    offsets: encoded.offsets[inner].to_vec(),
                });
            }
            from += room - stride;
        }
    }

    /// The windows, in order; at least one.
    pub fn windows(&self) -> &[ContextWindow] {
        &self.windows
    }

    /// First and last of the context's tokens that overlap these bytes of the context; `None` if none does.
    pub fn tokens_of(&self, bytes: std::ops::Range<usize>) -> Option<(usize, usize)> {
        let overlaps =
            |&(start, end): &(usize, usize)| start < bytes.end && end > bytes.start && start < end;
        let first = self.offsets.iter().position(overlaps)?;
        let last = self.offsets.iter().rposition(overlaps)?;
        Some((first, last))
    }

    /// Text of a span of the context's tokens, without blanks at both ends. `context` is the text that was cut.
    pub fn text_of<'c>(&self, context: &'c str, (first, last): (usize, usize)) -> &'c str {
        let bytes = self.offsets[first].0..self.offsets[last].1.min(context.len());
        context.get(bytes).unwrap_or_default().trim()
    }

    /// The answers from the scores of each window's tokens as the first and as the last of an answer. `context` is the text that was cut.
    pub fn answers(
        &self,
        context: &str,
        scores: &[(&[f32], &[f32])],
        options: &AnswerOptions,
    ) -> Answers {
        let mut ranking = Ranking::new(options.n_best);
        let mut none_score = f32::INFINITY;
        for (i, (window, (start, end))) in self.windows.iter().zip(scores).enumerate() {
            for first in 0..window.count {
                let beyond = first
                    .saturating_add(options.max_answer.max(1))
                    .min(window.count);
                for last in first..beyond {
                    let score = start[window.first + first] + end[window.first + last];
                    ranking.add((window.from + first, window.from + last), score);
                }
            }
            ranking.close(self.windows.get(i + 1).map(|next| next.from));
            none_score = none_score.min(start[0] + end[0]);
        }
        Answers {
            best: self.best(context, ranking, options.n_best),
            none_score,
            windows: self.windows.len(),
        }
    }

    fn best(&self, context: &str, ranking: Ranking, n_best: usize) -> Vec<Answer> {
        let characters = Characters::new(context);
        let mut best: Vec<Answer> = Vec::new();
        for ((first, last), score, probability) in ranking.ranked() {
            if best.len() >= n_best {
                break;
            }
            let bytes = (self.offsets[first].0, self.offsets[last].1);
            let (start, end, text) = characters.trimmed(bytes);
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
