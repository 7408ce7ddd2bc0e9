//! The way from files to shards.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use modernbert_files::atomic::write_atomically;
use modernbert_files::tokenizer::Tokenizer;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::TokenizeFolderError;
use super::folder::{INDEX_FILE, Index, SourceEntry};
use super::side::Side;
use crate::corpus::CorpusError;
use crate::formats::{Content, Fields, Input, Record, Records, inputs};
use crate::mixture::{Mixture, MixtureSource};
use crate::shard::{Cut, LongDocuments, TokenizerHash};

/// Bytes of text that are tokenized together: enough for every core, little enough to keep in memory.
const BATCH_BYTES: usize = 4 << 20;
/// Batches read ahead while one is tokenized.
const AHEAD: usize = 2;

/// A source of text or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeSource {
    /// Its name, and that of its folder of shards.
    pub name: String,
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Its share of the tokens that are trained on.
    pub proportion: f64,
    /// The terms of its text.
    pub licence: String,
    /// Which fields hold what.
    pub fields: Fields,
}

impl From<MixtureSource> for TokenizeSource {
    fn from(source: MixtureSource) -> Self {
        Self {
            name: source.name,
            paths: source.paths,
            proportion: source.proportion,
            licence: source.licence,
            fields: Fields {
                text: source.text_field,
                ..Fields::default()
            },
        }
    }
}

impl TokenizeSource {
    /// The sources of a mixture.
    pub fn of_mixture(mixture: Mixture) -> Vec<Self> {
        mixture.sources.into_iter().map(Self::from).collect()
    }
}

/// How a folder is made.
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
    /// A shard is closed once it holds so many tokens.
    pub shard_tokens: u64,
    /// Threads that tokenize.
    pub threads: usize,
    /// Passes over rows that can't be read instead of stopping at the first.
    pub skip_unreadable: bool,
    /// Replaces a folder that is there already.
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

/// What happens on the way.
#[derive(Debug)]
pub enum Step<'a> {
    /// A source is about to be read: its name, and the bytes of its files on disk.
    Source(&'a str, u64),
    /// So many documents, tokens and bytes on disk are done since the last step.
    Done(u64, u64, u64),
    /// A row could not be read and was passed over.
    Unreadable(&'a CorpusError),
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The folder's index.
    pub index: Index,
    /// Files that were left out for their ending.
    pub skipped_files: usize,
}

/// Tokenizes `sources` into shards, and writes the tokenizer and an index beside them.
///
/// Each source is read once, by a thread of its own, while the batch before is tokenized on `threads` cores. A document goes to the
/// held-out side if the hash of its content says so: equal documents are on the same side, so that nothing that is evaluated was
/// trained on.
///
/// # Errors
/// Sources that can't be read (with file and row), a folder that can't be written, a source without a usable document.
pub fn tokenize(
    tokenizer: &Tokenizer,
    sources: &[TokenizeSource],
    out: &Path,
    options: &TokenizeFolderOptions,
    see: &mut dyn FnMut(Step),
) -> Result<Report, TokenizeFolderError> {
    if !(0.0..1.0).contains(&options.eval_fraction) {
        return Err(TokenizeFolderError::Fraction(options.eval_fraction));
    }
    let index_path = out.join(INDEX_FILE);
    let unwritable = |path: &Path| {
        let path = path.to_path_buf();
        move |source: std::io::Error| TokenizeFolderError::Write { path, source }
    };
    if index_path.exists() {
        if !options.overwrite {
            return Err(TokenizeFolderError::Exists { path: out.into() });
        }
        // From here on the folder is not whole.
        std::fs::remove_file(&index_path).map_err(unwritable(&index_path))?;
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|error| TokenizeFolderError::Threads {
            threads: options.threads,
            reason: error.to_string(),
        })?;
    // Every path is looked at before hours are spent on the first.
    let mut found = Vec::new();
    let mut skipped_files = 0;
    for source in sources {
        let mut all = Vec::new();
        for path in &source.paths {
            let (inputs, skipped) = inputs(path)?;
            skipped_files += skipped;
            if inputs.is_empty() {
                return Err(CorpusError::NoDocuments {
                    path: path.clone(),
                    skipped,
                }
                .into());
            }
            all.extend(inputs);
        }
        found.push(all);
    }
    std::fs::create_dir_all(out).map_err(unwritable(out))?;
    tokenizer.save(out)?;
    let hash = TokenizerHash::of(tokenizer)?;
    let mut index = Index::new(hash, options.eval_fraction, options.seed, options.cut);
    for (source, inputs) in sources.iter().zip(found) {
        let bytes = inputs.iter().map(size).sum();
        see(Step::Source(&source.name, bytes));
        let maker = Maker {
            tokenizer,
            hash,
            options,
            source,
            out,
        };
        index.sources.push(maker.make(&inputs, &pool, see)?);
    }
    let text = serde_json::to_vec_pretty(&index).map_err(|error| TokenizeFolderError::Write {
        path: index_path.clone(),
        source: error.into(),
    })?;
    write_atomically(&index_path, &text).map_err(unwritable(&index_path))?;
    Ok(Report {
        index,
        skipped_files,
    })
}

/// Bytes of an input on disk.
fn size(input: &Input) -> u64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if !input.is_mds {
        return of(&input.path);
    }
    let entries = std::fs::read_dir(&input.path)
        .into_iter()
        .flatten()
        .flatten();
    entries.map(|entry| of(&entry.path())).sum()
}

