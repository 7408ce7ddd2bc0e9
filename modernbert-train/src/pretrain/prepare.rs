//! From text to tokenizer, shards and model config.

use anyhow::{Context, Result, bail};
use modernbert::config::ModernBertConfig;
use modernbert::tokenizer::{Tokenizer, train::TrainOptions, train::train};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::corpus::{Corpus, Document, EvalSize, RegistryOptions, Split, split};
use crate::recipe::{
    Corpus as CorpusSetting, LongDocuments as RecipeLong, Recipe, Tokenizer as TokenizerSetting,
};
use crate::shard::{LongDocuments, Shard, TokenizeOptions, write_shard};
use crate::trainer::{Progress, human_count, human_seconds};

/// Everything training needs that comes from text.
pub struct Prepared {
    /// The tokenizer, read or learned.
    pub tokenizer: Tokenizer,
    /// Training samples.
    pub train: Arc<Shard>,
    /// Held-out samples.
    pub eval: Arc<Shard>,
    /// The documents behind the held-out samples.
    pub eval_documents: Vec<Document>,
    /// Shape of the model, fitted to the tokenizer.
    pub config: ModernBertConfig,
}

/// Reads the corpus, holds documents out, gets a tokenizer and writes token shards and tokenizer files into `out`.
///
/// # Errors
/// Missing, empty or broken text, a tokenizer without ModernBERT's special tokens, a folder that can't be written.
pub fn prepare(recipe: &Recipe, out: &Path, progress: Progress) -> Result<Prepared> {
    let started = Instant::now();
    let corpus = read_corpus(recipe)?;
    progress.note(&format!("corpus: {}", corpus.origin));
    let Split {
        mut train,
        eval,
        by,
        duplicates,
    } = split(
        corpus,
        EvalSize::Bytes(recipe.data.eval_bytes as usize),
        recipe.run.seed,
    )?;
    if let Some(limit) = recipe.data.max_train_bytes {
        let mut left = limit as usize;
        train.retain(|document| {
            let fits = left >= document.text.len();
            left = left.saturating_sub(document.text.len());
            fits
        });
        if train.is_empty() {
            bail!("data.max_train_bytes = {limit} leaves no document to train on; raise it");
        }
    }
    let megabytes =
        |documents: &[Document]| documents.iter().map(|d| d.text.len()).sum::<usize>() as f64 / 1e6;
    progress.note(&format!(
        "split by {by}: {} documents ({:.1} MB) to train on, {} ({:.1} MB) held out, {duplicates} duplicates dropped",
        train.len(),
        megabytes(&train),
        eval.len(),
        megabytes(&eval),
    ));

    let tokenizer = match &recipe.data.tokenizer {
        TokenizerSetting::Train => {
            let options = TrainOptions {
                vocab_size: recipe.data.tokenizer_vocab,
                ..TrainOptions::default()
            };
            let texts = train.iter().map(|document| document.text.as_str());
            self::train(texts, &options)?
        }
        TokenizerSetting::Path(path) if path.is_dir() => Tokenizer::from_folder(path)?,
        TokenizerSetting::Path(path) => Tokenizer::from_file(path)?,
    };
    tokenizer.save(out)?;

    let folder = out.join("shards");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{}: can't be made", folder.display()))?;
    let tokenize = TokenizeOptions {
        max_length: recipe.data.sequence_length,
        long_documents: match recipe.data.long_documents {
            RecipeLong::Split => LongDocuments::Split,
            RecipeLong::Truncate => LongDocuments::Truncate,
        },
        ..TokenizeOptions::default()
    };
    let shard = |name: &str, documents: &[Document]| -> Result<Arc<Shard>> {
        let path = folder.join(name);
        write_shard(&tokenizer, documents, &tokenize, &path)?;
        let shard = Shard::open(&path)?;
        if shard.is_empty() {
            bail!(
                "{}: no document gave a sample of at least {} tokens; give the corpus more text",
                path.display(),
                tokenize.min_length
            );
        }
        Ok(Arc::new(shard))
    };
    let (train_shard, eval_shard) = (shard("train.tokens", &train)?, shard("eval.tokens", &eval)?);
    let config = model_config(recipe, &tokenizer)?;
    progress.note(&format!(
        "tokens: {} in {} samples to train on, {} held out, vocabulary {} ({})",
        human_count(train_shard.tokens() as u64),
        train_shard.len(),
        human_count(eval_shard.tokens() as u64),
        tokenizer.vocab_size(),
        human_seconds(started.elapsed().as_secs_f64()),
    ));
    Ok(Prepared {
        tokenizer,
        train: train_shard,
        eval: eval_shard,
        eval_documents: eval,
        config,
    })
}

fn read_corpus(recipe: &Recipe) -> Result<Corpus> {
    match &recipe.data.corpus {
        CorpusSetting::Registry => {
            let mut options = RegistryOptions::default();
            if let Some(limit) = recipe.data.max_train_bytes {
                options.max_bytes = (limit + recipe.data.eval_bytes) as usize;
            }
            Ok(Corpus::from_registry(&options)?)
        }
        CorpusSetting::Paths(paths) => {
            let mut paths = paths.iter();
            let Some(first) = paths.next() else {
                bail!("data.corpus is an empty list; name a file or a folder, or \"registry\"");
            };
            let mut corpus = Corpus::from_path(first)?;
            for path in paths {
                corpus = corpus.join(Corpus::from_path(path)?);
            }
            Ok(corpus)
        }
    }
}

fn model_config(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<ModernBertConfig> {
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
