//! A label for every token or word.

use super::classify::{label_names, softmax};
use super::entities::{Entity, entities};
use super::runner::{Runner, Sequence, read_rows};
use super::spans::Characters;
use super::{BatchOptions, InferenceError, StreamProgress};
use crate::loader::Loader;
use crate::model::TokenClassifier;
use crate::parallel::try_map;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A token's label.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Number of the label.
    pub label: usize,
    /// Its probability.
    pub score: f32,
    /// First character of the token in its text; 0 for words.
    pub start: usize,
    /// Character after its last one; 0 for words.
    pub end: usize,
}

/// A text and its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Tagged {
    /// One per token of the text, special tokens left out.
    pub tags: Vec<Tag>,
    /// Tokens that the model read, special tokens included.
    pub tokens: usize,
    /// True if the text was longer than that.
    pub truncated: bool,
}

/// Words and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct TaggedWords {
    /// Label of each word's first token; `None` for empty words and those beyond the maximum length.
    pub tags: Vec<Option<Tag>>,
    /// Tokens that the model read, special tokens included.
    pub tokens: usize,
    /// True if the words had more.
    pub truncated: bool,
}

/// A token classifier and its tokenizer, for labels of tokens or words, and entities.
///
/// ```
/// use modernbert::Tagger;
///
/// # let folder = tiny_models::token_classifier(&["O", "B-PER", "I-PER"]);
/// # let name = folder.path();
/// let tagger = Tagger::load(name)?;
/// for tagged in tagger.tag(&["one two three"])? {
///     for entity in tagger.entities(&tagged.tags) {
///         println!("{} {}..{}", entity.label, entity.start, entity.end);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tagger {
    model: TokenClassifier,
    runner: Runner,
    labels: Vec<String>,
    prefix_space: bool,
}

impl Tagger {
    /// A tagger of these parts; its labels are named by the model's config or `LABEL_0`, `LABEL_1`, ….
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model; a number of label names that differs
    /// from the number of outputs.
    pub fn new(
        model: TokenClassifier,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let labels = label_names(model.model.config(), model.outputs())?;
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        // `[CLS]` and `[SEP]` are always there, and a text needs a token beside them.
        if runner.max_length <= 2 {
            return Err(TokenizerError::MaxLength {
                max_length: runner.max_length,
                needed: 2,
            }
            .into());
        }
        Ok(Self {
            model,
            runner,
            labels,
            prefix_space: false,
        })
    }

    /// Loads a finetuned token classifier and its tokenizer, from a folder or by its name on the Hub.
    ///
    /// # Errors
    /// As [`TokenClassifier::load`] and [`Self::new`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<TokenClassifier>()?;
        let classifier = opened.classifier_for_inference(None, TokenClassifier::new)?;
        Self::new(classifier, opened.tokenizer()?, opened.batches.clone())
    }

    /// The same tagger reading each text or word as if it began with a space, for models trained on words.
    #[must_use]
    pub fn with_prefix_space(mut self, prefix_space: bool) -> Self {
        self.prefix_space = prefix_space;
        self
    }

    /// Tokens of a text at most, special tokens included; longer texts are truncated.
    pub fn max_length(&self) -> usize {
        self.runner.max_length
    }

    /// Names of the labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Labels for every token of every text, in order.
    ///
    /// # Errors
    /// A text that can't be encoded, an output that is not finite, a device that fails.
    pub fn tag<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Tagged>, InferenceError> {
        self.tag_with(texts, &mut |_| {})
    }

    /// As [`Self::tag`], reporting progress after each batch.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn tag_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<Tagged>, InferenceError> {
        let limit = self.runner.max_length;
        let encode = |text: &S| {
            let text = text.as_ref();
            let shift = usize::from(
                self.prefix_space && !text.is_empty() && !text.starts_with(char::is_whitespace),
            );
            let tokenizer = &self.runner.tokenizer;
            let (encoded, more) = if shift == 1 {
                tokenizer.encode_beginning_with_offsets(&format!(" {text}"), limit)?
            } else {
                tokenizer.encode_beginning_with_offsets(text, limit)?
            };
            let truncated = more || encoded.ids.len() > limit;
            let mut ids = encoded.ids;
            if truncated {
                ids.truncate(limit - 1);
                ids.push(tokenizer.special().sep);
            }
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
        let encoded = try_map::<_, _, InferenceError>(texts, encode)?;
        let sequences: Vec<_> = encoded.iter().map(|e| Sequence::single(&e.ids)).collect();
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

    /// One label for every word of every sentence, in order.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn tag_words<S: AsRef<str> + Sync>(
        &self,
        sentences: &[Vec<S>],
    ) -> Result<Vec<TaggedWords>, InferenceError> {
        self.tag_words_with(sentences, &mut |_| {})
    }

    /// As [`Self::tag_words`], reporting progress after each batch.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn tag_words_with<S: AsRef<str> + Sync>(
        &self,
        sentences: &[Vec<S>],
        progress: &mut dyn FnMut(StreamProgress),
    ) -> Result<Vec<TaggedWords>, InferenceError> {
        let limit = self.runner.max_length;
        let encode = |words: &Vec<S>| {
            let tokenizer = &self.runner.tokenizer;
            Ok(tokenizer.encode_words(words, self.prefix_space, limit)?)
        };
        let encoded = try_map::<_, _, InferenceError>(sentences, encode)?;
        let sequences: Vec<_> = encoded.iter().map(|e| Sequence::single(&e.ids)).collect();
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

    /// The entities that a text's tags make up, by the scheme of the labels: IOB, IOBES or BILOU, or names without a prefix. `O` is
    /// outside of all entities.
    pub fn entities(&self, tags: &[Tag]) -> Vec<Entity> {
        entities(tags, &self.labels)
    }

    /// Logits of every token of every sequence.
    fn scores(
        &self,
        sequences: &[Sequence<'_>],
        progress: &mut dyn FnMut(StreamProgress),
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
    /// Positions in the text of the tokens between `[CLS]` and `[SEP]`, in bytes.
    offsets: Vec<(usize, usize)>,
    truncated: bool,
}

/// The most probable label of a token.
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
