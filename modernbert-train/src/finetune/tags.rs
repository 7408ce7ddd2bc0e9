//! Token classification: words or texts with a tag for each word or token.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::LoadReport;
use modernbert::device::read;
use modernbert::model::TokenClassifier;
use modernbert::parallel::try_map;
use modernbert::tokenizer::{Tokenizer, TokenizerError};
use modernbert::{HeadStart, LoadError, Loader};
use sha2::{Digest, Sha256};
use std::path::Path;

use super::FinetuneError;
use super::example::{Example, cross_entropy};
use super::predict::largest;
use super::table::{LabelSet, TableError, TaggedContent, TaggedFile, TaggedRow, TextSpan};

/// The class of `O`, of which [`TaggedFile::tag_set`] makes the first.
const OUTSIDE: u32 = 0;

/// A sequence with a tag for some of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedSample {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// The tag's class for each token; `None` for special tokens and for all but the first token of a word.
    pub tags: Vec<Option<u32>>,
    /// Classes of the words or tokens that were truncated: they count as predicted to be outside of all spans.
    pub cut: Vec<u32>,
}

/// Sequences, and counts of the unusual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedTags {
    /// One per row, in order.
    pub samples: Vec<TaggedSample>,
    /// Number of rows that were truncated because they were longer than the limit.
    pub truncated: usize,
    /// Number of spans of texts that begin or end inside of a token; the whole token has the tag of the span.
    pub inside_tokens: usize,
}

/// Tokenizes the rows of a file on all cores, at most `max_length` tokens each.
///
/// Words are read as if each began with a space, as [`Tagger::tag_words`](modernbert::Tagger::tag_words) reads them in the program `tag`,
/// and the first token of a word has its tag. Texts are read as [`Tagger::tag`](modernbert::Tagger::tag) reads them, which tags every
/// token: so every token of a span is labelled, `B-` the first and `I-` the others.
///
/// # Errors
/// A tag that is not in the set, with file and line; a word or text that can't be encoded; a limit too small for the special tokens.
pub fn encode_tags(
    tokenizer: &Tokenizer,
    file: &TaggedFile,
    set: &LabelSet,
    max_length: usize,
) -> Result<EncodedTags, TagsError> {
    if max_length <= 2 {
        return Err(TokenizerError::MaxLength {
            max_length,
            needed: 2,
        }
        .into());
    }
    let encode = |row: &TaggedRow| match &row.content {
        TaggedContent::Words { words, tags } => {
            let place = (file.path.as_path(), row.line);
            words_sample(
                tokenizer,
                place,
                words,
                &tag_ids(set, place, tags)?,
                max_length,
            )
        }
        TaggedContent::Text { text, spans } => {
            let place = (file.path.as_path(), row.line);
            text_sample(tokenizer, place, text, spans, set, max_length)
        }
    };
    let mut all = EncodedTags::default();
    for row in try_map::<_, _, TagsError>(&file.rows, encode)? {
        all.truncated += usize::from(row.truncated);
        all.inside_tokens += row.inside_tokens;
        all.samples.push(row.sample);
    }
    Ok(all)
}

/// A row of a file as a sequence.
struct Row {
    sample: TaggedSample,
    truncated: bool,
    /// Number of spans that begin or end inside of a token.
    inside_tokens: usize,
}

fn tag_ids(
    set: &LabelSet,
    (path, line): (&Path, u64),
    tags: &[String],
) -> Result<Vec<u32>, TableError> {
    tags.iter()
        .map(|tag| set.known_id(path, line, tag))
        .collect()
}

fn words_sample(
    tokenizer: &Tokenizer,
    (path, line): (&Path, u64),
    words: &[String],
    tags: &[u32],
    max_length: usize,
) -> Result<Row, TagsError> {
    let encoded = tokenizer.encode_words(words, true, max_length)?;
    let mut sample = TaggedSample {
        tags: vec![None; encoded.ids.len()],
        ids: encoded.ids,
        cut: Vec::new(),
    };
    // Only words after the last one that has a token can have been cut off.
    let kept = encoded.first.iter().rposition(Option::is_some);
    let kept = kept.map_or(0, |last| last + 1);
    for (index, (word, &tag)) in words.iter().zip(tags).enumerate() {
        match encoded.first[index] {
            Some(at) => sample.tags[at] = Some(tag),
            None if encoded.truncated && index >= kept => sample.cut.push(tag),
            None => {
                return Err(TagsError::NoToken {
                    path: path.to_path_buf(),
                    line,
                    word: word.clone(),
                });
            }
        }
    }
    Ok(Row {
        sample,
        truncated: encoded.truncated,
        inside_tokens: 0,
    })
}

