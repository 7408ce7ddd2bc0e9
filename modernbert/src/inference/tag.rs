//! A label for every token or word, and the entities they make up.

use std::path::Path;

use burn::tensor::Device;
use rayon::prelude::*;

use super::classify::{classifier_outputs, label_names, softmax};
use super::runner::{Runner, read_rows};
use super::spans::Characters;
use super::{BatchOptions, InferenceError, Progress};
use crate::checkpoint::{CheckpointError, open_checked};
use crate::model::{Precision, TokenClassifier};
use crate::tokenizer::Tokenizer;

/// A token's label.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Number of the label.
    pub label: usize,
    /// Its probability.
    pub score: f32,
    /// First character of the token in its text; 0 for words.
    pub start: usize,
    /// The character behind its last one; 0 for words.
    pub end: usize,
}

/// A text and its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Tagged {
    /// One per token of the text, special tokens left out.
    pub tags: Vec<Tag>,
    /// Tokens the model saw, special tokens included.
    pub tokens: usize,
    /// Whether the text was longer than that.
    pub truncated: bool,
}

/// Words and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct TaggedWords {
    /// One per word, that of its first token; `None` for empty words and those beyond the maximum length.
    pub tags: Vec<Option<Tag>>,
    /// Tokens the model saw, special tokens included.
    pub tokens: usize,
    /// Whether the words had more.
    pub truncated: bool,
}

/// Neighbouring tokens that name one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Kind of the thing, without the `B-` or `I-` of its tokens.
    pub label: String,
    /// Mean probability of its tokens' labels.
    pub score: f32,
    /// First character.
    pub start: usize,
    /// The character behind the last one.
    pub end: usize,
}

/// A token classifier and its tokenizer.
#[derive(Debug)]
pub struct Tagger {
    model: TokenClassifier,
    runner: Runner,
    labels: Vec<String>,
}

impl Tagger {
    /// A tagger of these parts with `outputs` labels, named by the model's config or `LABEL_0`, `LABEL_1`, ….
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, as many names as there are no outputs.
    pub fn new(
        model: TokenClassifier,
        outputs: usize,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let labels = label_names(model.model.config(), outputs)?;
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        Ok(Self {
            model,
            runner,
            labels,
        })
    }

