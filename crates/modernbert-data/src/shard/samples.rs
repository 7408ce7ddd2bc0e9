//! Documents of shards as the samples of a phase, with a maximum length.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LongDocuments, Shard, ShardError};

/// Rule that cuts documents into the samples of a phase.
///
/// A document is what a shard calls a sample: `[CLS] … [SEP]`. One of up to `max_length` tokens is taken whole. A longer one is cut
/// between its first and last token, which every piece gets too: a piece is `[CLS] … [SEP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Tokens of a sample at most, `[CLS]` and `[SEP]` included; at least 3.
    pub max_length: usize,
    /// A last piece with fewer tokens is dropped.
    pub min_length: usize,
    /// Treatment of longer documents.
    pub long_documents: LongDocuments,
}

impl Cut {
    /// Every document whole, however long.
    pub const WHOLE: Self = Self {
        max_length: usize::MAX,
        min_length: 0,
        long_documents: LongDocuments::Truncate,
    };

    fn pieces(&self, length: usize) -> usize {
        if length <= self.max_length {
            return 1;
        }
        match self.long_documents {
            LongDocuments::Truncate => 1,
            LongDocuments::Split => {
                let (content, room) = (length - 2, self.max_length - 2);
                let rest = content % room;
                content / room + usize::from(rest > 0 && rest + 2 >= self.min_length)
            }
        }
    }

    /// Range of piece `piece` in a document of `length` tokens, without the first and last token that are added; `None` for a
    /// document that is taken whole.
    fn piece(&self, length: usize, piece: usize) -> Option<Range<usize>> {
        if length <= self.max_length {
            return None;
        }
        let room = self.max_length - 2;
        let start = 1 + piece * room;
        Some(start..(start + room).min(length - 1))
    }
}

/// The samples that a [`Cut`] makes of the documents of several shards, by number.
#[derive(Debug, Clone)]
pub struct Samples {
    parts: Arc<[ShardSamples]>,
    cut: Cut,
    tokens: u64,
}

#[derive(Debug)]
struct ShardSamples {
    shard: Arc<Shard>,
    /// Number of its first sample.
    first: u64,
    /// Documents of several pieces, as (number of the first piece within the part, document): all others are one sample each.
    long: Vec<(u64, u64)>,
    samples: u64,
}

impl Samples {
    /// Cuts the documents of `shards`, in their order. Reads every document's length once.
    ///
    /// # Panics
    /// If [`Cut::max_length`] is below 3, which leaves no space for text.
    pub fn new(shards: impl IntoIterator<Item = Arc<Shard>>, cut: Cut) -> Self {
        assert!(cut.max_length >= 3, "samples of {} tokens", cut.max_length);
        let (mut first, mut tokens) = (0, 0);
        let parts = shards.into_iter().map(|shard| {
            let (mut long, mut samples) = (Vec::new(), 0u64);
            for document in 0..shard.len() {
                let length = shard.sample_len(document);
                let pieces = cut.pieces(length);
                if pieces > 1 {
                    long.push((samples, document as u64));
                }
                samples += pieces as u64;
                tokens += (0..pieces)
                    .map(|piece| match cut.piece(length, piece) {
                        Some(range) => range.len() as u64 + 2,
                        None => length as u64,
                    })
                    .sum::<u64>();
            }
            let part = ShardSamples {
                shard,
                first,
                long,
                samples,
            };
            first += samples;
            part
        });
        let parts: Vec<ShardSamples> = parts.collect();
        Self {
            parts: parts.into(),
            cut,
            tokens,
        }
    }

    /// Number of samples.
    pub fn len(&self) -> u64 {
        self.parts
            .last()
            .map_or(0, |part| part.first + part.samples)
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all samples.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The rule that cut the documents.
    pub fn cut_rule(&self) -> Cut {
        self.cut
    }

    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.parts.iter().map(|part| &part.shard)
    }

    /// Tokens of sample `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn sample_len(&self, index: u64) -> usize {
        let (part, document, piece) = self.locate(index);
        let length = part.shard.sample_len(document);
        match self.cut.piece(length, piece) {
            Some(range) => range.len() + 2,
            None => length,
        }
    }

    /// Refuses a shard that became shorter; see [`Shard::check_length`].
    ///
    /// # Errors
    /// The shard of sample `index` is shorter than when it was opened.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn check_length(&self, index: u64) -> Result<(), ShardError> {
        self.part(index).shard.check_length()
    }

    /// Sample `index`, after [`Self::check_length`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn read(&self, index: u64) -> Result<Vec<u32>, ShardError> {
        self.check_length(index)?;
        Ok(self.get(index))
    }

    /// Sample `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn get(&self, index: u64) -> Vec<u32> {
        let (part, document, piece) = self.locate(index);
        let length = part.shard.sample_len(document);
        match self.cut.piece(length, piece) {
            None => part.shard.get(document),
            Some(range) => {
                let mut ids = part.shard.get_range(document, 0..1);
                ids.extend(part.shard.get_range(document, range));
                ids.extend(part.shard.get_range(document, length - 1..length));
                ids
            }
        }
    }

    /// The part of a sample.
    fn part(&self, index: u64) -> &ShardSamples {
        assert!(index < self.len(), "sample {index} of {}", self.len());
        &self.parts[self.parts.partition_point(|part| part.first <= index) - 1]
    }

    /// The part, document and piece of a sample.
    fn locate(&self, index: u64) -> (&ShardSamples, usize, usize) {
        let part = self.part(index);
        let within = index - part.first;
        let long = part.long.partition_point(|&(first, _)| first <= within);
        let Some(&(first, document)) = long.checked_sub(1).map(|at| &part.long[at]) else {
            return (part, within as usize, 0);
        };
        let length = part.shard.sample_len(document as usize);
        let (pieces, piece) = (self.cut.pieces(length) as u64, within - first);
        if piece < pieces {
            (part, document as usize, piece as usize)
        } else {
            // Every document after the last long one before this sample is one sample.
            (part, (document + 1 + piece - pieces) as usize, 0)
        }
    }
}