fn text_sample(
    tokenizer: &Tokenizer,
    place: (&Path, u64),
    text: &str,
    spans: &[TextSpan],
    set: &LabelSet,
    max_length: usize,
) -> Result<Row, TagsError> {
    let encoded = tokenizer.encode_with_offsets(text)?;
    let mut bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    bytes.push(text.len());
    // The blank before its word is no part of a token.
    let trimmed = |&(start, end): &(usize, usize)| {
        let piece = text.get(start..end).unwrap_or_default();
        match piece.trim() {
            "" => (start, end),
            word => {
                let start = start + piece.len() - piece.trim_start().len();
                (start, start + word.len())
            }
        }
    };
    let last = encoded.ids.len() - 1;
    let tokens: Vec<(usize, usize)> = encoded.offsets[1..last].iter().map(trimmed).collect();
    let mut tags = vec![OUTSIDE; tokens.len()];
    let mut inside_tokens = 0;
    for span in spans {
        let (start, end) = (bytes[span.start], bytes[span.end]);
        let [begin, inside] = ["B", "I"].map(|part| format!("{part}-{}", span.label));
        let begin = set.known_id(place.0, place.1, &begin)?;
        let inside = set.known_id(place.0, place.1, &inside)?;
        let mut own = tokens
            .iter()
            .zip(&mut tags)
            .filter(|((s, e), tag)| *s < end && *e > start && **tag == OUTSIDE);
        let (mut from, mut to) = (start, end);
        match own.next() {
            Some((&(s, e), tag)) => {
                *tag = begin;
                (from, to) = (s, e);
            }
            // All of its tokens belong to the span before.
            None => from += 1,
        }
        for (&(_, e), tag) in own {
            *tag = inside;
            to = e;
        }
        inside_tokens += usize::from((from, to) != (start, end));
    }
    let mut ids = encoded.ids;
    let mut cut = Vec::new();
    let truncated = ids.len() > max_length;
    if truncated {
        ids.truncate(max_length - 1);
        ids.push(tokenizer.special().sep);
        cut = tags.split_off(max_length - 2);
    }
    let special = std::iter::once(None);
    let tags = special
        .clone()
        .chain(tags.into_iter().map(Some))
        .chain(special);
    let sample = TaggedSample {
        ids,
        tags: tags.collect(),
        cut,
    };
    Ok(Row {
        sample,
        truncated,
        inside_tokens,
    })
}

/// Reason why rows can't be tagged sequences.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    /// A tag that the training set doesn't have.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A text that can't be encoded, or a limit too small for the special tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A word of characters that the tokenizer drops.
    #[error("{}:{line}: the word {word:?} has no token; remove it with its tag", path.display())]
    NoToken {
        /// The file.
        path: std::path::PathBuf,
        /// The line of the sentence, from 1.
        line: u64,
        /// The word.
        word: String,
    },
}

impl Example for TaggedSample {
    type Model = TokenClassifier;

    fn load(
        loader: Loader,
        outputs: usize,
        seed: u64,
    ) -> Result<(Self::Model, LoadReport), LoadError> {
        TokenClassifier::load_for_finetuning(loader, outputs, HeadStart::Fresh, seed)
    }

    fn outputs(model: &TokenClassifier) -> usize {
        model.outputs()
    }

    fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        std::iter::once(self.ids.as_slice())
    }

    fn targets(&self) -> usize {
        self.tags.iter().flatten().count()
    }

    fn mismatch_reason(&self, _first: &Self, outputs: usize) -> Option<String> {
        if self.tags.len() != self.ids.len() {
            let (tags, tokens) = (self.tags.len(), self.ids.len());
            return Some(format!("{tags} tags for {tokens} tokens"));
        }
        let mut tags = self.tags.iter().flatten();
        let beyond = tags.find(|&&tag| tag as usize >= outputs)?;
        Some(format!("tag {beyond}, but the model has {outputs} outputs"))
    }

    fn loss(model: &TokenClassifier, batch: &PackedBatch, examples: &[Self]) -> Tensor<1> {
        let tags: Vec<Option<u32>> = examples.iter().flat_map(|e| e.tags.clone()).collect();
        let output = model.forward(batch, &tags);
        output.expect("tags are checked before the run").loss
    }

    fn predict(
        model: &TokenClassifier,
        batch: &PackedBatch,
        examples: &[&Self],
    ) -> Result<Vec<Vec<f32>>, FinetuneError> {
        let logits = read(model.logits(batch))?;
        let mut rows = logits.chunks(model.outputs());
        let of_example = |example: &&Self| -> Vec<f32> {
            let own = rows.by_ref().take(example.ids.len()).zip(&example.tags);
            own.filter(|(_, tag)| tag.is_some())
                .flat_map(|(row, _)| row.to_vec())
                .collect()
        };
        Ok(examples.iter().map(of_example).collect())
    }

    fn width(&self, outputs: usize) -> usize {
        outputs * self.targets()
    }

    fn loss_of(&self, outputs: &[f32]) -> Option<f64> {
        let targets = self.targets();
        if targets == 0 {
            return outputs.is_empty().then_some(0.0);
        }
        let width = outputs.len() / targets;
        if width == 0 || outputs.len() != width * targets {
            return None;
        }
        let rows = outputs.chunks(width).zip(self.tags.iter().flatten());
        rows.map(|(row, &tag)| cross_entropy(row, tag as usize))
            .sum()
    }

    fn hash_target(&self, hash: &mut Sha256) {
        for tag in &self.tags {
            hash.update(tag.map_or(u32::MAX, |tag| tag).to_le_bytes());
        }
        for tag in &self.cut {
            hash.update(tag.to_le_bytes());
        }
    }
}

impl TaggedSample {
    /// Classes of all words (of a text: of all tokens), the truncated ones too.
    pub fn truth(&self) -> Vec<u32> {
        let kept = self.tags.iter().flatten();
        kept.chain(&self.cut).copied().collect()
    }

    /// The classes that outputs of a model with `outputs` outputs predict for the same words or tokens.
    pub fn predicted(&self, values: &[f32], outputs: usize) -> Vec<u32> {
        let kept = values.chunks(outputs.max(1)).map(|row| largest(row) as u32);
        kept.chain(self.cut.iter().map(|_| OUTSIDE)).collect()
    }
}
