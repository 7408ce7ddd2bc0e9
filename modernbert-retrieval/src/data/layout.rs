//! Recognition of a data set's layout: which files contain corpus, queries and judgments.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::RetrievalDataError;
use super::rows::quoted;

/// Layout of a data set's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderLayout {
    /// `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`.
    Beir,
    /// Folders `corpus`, `queries` and `qrels` (or `data`) of Parquet or JSONL files: the Hub's form of BEIR and NanoBEIR sets.
    Hub,
    /// Folders `LANGUAGE-corpus`, `LANGUAGE-queries` and `LANGUAGE-qrels`: CodeSearchNet in CoIR.
    Coir,
    /// `corpus.jsonl` and `SPLIT.jsonl` with the relevant documents inside each query: MLDR.
    Mldr,
}

/// Files of a data set.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) layout: FolderLayout,
    /// Name of the set: the folder's, the subset's, or both.
    pub(super) name: String,
    pub(super) corpus: Vec<PathBuf>,
    /// For MLDR these contain the judgments too.
    pub(super) queries: Vec<PathBuf>,
    pub(super) judgments: Vec<PathBuf>,
}

const ENDINGS: [&str; 3] = [".parquet", ".jsonl.gz", ".jsonl"];
const JUDGMENT_ENDINGS: [&str; 6] = [".parquet", ".jsonl.gz", ".jsonl", ".tsv", ".txt", ".qrels"];

/// Finds the files of `split` (and of `subset`, where the folder contains several sets).
pub(super) fn find(
    folder: &Path,
    split: &str,
    subset: Option<&str>,
) -> Result<Files, RetrievalDataError> {
    if !folder.is_dir() {
        return Err(RetrievalDataError::NoFolder {
            path: folder.to_path_buf(),
        });
    }
    let name = name_of(folder);
    let corpus = either(folder, "corpus.jsonl")?;
    if let (Some(corpus), Some(queries)) = (&corpus, either(folder, "queries.jsonl")?) {
        no_subset(folder, subset)?;
        return Ok(Files {
            layout: FolderLayout::Beir,
            name,
            corpus: vec![corpus.clone()],
            queries: vec![queries],
            judgments: of_split(&folder.join("qrels"), split)?,
        });
    }
    if let Some(corpus) = corpus {
        no_subset(folder, subset)?;
        return mldr(folder, name, corpus, split);
    }
    if is_hub(folder) {
        return hub(folder, name, split, subset);
    }
    let languages = languages(folder)?;
    if !languages.is_empty() {
        let language = choose(folder, &languages, subset)?;
        let part = |what: &str| folder.join(format!("{language}-{what}"));
        return Ok(Files {
            layout: FolderLayout::Coir,
            name: format!("{name}/{language}"),
            corpus: all(&part("corpus"), &ENDINGS)?,
            queries: all(&part("queries"), &ENDINGS)?,
            judgments: of_split(&part("qrels"), split)?,
        });
    }
    let releases = releases(folder)?;
    if releases.is_empty() {
        return Err(RetrievalDataError::UnknownLayout {
            path: folder.to_path_buf(),
        });
    }
    // `en` chooses MLDR's release `mldr-v1.0-en`.
    let wanted = releases
        .iter()
        .find(|name| subset.is_some_and(|subset| name.ends_with(&format!("-{subset}"))));
    let release = match wanted {
        Some(release) => release.clone(),
        None => choose(folder, &releases, subset)?,
    };
    let mut files = find(&folder.join(&release), split, None)?;
    files.name = format!("{name}/{release}");
    Ok(files)
}

/// Names of the sets in a folder with several; empty for a folder with one.
pub(super) fn subsets(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    if !folder.is_dir() {
        return Err(RetrievalDataError::NoFolder {
            path: folder.to_path_buf(),
        });
    }
    if has_either(folder, "corpus.jsonl") {
        return Ok(Vec::new());
    }
    if is_hub(folder) {
        let sets = hub_sets(folder)?;
        return Ok(if sets.len() > 1 { sets } else { Vec::new() });
    }
    let languages = languages(folder)?;
    if !languages.is_empty() {
        return Ok(languages);
    }
    let releases = releases(folder)?;
    if releases.is_empty() {
        return Err(RetrievalDataError::UnknownLayout {
            path: folder.to_path_buf(),
        });
    }
    Ok(releases)
}

