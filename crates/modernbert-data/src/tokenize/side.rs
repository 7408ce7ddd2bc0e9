//! What is trained on, or what is held out, on its way into shards.

use super::TokenizeFolderError;
use super::folder::{ShardEntry, SideEntry, hex};
use super::run::Maker;
use crate::shard::ShardWriter;

/// One side of a source while its shards are written.
pub(super) struct Side {
    name: &'static str,
    entry: SideEntry,
    writer: Option<(String, ShardWriter)>,
    tokens: u64,
}

impl Side {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            entry: SideEntry::default(),
            writer: None,
            tokens: 0,
        }
    }

    /// Writes a document's samples; how many tokens they have.
    pub(super) fn push(
        &mut self,
        samples: Vec<Vec<u32>>,
        maker: &Maker,
    ) -> Result<u64, TokenizeFolderError> {
        self.entry.documents += 1;
        self.entry.too_short += u64::from(samples.is_empty());
        let mut tokens = 0;
        for sample in samples {
            let (_, writer) = match &mut self.writer {
                Some(open) => open,
                closed => {
                    let number = self.entry.shards.len();
                    let file = format!("{}/{}-{number:05}.tokens", maker.source.name, self.name);
                    let vocabulary = maker.tokenizer.vocab_size();
                    let writer =
                        ShardWriter::create(maker.out.join(&file), vocabulary, maker.hash)?;
                    closed.insert((file, writer))
                }
            };
            writer.push(&sample)?;
            tokens += sample.len() as u64;
        }
        self.tokens += tokens;
        if self.tokens >= maker.options.shard_tokens {
            self.close()?;
        }
        Ok(tokens)
    }

    fn close(&mut self) -> Result<(), TokenizeFolderError> {
        if let Some((file, writer)) = self.writer.take() {
            let info = writer.finish()?;
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

    pub(super) fn finish(mut self) -> Result<SideEntry, TokenizeFolderError> {
        self.close()?;
        Ok(self.entry)
    }
}
