//! From text to tokenizer, shards and model config.

use modernbert::config::ModernBertConfig;
use modernbert::tokenizer::{Tokenizer, train::TrainOptions, train::train_and_count};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::error::{PretrainError, Result, invalid};
use super::tokens;
use crate::corpus::{Corpus, Document, EvalSize, RegistryOptions, Split, split};
use crate::engine::Progress;
use crate::loader::DataSource;
use crate::recipe::{CorpusSource, Phase, Recipe, TokenizerSource};
use crate::shard::{Cut, Shard, TokenizeError, TokenizeOptions, write_shard};

use modernbert_cli::text::{counted, human_count, human_seconds};

/// The data of a run: tokenizer and samples.
pub struct RunData {
    /// The tokenizer, read or trained.
    pub tokenizer: Tokenizer,
    /// The samples of each phase.
    pub phases: Vec<PhaseData>,
    /// Documents of the held-out samples, for a person to look at.
    pub eval_documents: Vec<Document>,
}

/// The samples of a phase, and the model's shape in it.
#[derive(Clone)]
pub struct PhaseData {
    /// Sources to train on.
    pub train: Vec<DataSource>,
    /// Held-out sources, each with its share.
    pub eval: Vec<DataSource>,
    /// Shape of the model, fitted to the tokenizer.
    pub config: ModernBertConfig,
}

impl PhaseData {
    /// All shards, those that are trained on first.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        let sources = self.train.iter().chain(&self.eval);
        sources.flat_map(|source| source.samples.shards().map(|shard| &**shard))
    }
}

/// Held-out documents on which a resumed run shows predictions.
const SHOWN: usize = 64;

/// Reads the corpus, holds documents out, reads or trains a tokenizer, and writes token shards and tokenizer files into `out`.
///
/// The held-out documents are those of the first phase's corpus; a later phase with another corpus leaves them out of its training
/// data and is evaluated on the same documents.
///
/// # Errors
/// Missing, empty or malformed text, a tokenizer without ModernBERT's special tokens, a folder that can't be written.
pub fn prepare(phases: &[Phase], out: &Path, progress: Progress) -> Result<RunData> {
    let started = Instant::now();
    if phases
        .iter()
        .any(|phase| tokens::folder(&phase.recipe).is_some())
    {
        return tokens::prepare(phases, out, progress);
    }
    let Some(first) = phases.first().map(|phase| &phase.recipe) else {
        return invalid("the recipe has no phase");
    };
    for phase in phases {
        if let Some(folder) = tokens::folder_beside_others(&phase.recipe) {
            return invalid(format!(
                "{}: a folder of shards beside other texts; a phase reads one folder of shards or texts: name it alone, or make one folder of all texts with \
                 `modernbert-train tokenize`",
                folder.display()
            ));
        }
    }
    let (train, eval) = documents(first, progress)?;
    let tokenizer = match &first.data.tokenizer {
        TokenizerSource::Train => {
            let options = TrainOptions {
                vocab_size: first.data.tokenizer_vocab,
                ..TrainOptions::default()
            };
            let texts = train.iter().map(|document| document.text.as_str());
            let trained = train_and_count(texts, &options)?;
            if trained.cut_words > 0 {
                progress.note(&format!(
                    "warning: {} of more than 256 bytes without a blank were counted in parts for the tokenizer; text without words is better \
                     left out, or name another tokenizer (data.tokenizer)",
                    counted(trained.cut_words, "word", "words"),
                ));
            }
            trained.tokenizer
        }
        TokenizerSource::Path(path) if path.is_dir() => Tokenizer::from_folder(path)?,
        TokenizerSource::Path(path) => Tokenizer::from_file(path)?,
    };
    tokenizer.save(out)?;

    let folder = out.join(SHARDS);
    std::fs::create_dir_all(&folder).map_err(PretrainError::io(&folder, "can't be made"))?;
    let mut data = Vec::with_capacity(phases.len());
    for (i, names) in shard_names(phases).iter().enumerate() {
        let recipe = &phases[i].recipe;
        if names.of == i {
            let own = if recipe.data.corpus == first.data.corpus
                && recipe.data.max_train_bytes == first.data.max_train_bytes
            {
                None
            } else {
                progress.note(&format!("phase {}:", phases[i].name));
                Some(other_documents(recipe, &eval, progress)?)
            };
            let own = own.as_ref().unwrap_or(&train);
            write_samples(recipe, &tokenizer, own, &folder.join(&names.train))?;
            let eval_path = folder.join(&names.eval);
            match write_samples(recipe, &tokenizer, &eval, &eval_path) {
                Err(TokenizeError::NoSamples { min_length }) => {
                    return invalid(format!(
                        "the held-out text is too short: no document of it gave a sample of {min_length} tokens; raise data.eval_bytes ({}), or name \
                         other text as data.eval_corpus",
                        recipe.data.eval_bytes
                    ));
                }
                other => other?,
            }
        }
        let found = open_phase(recipe, &tokenizer, &folder, names)?;
        if names.of == i {
            let tokens = found.train[0].samples.tokens();
            check_epochs(recipe, tokens)?;
            progress.note(&format!(
                "tokens: {} in {} of up to {} to train on ({:.1} epochs), {} held out, vocabulary {} ({})",
                human_count(tokens),
                counted(found.train[0].samples.len(), "sample", "samples"),
                recipe.data.sequence_length,
                epochs(recipe, tokens),
                human_count(found.eval[0].samples.tokens()),
                tokenizer.vocab_size(),
                human_seconds(started.elapsed().as_secs_f64()),
            ));
        }
        data.push(found);
    }
    Ok(RunData {
        tokenizer,
        phases: data,
        eval_documents: eval,
    })
}

