//! Descriptions of token shards.

use serde_json::{Value, json};
use std::path::Path;

use super::ToolError;
use crate::shard::{Check, Shard};
use crate::tokenize::{SplitEntry, TokenFolder};

/// Describes a shard, once all of it is verified.
///
/// # Errors
/// A file that is no shard, or damaged.
pub(super) fn shard(path: &Path) -> Result<Value, ToolError> {
    let shard = Shard::open(path)?;
    let mut lengths: Vec<usize> = (0..shard.len()).map(|i| shard.sample_len(i)).collect();
    lengths.sort_unstable();
    let at = |share: f64| {
        let last = lengths.len().saturating_sub(1);
        lengths.get((share * last as f64) as usize).copied()
    };
    Ok(json!({
        "kind": "shard",
        "path": path.display().to_string(),
        "samples": shard.len(),
        "tokens": shard.tokens(),
        "vocabulary": shard.vocab_size(),
        "sha256": crate::snapshot::hex(&shard.sha256()),
        "lengths": { "shortest": at(0.0), "median": at(0.5), "p90": at(0.9), "longest": at(1.0) },
    }))
}

/// Describes a folder of shards without an index, such as that of a run.
///
/// # Errors
/// A folder without shards; a damaged shard.
pub(super) fn shards(folder: &Path) -> Result<Value, ToolError> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .map_err(ToolError::read(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "tokens"))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(ToolError::Nothing(folder.to_path_buf()));
    }
    let all: Vec<Value> = found
        .iter()
        .map(|path| shard(path))
        .collect::<Result<_, _>>()?;
    let tokens: u64 = all.iter().filter_map(|one| one["tokens"].as_u64()).sum();
    Ok(
        json!({ "kind": "shards", "path": folder.display().to_string(), "tokens": tokens, "shards": all }),
    )
}

/// Describes a folder that `modernbert-train tokenize` wrote, once all of it is verified.
///
/// # Errors
/// An index that contradicts itself or its shards, a damaged shard, another tokenizer.
pub(super) fn token_folder(folder: &Path) -> Result<Value, ToolError> {
    let TokenFolder {
        index, tokenizer, ..
    } = TokenFolder::open(folder, Check::Whole)?;
    let split = |split: &SplitEntry| {
        json!({
            "documents": split.documents,
            "too_short": split.too_short,
            "samples": split.samples,
            "tokens": split.tokens,
            "shards": split.shards.iter().map(|shard| &shard.file).collect::<Vec<_>>(),
        })
    };
    let total = |count: fn(&SplitEntry) -> u64| -> (u64, u64) {
        let sources = index.sources.iter();
        sources.fold((0, 0), |(train, eval), source| {
            (train + count(&source.train), eval + count(&source.eval))
        })
    };
    let (tokens, eval_tokens) = total(|split| split.tokens);
    let sources = index.sources.iter().map(|source| {
        json!({
            "name": source.name,
            "licence": source.licence,
            "proportion": source.proportion,
            "unreadable": source.unreadable,
            "train": split(&source.train),
            "held_out": split(&source.eval),
        })
    });
    Ok(json!({
        "kind": "token folder",
        "path": folder.display().to_string(),
        "tokens": tokens,
        "held_out_tokens": eval_tokens,
        "vocabulary": tokenizer.vocab_size(),
        "tokenizer_sha256": index.tokenizer,
        "eval_fraction": index.eval_fraction,
        "seed": index.seed,
        "cut": index.cut,
        "sources": sources.collect::<Vec<_>>(),
    }))
}