    /// Loads a finetuned token classifier and its tokenizer.
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
        let (model, report) = TokenClassifier::from_folder(folder, outputs, 0, device)?;
        if let Some(name) = report.fresh.into_iter().next() {
            let place = folder.display().to_string();
            return Err(CheckpointError::Missing { place, name }.into());
        }
        let tokenizer = Tokenizer::from_folder(folder)?;
        Self::new(model.with_precision(precision), outputs, tokenizer, batches)
    }

    /// Names of the labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Labels for every token of every text, in order.
    ///
    /// With `prefix_space` a text is read as if a space stood before it, for models trained on words.
    ///
    /// # Errors
    /// A tokenizer that doesn't belong to the model; a device that fails.
    pub fn tag<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        prefix_space: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Tagged>, InferenceError> {
        let limit = self.runner.max_length;
        let encode = |text: &S| {
            let text = text.as_ref();
            let shift = usize::from(
                prefix_space && !text.is_empty() && !text.starts_with(char::is_whitespace),
            );
            let encoded = if shift == 1 {
                self.runner
                    .tokenizer
                    .encode_with_offsets(&format!(" {text}"))?
            } else {
                self.runner.tokenizer.encode_with_offsets(text)?
            };
            let truncated = encoded.ids.len() > limit;
            let mut ids = encoded.ids;
            if truncated {
                ids.truncate(limit - 1);
                ids.push(self.runner.tokenizer.special().sep);
            }
            self.runner.check_ids(&ids)?;
            let inner = encoded.offsets.iter().skip(1).take(ids.len() - 2);
            let back = |&(start, end): &(usize, usize)| {
                (start.saturating_sub(shift), end.saturating_sub(shift))
            };
            Ok(Pieces {
                offsets: inner.map(back).collect(),
                ids,
                truncated,
            })
        };
        // `[CLS]` and `[SEP]` always stand there.
        if limit < 2 {
            let max_length = limit;
            return Err(crate::tokenizer::TokenizerError::MaxLength {
                max_length,
                needed: 2,
            }
            .into());
        }
        let encoded: Vec<_> = texts
            .par_iter()
            .map(encode)
            .collect::<Result<_, InferenceError>>()?;
        let sequences: Vec<&[u32]> = encoded.iter().map(|e| e.ids.as_slice()).collect();
        let scores = self.scores(&sequences, progress)?;
        let finish = |((rows, pieces), text): ((Vec<Vec<f32>>, &Pieces), &S)| {
            let characters = Characters::new(text.as_ref());
            let tags = pieces
                .offsets
                .iter()
                .zip(&rows[1..])
                .map(|(&offsets, row)| {
                    let (start, end, _) = characters.trimmed(offsets);
                    tag(row, start, end)
                });
            Tagged {
                tags: tags.collect(),
                tokens: pieces.ids.len(),
                truncated: pieces.truncated,
            }
        };
        let found = scores.into_iter().zip(&encoded).zip(texts);
        Ok(found.map(finish).collect())
    }

    /// One label for every word of every sentence, in order; `prefix_space` as in [`Tokenizer::encode_words`].
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn tag_words<S: AsRef<str> + Sync>(
        &self,
        sentences: &[Vec<S>],
        prefix_space: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<TaggedWords>, InferenceError> {
        let limit = self.runner.max_length;
        let encode = |words: &Vec<S>| {
            let encoded = self
                .runner
                .tokenizer
                .encode_words(words, prefix_space, limit)?;
            self.runner.check_ids(&encoded.ids)?;
            Ok(encoded)
        };
        let encoded: Vec<_> = sentences
            .par_iter()
            .map(encode)
            .collect::<Result<_, InferenceError>>()?;
        let sequences: Vec<&[u32]> = encoded.iter().map(|e| e.ids.as_slice()).collect();
        let scores = self.scores(&sequences, progress)?;
        let finish =
            |(rows, encoded): (Vec<Vec<f32>>, &crate::tokenizer::EncodedWords)| TaggedWords {
                tags: encoded
                    .first
                    .iter()
                    .map(|first| first.map(|at| tag(&rows[at], 0, 0)))
                    .collect(),
                tokens: encoded.ids.len(),
                truncated: encoded.truncated,
            };
        Ok(scores.into_iter().zip(&encoded).map(finish).collect())
    }

    /// The entities that a text's tags make up: tokens of one kind in a row, a new one at every `B-`; `O` is none.
    ///
    /// Labels without `B-` or `I-` are kinds of their own.
    pub fn entities(&self, tags: &[Tag]) -> Vec<Entity> {
        let mut entities: Vec<(Entity, usize)> = Vec::new();
        let mut open = false;
        for tag in tags {
            let name = self.labels.get(tag.label).map_or("O", String::as_str);
            let (begins, kind) = match (name.strip_prefix("B-"), name.strip_prefix("I-")) {
                (Some(kind), _) => (true, kind),
                (_, Some(kind)) => (false, kind),
                _ => (false, name),
            };
            if kind == "O" {
                open = false;
                continue;
            }
            match entities.last_mut() {
                Some((entity, count)) if open && !begins && entity.label == kind => {
                    entity.end = tag.end.max(entity.end);
                    entity.score += tag.score;
                    *count += 1;
                }
                _ => entities.push((
                    Entity {
                        label: kind.to_string(),
                        score: tag.score,
                        start: tag.start,
                        end: tag.end,
                    },
                    1,
                )),
            }
            open = true;
        }
        let mean = |(mut entity, count): (Entity, usize)| {
            entity.score /= count as f32;
            entity
        };
        entities.into_iter().map(mean).collect()
    }

    /// Logits of every token of every sequence.
    fn scores(
        &self,
        sequences: &[&[u32]],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Vec<Vec<f32>>>, InferenceError> {
        let encoder = &self.model.model;
        self.runner.run(sequences, encoder, progress, |batch| {
            let mut rows = read_rows(self.model.logits(batch))?.into_iter();
            let lengths = batch.layout.lengths();
            Ok(lengths
                .map(|length| rows.by_ref().take(length).collect())
                .collect())
        })
    }
}

/// A text as tokens.
struct Pieces {
    ids: Vec<u32>,
    /// Where the tokens between `[CLS]` and `[SEP]` stand in the text, in bytes.
    offsets: Vec<(usize, usize)>,
    truncated: bool,
}

/// The likeliest label of a token.
fn tag(logits: &[f32], start: usize, end: usize) -> Tag {
    let scores = softmax(logits);
    let best = (0..scores.len()).reduce(|best, i| if scores[i] > scores[best] { i } else { best });
    let label = best.unwrap_or(0);
    Tag {
        label,
        score: scores.get(label).copied().unwrap_or(0.0),
        start,
        end,
    }
}