/// Largest number of epochs of cargo's sources: a recipe with more epochs needs a corpus.
const REGISTRY_EPOCHS: f64 = 100.0;

/// Epochs of a corpus of `tokens` tokens in a phase.
pub(super) fn epochs(recipe: &Recipe, tokens: u64) -> f64 {
    recipe.run.total_tokens as f64 / tokens.max(1) as f64
}

/// Refuses a recipe for a large corpus that is run without one.
fn check_epochs(recipe: &Recipe, tokens: u64) -> Result<()> {
    let epochs = epochs(recipe, tokens);
    if recipe.data.corpus == CorpusSource::Registry && epochs > REGISTRY_EPOCHS {
        return invalid(format!(
            "run.total_tokens = {}: {epochs:.0} epochs of the {} tokens in cargo's sources; name a corpus with --corpus (or data.corpus), or              set fewer tokens",
            recipe.run.total_tokens,
            human_count(tokens),
        ));
    }
    Ok(())
}

/// Reads the results of [`prepare`] back from the run's folder; the corpus isn't needed. Shards are checked against the hash in their
/// header.
///
/// # Errors
/// A missing or damaged file, by name.
pub fn reopen(phases: &[Phase], out: &Path) -> Result<RunData> {
    if tokens::is_prepared(out) {
        return tokens::reopen(phases, out);
    }
    let tokenizer = Tokenizer::from_folder(out)?;
    let folder = out.join(SHARDS);
    let mut data = Vec::with_capacity(phases.len());
    for (names, phase) in shard_names(phases).iter().zip(phases) {
        data.push(open_phase(&phase.recipe, &tokenizer, &folder, names)?);
    }
    let eval_documents = match data.first() {
        Some(first) => shown(&tokenizer, &first.eval)?,
        None => Vec::new(),
    };
    Ok(RunData {
        tokenizer,
        phases: data,
        eval_documents,
    })
}

