//! Tokenizing sources into a folder of shards.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use modernbert_files::atomic::write_atomically;
use modernbert_files::tokenizer::Tokenizer;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::TokenizeFolderError;
use super::held_out::{Division, Made};
use super::index::{INDEX_FILE, Index, SourceEntry};
use super::source::{SeenFiles, TokenizeSource, read, size};
use super::space::check_space;
use super::split_writer::ShardSettings;
use super::staging::Staging;
use crate::formats::{Content, FormatError, InputFile, Record};
use crate::shard::{Cut, LongDocuments, TokenizerHash};

/// Batches read ahead while one is tokenized.
const AHEAD: usize = 2;

/// Settings of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeFolderOptions {
    /// Cuts documents now; `None` keeps them whole, so that each phase cuts them for its own length.
    pub cut: Option<Cut>,
    /// Documents and pieces with fewer tokens, `[CLS]` and `[SEP]` included, are dropped.
    pub min_length: usize,
    /// Share of the documents that is held out, by the hash of their content; 0 holds nothing out.
    pub eval_fraction: f64,
    /// Seed of that choice.
    pub seed: u64,
    /// Tokens after which a shard ends.
    pub shard_tokens: u64,
    /// Threads that tokenize.
    pub threads: usize,
    /// Skips rows that can't be read instead of stopping at the first.
    pub skip_unreadable: bool,
    /// Replaces an existing set of shards.
    pub overwrite: bool,
}

impl Default for TokenizeFolderOptions {
    fn default() -> Self {
        Self {
            cut: None,
            min_length: 8,
            eval_fraction: 0.01,
            seed: 17,
            shard_tokens: 100_000_000,
            threads: thread::available_parallelism().map_or(1, usize::from),
            skip_unreadable: false,
            overwrite: false,
        }
    }
}

/// An event of a tokenization, for progress.
#[derive(Debug)]
pub enum TokenizeEvent<'a> {
    /// A source is about to be read: its name, and the bytes of its files on disk.
    Source(&'a str, u64),
    /// Documents, tokens and bytes on disk that are done since the last event.
    Done(u64, u64, u64),
    /// A row could not be read and was skipped.
    Unreadable(&'a FormatError),
}

/// The folder that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeReport {
    /// The folder's index.
    pub index: Index,
    /// Files that were left out for their ending.
    pub skipped_files: usize,
    /// Links, symbolic and hard, to files that were read under another name.
    pub repeated_files: usize,
}

/// Tokenizes `sources` into shards, and writes the tokenizer and an index beside them.
///
/// Each source is read once, by a separate thread, while the batch before is tokenized on `threads` cores. A document is held out by
/// the hash of its content: equal documents are in the same split, so that no evaluated document was trained on. Everything is written to
/// a temporary folder inside `out` and appears at once when it is finished; an old set is kept until then. `see` is called with each
/// event, at least for every few megabytes of text; [`ControlFlow::Break`] ends the work.
///
/// # Errors
/// Sources that can't be read (with file and row) or are named twice, a folder that can't be written or holds other files, a source
/// without a usable document, [`TokenizeFolderError::Interrupted`]. `out` is unchanged then.
pub fn tokenize(
    tokenizer: &Tokenizer,
    sources: &[TokenizeSource],
    out: &Path,
    options: &TokenizeFolderOptions,
    see: &mut dyn FnMut(TokenizeEvent) -> ControlFlow<()>,
) -> Result<TokenizeReport, TokenizeFolderError> {
    if !(0.0..1.0).contains(&options.eval_fraction) {
        return Err(TokenizeFolderError::Fraction(options.eval_fraction));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|error| TokenizeFolderError::Threads {
            threads: options.threads,
            reason: error.to_string(),
        })?;
    // Every path is checked before the first is tokenized, which may take hours.
    let (mut skipped_files, mut repeated_files) = (0, 0);
    let (mut found, mut seen) = (Vec::new(), SeenFiles::new());
    for source in sources {
        let inputs = source.inputs(&mut seen)?;
        skipped_files += inputs.skipped;
        repeated_files += inputs.repeated;
        found.push(inputs.inputs);
    }
    let staging = Staging::begin(out, options.overwrite)?;
    let folder = staging.path();
    let read = sources.iter().zip(&found);
    let read = read.map(|(source, inputs)| (inputs.as_slice(), &source.fields));
    check_space(tokenizer, read, &folder)?;
    tokenizer.save(&folder)?;
    let hash = TokenizerHash::of(tokenizer)?;
    let mut index = Index::new(hash, options.eval_fraction, options.seed, options.cut);
    for (source, inputs) in sources.iter().zip(found) {
        let bytes = inputs.iter().map(size).sum();
        if see(TokenizeEvent::Source(&source.name, bytes)).is_break() {
            return Err(TokenizeFolderError::Interrupted);
        }
        let maker = Maker {
            tokenizer,
            hash,
            options,
            source,
            out: &folder,
        };
        index.sources.push(maker.make(&inputs, &pool, see)?);
    }
    let index_path = folder.join(INDEX_FILE);
    let written = serde_json::to_vec_pretty(&index)
        .map_err(std::io::Error::from)
        .and_then(|text| write_atomically(&index_path, &text));
    written.map_err(|source| TokenizeFolderError::Write {
        path: index_path,
        source,
    })?;
    staging.commit(options.overwrite)?;
    Ok(TokenizeReport {
        index,
        skipped_files,
        repeated_files,
    })
}

