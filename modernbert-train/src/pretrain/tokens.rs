//! Runs on folders of token shards written by `modernbert-train tokenize`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use modernbert::checkpoint::write_atomically;
use modernbert_cli::text::{counted, human_count};

use super::error::{PretrainError, Result, invalid};
use super::prepare::{PhaseData, RunData, SHARDS, epochs, model_config, shown};
use crate::engine::Progress;
use crate::recipe::{CorpusSource, Phase, Recipe, TokenizerSource};
use crate::shard::{Check, Cut, TokenizeOptions, TokenizerHash};
use crate::tokenize::{INDEX_FILE, TokenFolder};

/// File in a run's folder of shards that lists the folders of each phase's shards, if they are elsewhere.
const FOLDERS_FILE: &str = "folders.json";

/// The folder of token shards that a recipe names as its corpus, if it names one.
pub(super) fn folder(recipe: &Recipe) -> Option<&Path> {
    match &recipe.data.corpus {
        CorpusSource::Paths(paths) => match &paths[..] {
            [path] if path.join(INDEX_FILE).is_file() => Some(path),
            _ => None,
        },
        CorpusSource::Registry => None,
    }
}

/// A folder of shards that the recipe names beside other texts.
pub(super) fn folder_beside_others(recipe: &Recipe) -> Option<&Path> {
    match &recipe.data.corpus {
        CorpusSource::Paths(paths) if paths.len() > 1 => {
            let mut folders = paths.iter().filter(|path| path.join(INDEX_FILE).is_file());
            folders.next().map(PathBuf::as_path)
        }
        _ => None,
    }
}

/// Returns true if a run was prepared from token folders.
pub(super) fn is_prepared(out: &Path) -> bool {
    out.join(SHARDS).join(FOLDERS_FILE).is_file() && out.join("tokenizer.json").is_file()
}

/// Opens the phases' folders, verifies the hash of every shard, and records the folders in the run's folder.
///
/// # Errors
/// Phases of which only some are token folders, folders of different tokenizers, settings that apply to text only, folders
/// without held-out documents.
pub(super) fn prepare(phases: &[Phase], out: &Path, progress: Progress) -> Result<RunData> {
    let mut folders = Vec::with_capacity(phases.len());
    for Phase { name, recipe } in phases {
        let Some(path) = folder(recipe) else {
            return invalid(format!(
                "phase {name}: its corpus is text and another phase's is a folder of token shards; tokenize both with one tokenizer"
            ));
        };
        for (key, set) in [
            (
                "data.max_train_bytes",
                recipe.data.max_train_bytes.is_some(),
            ),
            ("data.eval_corpus", recipe.data.eval_corpus.is_some()),
        ] {
            if set {
                return invalid(format!(
                    "{key} is set, and the corpus is token shards, which hold out their own documents; leave it out"
                ));
            }
        }
        let path = path
            .canonicalize()
            .map_err(PretrainError::io(path, "can't be found"))?;
        folders.push(path);
    }
    let prepared = open(phases, &folders)?;
    prepared.tokenizer.save(out)?;
    let shards = out.join(SHARDS);
    std::fs::create_dir_all(&shards).map_err(PretrainError::io(&shards, "can't be made"))?;
    let path = shards.join(FOLDERS_FILE);
    let text = serde_json::to_vec_pretty(&folders).map_err(std::io::Error::other);
    text.and_then(|text| write_atomically(&path, &text))
        .map_err(PretrainError::io(&path, "can't be written"))?;
    for (phase, data) in phases.iter().zip(&prepared.phases) {
        let tokens = data.train.iter().map(|source| source.samples.tokens());
        progress.note(&format!(
            "{}: {:.1} epochs",
            phase.name,
            epochs(&phase.recipe, tokens.sum())
        ));
        for source in &data.train {
            progress.note(&format!(
                "{}: source {}: {} of the tokens, {} in {} of up to {}",
                phase.name,
                source.name,
                source.proportion,
                human_count(source.samples.tokens()),
                counted(source.samples.len(), "sample", "samples"),
                phase.recipe.data.sequence_length,
            ));
        }
    }
    Ok(prepared)
}

/// Reopens the data that [`prepare`] opened, for a resumed run.
///
/// # Errors
/// A folder that is gone or changed.
pub(super) fn reopen(phases: &[Phase], out: &Path) -> Result<RunData> {
    let path = out.join(SHARDS).join(FOLDERS_FILE);
    let text = modernbert::read::bytes(&path).map_err(PretrainError::io(&path, "can't be read"))?;
    let folders: Vec<PathBuf> = modernbert::json::parse(&text)
        .map_err(std::io::Error::other)
        .map_err(PretrainError::io(&path, "not a list of folders"))?;
    if folders.len() != phases.len() {
        return invalid(format!(
            "{}: lists {} folders for {} phases; start the run again",
            path.display(),
            folders.len(),
            phases.len()
        ));
    }
    open(phases, &folders)
}

fn open(phases: &[Phase], folders: &[PathBuf]) -> Result<RunData> {
    let mut opened: HashMap<&Path, TokenFolder> = HashMap::new();
    for path in folders {
        if !opened.contains_key(path.as_path()) {
            opened.insert(path, TokenFolder::open(path, Check::Whole)?);
        }
    }
    let mut data: Vec<PhaseData> = Vec::with_capacity(phases.len());
    let mut first: Option<&TokenFolder> = None;
    for (phase, path) in phases.iter().zip(folders) {
        let recipe = &phase.recipe;
        let Some(folder) = opened.get(path.as_path()) else {
            continue;
        };
        let of = *first.get_or_insert(folder);
        if of.index.tokenizer != folder.index.tokenizer {
            return invalid(format!(
                "{}: made with another tokenizer than the first phase's shards; use one tokenizer for all",
                path.display()
            ));
        }
        if let TokenizerSource::Path(named) = &recipe.data.tokenizer {
            let named_hash = if named.is_dir() {
                TokenizerHash::of(&modernbert::tokenizer::Tokenizer::from_folder(named)?)?
            } else {
                TokenizerHash::of(&modernbert::tokenizer::Tokenizer::from_file(named)?)?
            };
            if named_hash != TokenizerHash::of(&folder.tokenizer)? {
                return invalid(format!(
                    "{}: the shards were made with another tokenizer than the run's, {} (data.tokenizer, or the model or checkpoint of --from); tokenize the \
                     texts again with that one, or leave data.tokenizer out if it is set",
                    path.display(),
                    named.display()
                ));
            }
        }
        let cut = Cut {
            max_length: recipe.data.sequence_length,
            min_length: TokenizeOptions::default().min_length,
            long_documents: recipe.data.long_documents.into(),
        };
        let found = PhaseData {
            train: folder.train_sources(cut),
            eval: folder.eval_sources(cut),
            config: model_config(recipe, &folder.tokenizer)?,
        };
        if found.eval.is_empty() {
            return invalid(format!(
                "{}: no documents are held out to evaluate on; tokenize with --eval-fraction",
                path.display()
            ));
        }
        data.push(found);
    }
    let Some(folder) = first else {
        return invalid("the recipe has no phase");
    };
    let tokenizer = folder.tokenizer.clone();
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