/// Held-out samples as text, for a person to look at.
pub(super) fn shown(tokenizer: &Tokenizer, eval: &[DataSource]) -> Result<Vec<Document>> {
    let specials = tokenizer.special().ids();
    let samples = eval.iter().flat_map(|source| {
        let samples = &source.samples;
        (0..samples.len()).map(|index| samples.read(index))
    });
    let documents = samples.take(SHOWN).enumerate().map(|(i, ids)| {
        let mut ids = ids?;
        ids.retain(|id| !specials.contains(id));
        Ok(Document {
            name: format!("held-out sample {i}"),
            group: String::new(),
            text: tokenizer.decode(&ids)?,
        })
    });
    documents.collect()
}

/// Returns true if the folder has everything that [`reopen`] needs. A run that was ended while it prepared its data prepares the data again.
pub fn is_prepared(phases: &[Phase], out: &Path) -> bool {
    if tokens::is_prepared(out) {
        return true;
    }
    let folder = out.join(SHARDS);
    out.join("tokenizer.json").is_file()
        && shard_names(phases)
            .iter()
            .all(|names| folder.join(&names.train).is_file() && folder.join(&names.eval).is_file())
}

pub use crate::run_dir::SHARDS;

/// Files of a phase's samples.
struct ShardNames {
    train: String,
    eval: String,
    /// The phase they are named after: the first one that cuts the same documents to the same length.
    of: usize,
}

fn shard_names(phases: &[Phase]) -> Vec<ShardNames> {
    let alike = |a: &Phase, b: &Phase| {
        let (a, b) = (&a.recipe.data, &b.recipe.data);
        (
            &a.corpus,
            a.max_train_bytes,
            a.long_documents,
            a.sequence_length,
        ) == (
            &b.corpus,
            b.max_train_bytes,
            b.long_documents,
            b.sequence_length,
        )
    };
    let name = |i: usize| {
        let of = phases
            .iter()
            .position(|other| alike(other, &phases[i]))
            .unwrap_or(i);
        let prefix = if phases.len() == 1 {
            String::new()
        } else {
            format!("{}-", phases[of].name)
        };
        ShardNames {
            train: format!("{prefix}train.tokens"),
            eval: format!("{prefix}eval.tokens"),
            of,
        }
    };
    (0..phases.len()).map(name).collect()
}

fn open_phase(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    folder: &Path,
    names: &ShardNames,
) -> Result<PhaseData> {
    let open = |name: &str| -> Result<Vec<DataSource>> {
        let shard = Shard::open(folder.join(name))?;
        if shard.is_empty() {
            return invalid(format!(
                "{}: no document gave a sample long enough; give the corpus more text",
                shard.path().display()
            ));
        }
        // Documents were cut when they were tokenized.
        Ok(vec![DataSource::new(
            name,
            1.0,
            [Arc::new(shard)],
            Cut::WHOLE,
        )])
    };
    Ok(PhaseData {
        train: open(&names.train)?,
        eval: open(&names.eval)?,
        config: model_config(recipe, tokenizer)?,
    })
}

fn write_samples(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    documents: &[Document],
    path: &Path,
) -> std::result::Result<(), TokenizeError> {
    let options = TokenizeOptions {
        max_length: recipe.data.sequence_length,
        long_documents: recipe.data.long_documents.into(),
        ..TokenizeOptions::default()
    };
    write_shard(tokenizer, documents, &options, path)?;
    Ok(())
}