fn is_hub(folder: &Path) -> bool {
    folder.join("corpus").is_dir() && folder.join("queries").is_dir()
}

/// Sets of a Hub folder: NAME of its files `corpus/NAME-00000-of-00001.parquet`.
fn hub_sets(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    let files = names(&folder.join("corpus"), &ENDINGS)?;
    let sets: BTreeSet<String> = files
        .into_iter()
        .map(|(stem, _)| set_of(&stem).to_string())
        .collect();
    Ok(sets.into_iter().collect())
}

/// Languages of a CoIR folder.
fn languages(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    let mut found = folders(folder)?;
    found.retain(|name| name.ends_with("-corpus"));
    let languages = found
        .into_iter()
        .filter_map(|name| name.strip_suffix("-corpus").map(str::to_string));
    Ok(languages
        .filter(|language| folder.join(format!("{language}-queries")).is_dir())
        .collect())
}

/// Folders that are a data set each: MLDR's releases, CQADupStack's twelve forums.
fn releases(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    let mut found = folders(folder)?;
    found.retain(|name| has_either(&folder.join(name), "corpus.jsonl"));
    Ok(found)
}

/// Files of MLDR, whose queries contain their judgments.
fn mldr(
    folder: &Path,
    name: String,
    corpus: PathBuf,
    split: &str,
) -> Result<Files, RetrievalDataError> {
    let Some(queries) = either(folder, &format!("{split}.jsonl"))? else {
        let found = names(folder, &[".jsonl.gz", ".jsonl"])?;
        let found: Vec<&str> = found.iter().map(|(stem, _)| stem.as_str()).collect();
        return Err(RetrievalDataError::NoSplit {
            path: folder.to_path_buf(),
            split: split.to_string(),
            found: splits_there(
                found.into_iter().filter(|stem| *stem != "corpus"),
                &[".jsonl.gz", ".jsonl"],
            ),
        });
    };
    Ok(Files {
        layout: FolderLayout::Mldr,
        name,
        corpus: vec![corpus],
        queries: vec![queries.clone()],
        judgments: Vec::new(),
    })
}

/// Files of a Hub folder. Its corpus files are `corpus/NAME-00000-of-00001.parquet`; more than one NAME means several sets.
fn hub(
    folder: &Path,
    name: String,
    split: &str,
    subset: Option<&str>,
) -> Result<Files, RetrievalDataError> {
    let judgments = ["qrels", "data", "default"].map(|part| folder.join(part));
    let Some(judgments) = judgments.iter().find(|part| part.is_dir()) else {
        return Err(RetrievalDataError::UnknownLayout {
            path: folder.to_path_buf(),
        });
    };
    let sets = hub_sets(folder)?;
    let (corpus, queries) = (folder.join("corpus"), folder.join("queries"));
    if sets.len() <= 1 {
        no_subset(folder, subset)?;
        // A single NanoBEIR set has one split, `train`, for all three parts.
        let alone = names(judgments, &JUDGMENT_ENDINGS)?;
        let nano = sets.first().is_some_and(|set| set == "train")
            && alone.iter().all(|(stem, _)| set_of(stem) == "train");
        let split = if nano { "train" } else { split };
        return Ok(Files {
            layout: FolderLayout::Hub,
            name,
            corpus: all(&corpus, &ENDINGS)?,
            queries: all(&queries, &ENDINGS)?,
            judgments: of_split(judgments, split)?,
        });
    }
    let set = choose(folder, &sets, subset)?;
    let of_set = |folder: &Path| -> Result<Vec<PathBuf>, RetrievalDataError> {
        let files = names(folder, &ENDINGS)?.into_iter();
        let files: Vec<PathBuf> = files
            .filter(|(stem, _)| set_of(stem) == set)
            .map(|(_, path)| path)
            .collect();
        if files.is_empty() {
            return Err(RetrievalDataError::NoSubset {
                path: folder.to_path_buf(),
                subset: set.clone(),
                found: quoted(sets.iter().map(String::as_str)),
            });
        }
        Ok(files)
    };
    Ok(Files {
        layout: FolderLayout::Hub,
        name: set.clone(),
        corpus: of_set(&corpus)?,
        queries: of_set(&queries)?,
        judgments: of_set(judgments)?,
    })
}

/// `NanoSciFact` of `NanoSciFact-00000-of-00001`.
fn set_of(stem: &str) -> &str {
    let Some((rest, _)) = stem.rsplit_once("-of-") else {
        return stem;
    };
    rest.rsplit_once('-').map_or(stem, |(set, _)| set)
}