/// Makes the shards of a source.
struct Maker<'a> {
    tokenizer: &'a Tokenizer,
    hash: TokenizerHash,
    options: &'a TokenizeFolderOptions,
    source: &'a TokenizeSource,
    out: &'a Path,
}

impl Maker<'_> {
    fn make(
        &self,
        inputs: &[InputFile],
        pool: &rayon::ThreadPool,
        see: &mut dyn FnMut(TokenizeEvent) -> ControlFlow<()>,
    ) -> Result<SourceEntry, TokenizeFolderError> {
        let settings = ShardSettings {
            out: self.out,
            source: &self.source.name,
            tokenizer: self.tokenizer,
            hash: self.hash,
            shard_tokens: self.options.shard_tokens,
        };
        let (fraction, min_length) = (self.options.eval_fraction, self.options.min_length);
        let mut division = Division::new(settings, fraction, min_length);
        let mut unreadable = 0;
        let (fields, skip) = (&self.source.fields, self.options.skip_unreadable);
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || read(inputs, fields, skip, |batch| sender.send(batch).is_ok()));
            for batch in receiver {
                let batch = batch?;
                let mut go_on = ControlFlow::Continue(());
                for error in &batch.unreadable {
                    unreadable += 1;
                    go_on = see(TokenizeEvent::Unreadable(error));
                }
                let documents = batch.records.len() as u64;
                let made: Vec<_> = pool.install(|| {
                    let records = batch.records.into_par_iter();
                    records.map(|record| self.samples(record)).collect()
                });
                let mut tokens = 0;
                for made in made {
                    let made = made?;
                    tokens += made.tokens() as u64;
                    division.push(made)?;
                }
                let seen = see(TokenizeEvent::Done(documents, tokens, batch.read));
                if go_on.is_break() || seen.is_break() {
                    return Err(TokenizeFolderError::Interrupted);
                }
            }
            Ok(())
        })?;
        let (train, eval) = division.finish()?;
        let (name, proportion) = (self.source.name.clone(), self.source.proportion);
        if train.samples == 0 {
            return Err(TokenizeFolderError::NoSamples {
                name,
                min_length,
                skipped: unreadable,
            });
        }
        if eval.samples == 0 && fraction > 0.0 {
            return Err(TokenizeFolderError::NoEval { name, min_length });
        }
        Ok(SourceEntry {
            name,
            licence: self.source.licence.clone(),
            proportion,
            unreadable,
            train,
            eval,
        })
    }

    /// A document's samples and the hash that decides its split.
    fn samples(&self, record: Record) -> Result<Made, TokenizeFolderError> {
        let hash = Sha256::new_with_prefix(self.options.seed.to_le_bytes());
        let special = self.tokenizer.special();
        let (hash, mut ids) = match record.content {
            Content::Text(text) => {
                let ids = self.tokenizer.encode_plain(&text);
                let ids = ids.map_err(|source| TokenizeFolderError::Document {
                    document: record.name,
                    source,
                })?;
                (hash.chain_update(&text), ids)
            }
            Content::Tokens(ids) => {
                let vocab_size = self.tokenizer.vocab_size();
                if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                    return Err(TokenizeFolderError::TokenId {
                        document: record.name,
                        id,
                        vocab_size,
                    });
                }
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                (hash.chain_update(bytes), ids)
            }
        };
        let hash: [u8; 32] = hash.finalize().into();
        let draw = u64::from_le_bytes(hash[..8].try_into().unwrap_or_default());
        // Tokens of an input may lack `[CLS]` and `[SEP]`; every stored document has them.
        if ids.first() != Some(&special.cls) {
            ids.insert(0, special.cls);
        }
        if ids.len() == 1 || ids.last() != Some(&special.sep) {
            ids.push(special.sep);
        }
        let pieces = match self.options.cut {
            None => vec![ids],
            Some(cut) if ids.len() <= cut.max_length => vec![ids],
            Some(cut) => {
                let content = ids[1..ids.len() - 1].chunks(cut.max_length - 2);
                let pieces = match cut.long_documents {
                    LongDocuments::Split => usize::MAX,
                    LongDocuments::Truncate => 1,
                };
                content
                    .take(pieces)
                    .map(|piece| [&[special.cls], piece, &[special.sep]].concat())
                    .collect()
            }
        };
        let kept = pieces.into_iter();
        let kept = kept.filter(|piece| piece.len() >= self.options.min_length);
        Ok(Made {
            draw,
            samples: kept.collect(),
        })
    }
}