/// Training documents and held-out documents.
fn documents(recipe: &Recipe, progress: Progress) -> Result<(Vec<Document>, Vec<Document>)> {
    if let Some(setting) = &recipe.data.eval_corpus {
        let corpus = read_corpus(recipe, setting)?;
        progress.note(&format!("held out: {}", corpus.origin));
        let eval = corpus.documents;
        let train = other_documents(recipe, &eval, progress)?;
        return Ok((train, eval));
    }
    let corpus = read_corpus(recipe, &recipe.data.corpus)?;
    progress.note(&format!("corpus: {}", corpus.origin));
    let Split {
        mut train,
        eval,
        by,
        limited_to,
        duplicates,
    } = split(
        corpus,
        EvalSize::Bytes(recipe.data.eval_bytes as usize),
        recipe.run.seed,
    )?;
    if let Some(bytes) = limited_to {
        progress.note(&format!(
            "data.eval_bytes = {} is more than a fifth of this corpus: {} held out",
            recipe.data.eval_bytes,
            counted(bytes, "byte is", "bytes are")
        ));
    }
    limit_bytes(&mut train, recipe.data.max_train_bytes)?;
    progress.note(&format!(
        "split by {by}: {} ({:.1} MB) to train on, {} ({:.1} MB) held out, {} dropped",
        counted(train.len(), "document", "documents"),
        megabytes(&train),
        eval.len(),
        megabytes(&eval),
        counted(duplicates, "duplicate", "duplicates"),
    ));
    Ok((train, eval))
}

/// Documents of the corpus, each once, without those that are held out.
fn other_documents(
    recipe: &Recipe,
    eval: &[Document],
    progress: Progress,
) -> Result<Vec<Document>> {
    let corpus = read_corpus(recipe, &recipe.data.corpus)?;
    progress.note(&format!("corpus: {}", corpus.origin));
    let held_out: HashSet<&str> = eval.iter().map(|document| document.text.as_str()).collect();
    let mut seen = HashSet::new();
    let mut train = corpus.documents;
    train.retain(|document| {
        !held_out.contains(document.text.as_str()) && seen.insert(document.text.clone())
    });
    if train.is_empty() {
        return Err(PretrainError::Invalid(
            "every document of data.corpus is in data.eval_corpus too, which leaves none to train on; name other texts for one of them"
                .to_string(),
        ));
    }
    limit_bytes(&mut train, recipe.data.max_train_bytes)?;
    progress.note(&format!(
        "{} ({:.1} MB) to train on, without {} ({:.1} MB) held out",
        counted(train.len(), "document", "documents"),
        megabytes(&train),
        eval.len(),
        megabytes(eval),
    ));
    Ok(train)
}

fn megabytes(documents: &[Document]) -> f64 {
    documents.iter().map(|d| d.text.len()).sum::<usize>() as f64 / 1e6
}

fn limit_bytes(train: &mut Vec<Document>, limit: Option<u64>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let mut left = limit as usize;
    train.retain(|document| {
        let fits = left >= document.text.len();
        left = left.saturating_sub(document.text.len());
        fits
    });
    if train.is_empty() {
        return invalid(format!(
            "data.max_train_bytes = {limit} leaves no document to train on; raise it"
        ));
    }
    Ok(())
}

fn read_corpus(recipe: &Recipe, setting: &CorpusSource) -> Result<Corpus> {
    match setting {
        CorpusSource::Registry => {
            let mut options = RegistryOptions::default();
            if let Some(limit) = recipe.data.max_train_bytes {
                options.max_bytes = limit.saturating_add(recipe.data.eval_bytes) as usize;
            }
            Ok(Corpus::from_registry(&options)?)
        }
        CorpusSource::Paths(paths) => {
            let mut paths = paths.iter();
            let Some(first) = paths.next() else {
                return invalid(
                    "data.corpus is an empty list; name a file or a folder, or \"registry\"",
                );
            };
            let mut corpus = Corpus::from_path(first)?;
            for path in paths {
                corpus = corpus.concat(Corpus::from_path(path)?);
            }
            Ok(corpus)
        }
    }
}

pub(super) fn model_config(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<ModernBertConfig> {
    let mut config = recipe.model.config(tokenizer.vocab_size())?;
    let special = tokenizer.special();
    config.cls_token_id = Some(special.cls);
    config.bos_token_id = Some(special.cls);
    config.sep_token_id = Some(special.sep);
    config.eos_token_id = Some(special.sep);
    config.pad_token_id = Some(special.pad);
    config.architectures = vec!["ModernBertForMaskedLM".to_string()];
    config.check_trainable()?;
    Ok(config)
}
