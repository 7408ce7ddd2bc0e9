//! Writes one split of a source, training or held-out, into shards.

use std::path::Path;

use modernbert_files::tokenizer::Tokenizer;

use super::TokenizeFolderError;
use super::index::{ShardEntry, SplitEntry, hex};
use crate::shard::{ShardWriter, TokenizerHash};

/// Settings that all shards of a source share.
#[derive(Clone, Copy)]
pub(super) struct ShardSettings<'a> {
    /// Folder of the set.
    pub(super) out: &'a Path,
    /// The source's name.
    pub(super) source: &'a str,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) hash: TokenizerHash,
    /// Tokens after which a shard ends.
    pub(super) shard_tokens: u64,
}

/// One split of a source while its shards are written.
pub(super) struct SplitWriter<'a> {
    name: &'static str,
    settings: ShardSettings<'a>,
    entry: SplitEntry,
    writer: Option<(String, ShardWriter)>,
    tokens: u64,
}

impl<'a> SplitWriter<'a> {
    pub(super) fn new(name: &'static str, settings: ShardSettings<'a>) -> Self {
        Self {
            name,
            settings,
            entry: SplitEntry::default(),
            writer: None,
            tokens: 0,
        }
    }

    /// Returns true once a sample was written.
    pub(super) fn has_samples(&self) -> bool {
        self.writer.is_some() || !self.entry.shards.is_empty()
    }

    /// Writes a document's samples.
    pub(super) fn push(&mut self, samples: &[Vec<u32>]) -> Result<(), TokenizeFolderError> {
        self.entry.documents += 1;
        self.entry.too_short += u64::from(samples.is_empty());
        for sample in samples {
            let (_, writer) = match &mut self.writer {
                Some(open) => open,
                closed => {
                    let ShardSettings {
                        out,
                        source,
                        tokenizer,
                        hash,
                        ..
                    } = self.settings;
                    let number = self.entry.shards.len();
                    let file = format!("{source}/{}-{number:05}.tokens", self.name);
                    let vocabulary = tokenizer.vocab_size();
                    let writer = ShardWriter::create(out.join(&file), vocabulary, hash)?;
                    closed.insert((file, writer))
                }
            };
            writer.push(sample)?;
            self.tokens += sample.len() as u64;
        }
        if self.tokens >= self.settings.shard_tokens {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), TokenizeFolderError> {
        if let Some((file, writer)) = self.writer.take() {
            let info = writer.commit()?;
            self.entry.samples += info.samples as u64;
            self.entry.tokens += info.tokens as u64;
            self.entry.shards.push(ShardEntry {
                file,
                samples: info.samples as u64,
                tokens: info.tokens as u64,
                sha256: hex(&info.sha256),
            });
        }
        self.tokens = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<SplitEntry, TokenizeFolderError> {
        self.close()?;
        Ok(self.entry)
    }
}