fn choose(
    folder: &Path,
    found: &[String],
    subset: Option<&str>,
) -> Result<String, RetrievalDataError> {
    let list = || quoted(found.iter().map(String::as_str));
    match subset {
        Some(subset) => {
            let chosen = found.iter().find(|name| name.as_str() == subset);
            chosen.cloned().ok_or_else(|| RetrievalDataError::NoSubset {
                path: folder.to_path_buf(),
                subset: subset.to_string(),
                found: list(),
            })
        }
        None if found.len() == 1 => Ok(found[0].clone()),
        None => Err(RetrievalDataError::ChooseSubset {
            path: folder.to_path_buf(),
            found: list(),
        }),
    }
}

fn no_subset(folder: &Path, subset: Option<&str>) -> Result<(), RetrievalDataError> {
    match subset {
        None => Ok(()),
        Some(subset) => Err(RetrievalDataError::NoSubset {
            path: folder.to_path_buf(),
            subset: subset.to_string(),
            found: "one set without a name; leave --subset out".to_string(),
        }),
    }
}

fn of_split(folder: &Path, split: &str) -> Result<Vec<PathBuf>, RetrievalDataError> {
    let found = names(folder, &JUDGMENT_ENDINGS)?;
    let files: Vec<PathBuf> = found
        .iter()
        .filter(|(stem, _)| set_of(stem) == split)
        .map(|(_, path)| path.clone())
        .collect();
    if files.is_empty() {
        let of_split: BTreeSet<&str> = found.iter().map(|(stem, _)| set_of(stem)).collect();
        return Err(RetrievalDataError::NoSplit {
            path: folder.to_path_buf(),
            split: split.to_string(),
            found: splits_there(of_split.into_iter(), &JUDGMENT_ENDINGS),
        });
    }
    Ok(files)
}

/// The splits found, or the files that are read where there is none.
fn splits_there<'a>(found: impl Iterator<Item = &'a str>, endings: &[&str]) -> String {
    let mut found = found.peekable();
    if found.peek().is_some() {
        return format!("the splits there are: {}", quoted(found));
    }
    let endings: Vec<String> = endings
        .iter()
        .map(|ending| format!("SPLIT{ending}"))
        .collect();
    format!(
        "the folder has none of the files that are read: {}",
        endings.join(", ")
    )
}

fn all(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, RetrievalDataError> {
    let files: Vec<PathBuf> = names(folder, endings)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    if files.is_empty() {
        return Err(RetrievalDataError::EmptyCorpus {
            path: folder.to_path_buf(),
        });
    }
    Ok(files)
}

/// The file, plain or as .gz.
fn either(folder: &Path, name: &str) -> Result<Option<PathBuf>, RetrievalDataError> {
    let candidates = [folder.join(name), folder.join(format!("{name}.gz"))];
    let mut found = candidates.into_iter().filter(|path| path.is_file());
    match (found.next(), found.next()) {
        (Some(path), Some(second)) => Err(RetrievalDataError::TwoForms { path, second }),
        (first, _) => Ok(first),
    }
}

fn has_either(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file() || folder.join(format!("{name}.gz")).is_file()
}

/// Files with one of the endings, each with its name without the ending, sorted by name.
fn names(folder: &Path, endings: &[&str]) -> Result<Vec<(String, PathBuf)>, RetrievalDataError> {
    let mut found = Vec::new();
    for name in entries(folder)? {
        let stem = endings.iter().find_map(|ending| name.strip_suffix(ending));
        let path = folder.join(&name);
        if let Some(stem) = stem.filter(|_| path.is_file()) {
            found.push((stem.to_string(), path));
        }
    }
    found.sort();
    let two = |pair: &&[(String, PathBuf)]| pair[0].0 == pair[1].0;
    match found.windows(2).find(two) {
        Some([(_, path), (_, second)]) => Err(RetrievalDataError::TwoForms {
            path: path.clone(),
            second: second.clone(),
        }),
        _ => Ok(found),
    }
}

fn folders(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    let mut names = entries(folder)?;
    names.retain(|name| folder.join(name).is_dir());
    names.sort();
    Ok(names)
}

fn entries(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
    let failed = |source| RetrievalDataError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn name_of(folder: &Path) -> String {
    let real = folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf());
    let name = real
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "data".to_string())
}