/// Documents on their way from the reader.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    unreadable: Vec<CorpusError>,
    /// Bytes on disk of the inputs that ended within it.
    read: u64,
}

/// A source on its way into shards.
pub(super) struct Maker<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) hash: TokenizerHash,
    pub(super) options: &'a TokenizeFolderOptions,
    pub(super) source: &'a TokenizeSource,
    pub(super) out: &'a Path,
}

impl Maker<'_> {
    fn make(
        &self,
        inputs: &[Input],
        pool: &rayon::ThreadPool,
        see: &mut dyn FnMut(Step),
    ) -> Result<SourceEntry, TokenizeFolderError> {
        let (mut train, mut eval) = (Side::new("train"), Side::new("eval"));
        let mut unreadable = 0;
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || self.read(inputs, |batch| sender.send(batch).is_ok()));
            for batch in receiver {
                let batch = batch?;
                for error in &batch.unreadable {
                    unreadable += 1;
                    see(Step::Unreadable(error));
                }
                let documents = batch.records.len() as u64;
                let made: Vec<_> = pool.install(|| {
                    let records = batch.records.into_par_iter();
                    records.map(|record| self.samples(record)).collect()
                });
                let mut tokens = 0;
                for made in made {
                    let (held_out, samples) = made?;
                    let side = if held_out { &mut eval } else { &mut train };
                    tokens += side.push(samples, self)?;
                }
                see(Step::Done(documents, tokens, batch.read));
            }
            Ok::<(), TokenizeFolderError>(())
        })?;
        let (name, proportion) = (self.source.name.clone(), self.source.proportion);
        let (train, eval) = (train.finish()?, eval.finish()?);
        if train.samples == 0 {
            let min_length = self.options.min_length;
            return Err(TokenizeFolderError::NoSamples { name, min_length });
        }
        if eval.samples == 0 && self.options.eval_fraction > 0.0 {
            return Err(TokenizeFolderError::NoEval {
                name,
                documents: train.documents,
                fraction: self.options.eval_fraction,
            });
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

    /// Hands out batches until `send` has enough or something can't be read.
    fn read(&self, inputs: &[Input], send: impl Fn(Result<Batch, CorpusError>) -> bool) {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for input in inputs {
            let records = match Records::open(input, &self.source.fields) {
                Ok(records) => records,
                Err(error) => {
                    send(Err(error));
                    return;
                }
            };
            for record in records {
                match record {
                    Ok(record) => {
                        bytes += match &record.content {
                            Content::Text(text) => text.len(),
                            Content::Tokens(ids) => 4 * ids.len(),
                        };
                        batch.records.push(record);
                    }
                    Err(error) if error.is_of_a_row() && self.options.skip_unreadable => {
                        batch.unreadable.push(error);
                    }
                    Err(error) => {
                        send(Err(error));
                        return;
                    }
                }
                if bytes >= BATCH_BYTES {
                    bytes = 0;
                    if !send(Ok(std::mem::take(&mut batch))) {
                        return;
                    }
                }
            }
            batch.read += size(input);
        }
        send(Ok(batch));
    }

    /// Whether a record is held out, and its samples.
    fn samples(&self, record: Record) -> Result<(bool, Vec<Vec<u32>>), TokenizeFolderError> {
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
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                (hash.chain_update(bytes), ids)
            }
        };
        let hash: [u8; 32] = hash.finalize().into();
        let draw = u64::from_le_bytes(hash[..8].try_into().unwrap_or_default());
        let held_out = (draw as f64) < self.options.eval_fraction * 2f64.powi(64);
        // Tokens from elsewhere may or may not have them; every document has them here.
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
        Ok((held_out, kept.collect()))
    }
}
