//! Holding documents out for evaluation.

use std::collections::BTreeMap;
use std::fmt;

use super::{Corpus, CorpusError, Document, Seen, bytes, rank};

/// Of a corpus that is small for the requested bytes, one part in this many is held out.
const LARGEST_PART: usize = 5;

/// Amount of text that is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EvalSize {
    /// This share of all bytes, between 0 and 1.
    Fraction(f64),
    /// About this many bytes, and at most a fifth of the corpus.
    Bytes(usize),
}

/// The unit of a split, which is never divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitBy {
    /// Whole groups: no held-out document is in a group with a training document.
    Group,
    /// Whole documents of a single group.
    Document,
    /// The last lines of the longest document, because no smaller unit could be held out.
    Lines,
}

impl fmt::Display for SplitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "whole groups",
            Self::Document => "whole documents",
            Self::Lines => "the end of the longest document",
        })
    }
}

/// A corpus divided into training and held-out documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Documents to train on.
    pub train: Vec<Document>,
    /// Documents to evaluate with.
    pub eval: Vec<Document>,
    /// The unit of the split.
    pub by: SplitBy,
    /// Bytes that were to be held out, if [`EvalSize::Bytes`] asked for more than a fifth of the corpus.
    pub limited_to: Option<usize>,
    /// Documents dropped because another one has the same text.
    pub duplicates: usize,
}

/// Holds out about `size` of a corpus; `seed` decides which documents.
///
/// Duplicates are dropped first, so that no text is in both splits. Then whole groups are held out, as many
/// as fit into `size`; of a corpus with a single group, whole documents. If even the smallest of them is more than
/// twice as large as `size`, as with a single long text, the last lines of the longest document are held out instead.
pub fn split(corpus: Corpus, size: EvalSize, seed: u64) -> Result<Split, CorpusError> {
    let mut documents = corpus.documents;
    let all = documents.len();
    let mut seen = Seen::default();
    documents.retain(|document| seen.insert(&document.text));
    let duplicates = all - documents.len();

    let total = bytes(&documents);
    if total < 2 {
        return Err(CorpusError::TooSmall { bytes: total });
    }
    let mut limited_to = None;
    let target = match size {
        EvalSize::Fraction(share) if share > 0.0 && share < 1.0 => (total as f64 * share) as usize,
        EvalSize::Fraction(share) => return Err(CorpusError::Fraction(share)),
        EvalSize::Bytes(bytes) => {
            let most = (total / LARGEST_PART).max(1);
            limited_to = (bytes > most).then_some(most);
            bytes.min(most)
        }
    };
    // At least a byte, and at most half: the larger part is for training.
    let target = target.clamp(1, total / 2);

    let group = |document: &Document| document.group.clone();
    let single = documents
        .iter()
        .all(|document| document.group == documents[0].group);
    let by = if single {
        SplitBy::Document
    } else {
        SplitBy::Group
    };
    // Within a single group, each document is a unit of its own.
    let unit = |document: &Document| {
        if single {
            document.name.clone()
        } else {
            group(document)
        }
    };
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for document in &documents {
        *sizes.entry(unit(document)).or_default() += document.text.len();
    }
    let chosen = choose(&sizes, target, seed);
    if chosen.is_empty() {
        let (train, eval) = cut_longest(documents, target)?;
        return Ok(Split {
            train,
            eval,
            by: SplitBy::Lines,
            limited_to,
            duplicates,
        });
    }
    let (eval, train) = documents
        .into_iter()
        .partition(|document| chosen.contains(&unit(document)));
    Ok(Split {
        train,
        eval,
        by,
        limited_to,
        duplicates,
    })
}

/// Names whose sizes add up to at most `target`, in the order of their hashes; only the smallest if none fits and it is
/// at most twice as large; else none.
fn choose(sizes: &BTreeMap<String, usize>, target: usize, seed: u64) -> Vec<String> {
    let mut names: Vec<&String> = sizes.keys().collect();
    names.sort_by_cached_key(|name| rank(seed, name));
    let mut chosen = Vec::new();
    let mut taken = 0;
    for name in &names {
        if taken + sizes[*name] <= target {
            taken += sizes[*name];
            chosen.push((*name).clone());
        }
    }
    if chosen.is_empty() && sizes.len() > 1 {
        let smallest = names.iter().min_by_key(|name| sizes[**name]);
        chosen.extend(
            smallest
                .filter(|name| sizes[**name] <= 2 * target)
                .map(|name| (*name).clone()),
        );
    }
    chosen
}

/// Holds out the end of the longest document.
fn cut_longest(
    mut documents: Vec<Document>,
    target: usize,
) -> Result<(Vec<Document>, Vec<Document>), CorpusError> {
    let total = bytes(&documents);
    let longest = documents
        .iter_mut()
        .max_by_key(|document| document.text.len());
    let too_small = CorpusError::TooSmall { bytes: total };
    let Some(document) = longest else {
        return Err(too_small);
    };
    let Some(at) = split_position(&document.text, target) else {
        return Err(too_small);
    };
    let text = document.text.split_off(at);
    let tail = Document {
        name: format!("{} (end)", document.name),
        group: document.group.clone(),
        text,
    };
    if document.text.trim().is_empty() || tail.text.trim().is_empty() {
        return Err(too_small);
    }
    Ok((documents, vec![tail]))
}

/// Position of the last `target` bytes of a text: at the beginning of a line, else of a word, else of a character.
fn split_position(text: &str, target: usize) -> Option<usize> {
    let wanted = text.ceil_char_boundary(text.len().checked_sub(target)?);
    let (before, after) = text.split_at(wanted);
    let inside = |at: &usize| *at > 0 && *at < text.len();
    let line_after = after.find('\n').map(|at| wanted + at + 1).filter(inside);
    let line_before = before.rfind('\n').map(|at| at + 1).filter(inside);
    let word = after
        .find(char::is_whitespace)
        .map(|at| wanted + at)
        .filter(inside);
    line_after
        .or(line_before)
        .or(word)
        .or(Some(wanted).filter(inside))
}
