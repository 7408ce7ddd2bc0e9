//! Resumable data-loader position.

use serde::{Deserialize, Serialize};

use super::source::Drawn;
use super::{DataSource, LengthWarmup, LoaderError, LoaderOptions};
use crate::shard::Cut;

/// Resumable data-loader position: the part of a checkpoint that makes a run continue with the very next row.
///
/// The rows of a stream are a pure function of data and settings, so `seed` and `row` would be enough
/// ([`super::TrainStream::seek`] finds a position from a row by packing everything before it again, without reading a token). The
/// samples in the packer's buffer make that work unnecessary. Data and settings are stored so that a change of either is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Seed of order and masks.
    pub seed: u64,
    /// Epoch of the first source, counted from 0, that the sample drawn next belongs to.
    pub epoch: u64,
    /// The next row, counted from 0 over the whole run and all ranks.
    pub row: u64,
    /// The first row of the batch of rows that were packed together.
    pub(super) packed_from: u64,
    /// Samples and tokens drawn from each source before it.
    pub(super) drawn: Vec<Drawn>,
    /// Samples in the packer's buffer before it, as (source, sample).
    pub(super) held: Vec<(u32, u64)>,
    /// Settings and data that the rows depend on.
    pub(super) settings: LoaderSettings,
}

/// Settings that decide which sample is in which row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoaderSettings {
    row_length: usize,
    micro_batches: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequences: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length_warmup: Option<LengthWarmup>,
    cut: Cut,
    sources: Vec<SourceSettings>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceSettings {
    name: String,
    proportion: f64,
    shards: Vec<String>,
}

impl LoaderSettings {
    pub(super) fn of(options: &LoaderOptions, sources: &[DataSource]) -> Self {
        Self {
            row_length: options.row_length,
            micro_batches: options.micro_batches,
            sequences: options.sequences,
            length_warmup: options.length_warmup,
            cut: sources
                .first()
                .map_or(Cut::WHOLE, |source| source.samples.cut_rule()),
            sources: sources
                .iter()
                .map(|source| SourceSettings {
                    name: source.name.clone(),
                    proportion: source.proportion,
                    shards: source.hashes(),
                })
                .collect(),
        }
    }
}

impl Position {
    /// Checks that this is a position of a stream with these settings.
    pub(super) fn check(
        &self,
        seed: u64,
        now: &LoaderSettings,
        sources: &[DataSource],
    ) -> Result<(), LoaderError> {
        let then = &self.settings;
        let differs =
            |setting, was: String, is: String| Err(LoaderError::Settings { setting, was, is });
        if self.seed != seed {
            return differs("seed", self.seed.to_string(), seed.to_string());
        }
        let numbers = [
            ("row_length", then.row_length, now.row_length),
            ("micro_batches", then.micro_batches, now.micro_batches),
            ("max_length", then.cut.max_length, now.cut.max_length),
            ("min_length", then.cut.min_length, now.cut.min_length),
            (
                "the number of sources",
                then.sources.len(),
                now.sources.len(),
            ),
        ];
        for (setting, was, is) in numbers {
            if was != is {
                return differs(setting, was.to_string(), is.to_string());
            }
        }
        if then.sequences != now.sequences {
            let word = |sequences: Option<usize>| match sequences {
                Some(most) => format!("off (at most {most} sequences a row)"),
                None => "on".to_string(),
            };
            return differs("packing", word(then.sequences), word(now.sequences));
        }
        if then.length_warmup != now.length_warmup {
            let word = |warmup: Option<LengthWarmup>| match warmup {
                Some(LengthWarmup {
                    from, to, tokens, ..
                }) => format!("from {from} to {to} over {tokens} tokens"),
                None => "off".to_string(),
            };
            let (was, is) = (word(then.length_warmup), word(now.length_warmup));
            return differs("the sequence-length warmup", was, is);
        }
        if then.cut != now.cut {
            let word = |cut: &Cut| format!("{:?}", cut.long_documents).to_lowercase();
            return differs("long_documents", word(&then.cut), word(&now.cut));
        }
        for ((was, is), source) in then.sources.iter().zip(&now.sources).zip(sources) {
            if was.name != is.name {
                return differs("a source's name", was.name.clone(), is.name.clone());
            }
            if was.proportion != is.proportion {
                return differs(
                    "a source's proportion",
                    was.proportion.to_string(),
                    is.proportion.to_string(),
                );
            }
            if was.shards.len() != is.shards.len() {
                return differs(
                    "the number of a source's shards",
                    was.shards.len().to_string(),
                    is.shards.len().to_string(),
                );
            }
            let shards = was.shards.iter().zip(&is.shards);
            for ((was, is), shard) in shards.zip(source.samples.shards()) {
                if was != is {
                    return Err(LoaderError::Changed {
                        place: shard.path().display().to_string(),
                        was: was.clone(),
                        is: is.clone(),
                    });
                }
            }
        }
        let unknown = |&(source, sample): &(u32, u64)| {
            sources
                .get(source as usize)
                .is_none_or(|source| sample >= source.samples.len())
        };
        if self.drawn.len() != sources.len()
            || self.row < self.packed_from
            || self.held.iter().any(unknown)
        {
            return Err(LoaderError::Position("it contradicts itself".into()));
        }
        Ok(())
    }
}
