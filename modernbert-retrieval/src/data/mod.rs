//! Retrieval data sets: BEIR, NanoBEIR, MLDR and CoIR folders.
//!
//! | module | contents |
//! |---|---|
//! | [`layout`](FolderLayout) | which files of a folder are corpus, queries and judgments |
//! | [`documents`](Documents) | the stream of a corpus |
//! | [`judgments`](Judgments) | grades by query and document |
//! | `rows` | JSONL and Parquet files as rows with their place |
//!
//! Queries and judgments are read when a set is opened; documents are a stream, because a corpus can be larger than memory.

mod documents;
mod error;
mod judgments;
mod layout;
mod rows;

pub use documents::{CorpusDocument, CorpusSummary, Documents};
pub use error::RetrievalDataError;
pub use judgments::Judgments;
pub use layout::FolderLayout;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use judgments::{Collected, SourceLine};
use modernbert_files::wording::counted;
use rows::rows_of;
use serde_json::Value;

pub(crate) use rows::{Row, lines, rows};

const DOCUMENT_ID: [&str; 4] = ["_id", "id", "docid", "doc_id"];
const QUERY_ID: [&str; 3] = ["_id", "id", "query_id"];

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its id, unique among the queries.
    pub id: String,
    /// Its text, never empty.
    pub text: String,
}

/// Choices when a data set is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Split whose judgments are used: `test`, `dev` or `train`.
    pub split: String,
    /// One set of a folder with several: a NanoBEIR set, a language of CoIR or MLDR.
    pub subset: Option<String>,
    /// Accepts judgments of documents and queries that the set lacks.
    pub partial: bool,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        Self {
            split: "test".to_string(),
            subset: None,
            partial: false,
        }
    }
}

/// An opened data set: the judged queries of one split, their judgments, and the files of the corpus.
#[derive(Debug)]
pub struct Dataset {
    /// Name of the folder or of the subset.
    pub name: String,
    /// Layout of the folder.
    pub layout: FolderLayout,
    /// Split whose judgments are used.
    pub split: String,
    /// Queries that have a judgment in this split, in the order of their file.
    pub queries: Vec<Query>,
    /// Judgments of these queries.
    pub judgments: Judgments,
    /// Facts that do not stop an evaluation, in sentences.
    pub notes: Vec<String>,
    corpus: Vec<PathBuf>,
    query_files: Vec<PathBuf>,
    judged: HashMap<String, SourceLine>,
    partial: bool,
    missing_queries: bool,
    drops_empty: bool,
}

impl Dataset {
    /// Returns the names of the sets in a folder with several (NanoBEIR, CoIR, MLDR, CQADupStack); empty for a folder with one.
    ///
    /// # Errors
    /// A folder that does not exist or has no known layout.
    pub fn subsets(folder: &Path) -> Result<Vec<String>, RetrievalDataError> {
        layout::subsets(folder)
    }

    /// `true` if judged queries are absent, which only [`DatasetOptions::partial`] allows.
    pub fn is_missing_queries(&self) -> bool {
        self.missing_queries
    }

    /// Opens the data set in a folder and reads its queries and judgments.
    ///
    /// # Errors
    /// [`RetrievalDataError`]: an unknown layout, split or subset; a malformed row, with file and line; two queries of one id; a judged query
    /// without text; and, unless [`DatasetOptions::partial`], a judged query that is absent.
    pub fn open(folder: &Path, options: &DatasetOptions) -> Result<Self, RetrievalDataError> {
        let files = layout::find(folder, &options.split, options.subset.as_deref())?;
        let mut collected = Collected::read(&files.judgments)?;
        let mut all = Queries::default();
        let mut dropped = 0;
        // NanoBEIR's own convention: documents and queries without text are left out.
        let drops_empty = files.layout == FolderLayout::Hub && files.name.starts_with("Nano");
        for row in rows_of(&files.queries) {
            let row = row?;
            if files.layout == FolderLayout::Mldr {
                inline_judgments(&row, &mut collected)?;
            }
            let id = row.id(&QUERY_ID, "query")?;
            let text = row.text(&["text", "query"])?;
            let judged = collected.judgments.queries.contains_key(&id);
            if judged && text.trim().is_empty() {
                if !drops_empty {
                    return Err(RetrievalDataError::EmptyQuery {
                        path: row.path.to_path_buf(),
                        line: row.line,
                        id,
                    });
                }
                dropped += 1;
                collected.judgments.queries.remove(&id);
                collected.queries.remove(&id);
                continue;
            }
            all.add(&row, Query { id, text }, judged)?;
        }
        if collected.judgments.is_empty() {
            let files = [&files.judgments[..], &files.queries[..]].concat();
            return Err(RetrievalDataError::NoJudgments {
                path: files
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| folder.to_path_buf()),
            });
        }
        let mut notes = Vec::new();
        if dropped > 0 {
            notes.push(format!(
                "{} without text left out",
                counted(dropped, "query", "queries")
            ));
        }
        let mut absent: Vec<(&String, &SourceLine)> = collected
            .queries
            .iter()
            .filter(|(id, _)| !all.places.contains_key(*id))
            .collect();
        absent.sort_by_key(|(_, place)| (&place.path, place.line));
        let missing_queries = !absent.is_empty();
        if let Some((id, place)) = absent.first() {
            if !options.partial {
                return Err(RetrievalDataError::MissingQuery {
                    path: place.path.clone(),
                    line: place.line,
                    id: id.to_string(),
                });
            }
            notes.push(format!(
                "partial: {} judged but absent, left out",
                counted(absent.len(), "query is", "queries are")
            ));
            for (id, _) in absent {
                collected.judgments.queries.remove(id);
            }
        }
        if collected.repeated > 0 {
            notes.push(format!(
                "{} repeated in the judgments",
                counted(collected.repeated, "row is", "rows are")
            ));
        }
        let without = collected
            .judgments
            .queries
            .values()
            .filter(|grades| grades.values().all(|&grade| grade < 1))
            .count();
        if without > 0 {
            notes.push(format!(
                "{} no relevant document and score 0 on every measure",
                counted(without, "query has", "queries have")
            ));
        }
        Ok(Self {
            name: files.name,
            layout: files.layout,
            split: options.split.clone(),
            queries: all.judged,
            judgments: collected.judgments,
            notes,
            corpus: files.corpus,
            query_files: files.queries,
            judged: collected.documents,
            partial: options.partial,
            missing_queries,
            drops_empty,
        })
    }

    /// Files of the corpus.
    pub fn corpus_files(&self) -> &[PathBuf] {
        &self.corpus
    }

    /// Files of the queries of all splits.
    pub fn query_files(&self) -> &[PathBuf] {
        &self.query_files
    }

    /// Returns the documents in the order of their files. After the last one, the stream checks that every judged document occurred.
    ///
    /// # Errors
    /// Items are errors for a malformed row, two documents of one id, a corpus without a document and, unless
    /// [`DatasetOptions::partial`], a judged document that is absent.
    pub fn documents(&self) -> Documents<'_> {
        Documents::new(self)
    }
}

/// Queries read so far, with the place of each id.
#[derive(Default)]
struct Queries {
    judged: Vec<Query>,
    places: BTreeMap<String, SourceLine>,
}

impl Queries {
    fn add(&mut self, row: &Row, query: Query, judged: bool) -> Result<(), RetrievalDataError> {
        if let Some(first) = self.places.get(&query.id) {
            return Err(RetrievalDataError::DuplicateId {
                path: row.path.to_path_buf(),
                line: row.line,
                what: "query",
                id: query.id,
                first_path: first.path.clone(),
                first_line: first.line,
            });
        }
        let place = SourceLine {
            path: row.path.to_path_buf(),
            line: row.line,
        };
        self.places.insert(query.id.clone(), place);
        if judged {
            self.judged.push(query);
        }
        Ok(())
    }
}

/// Takes the relevant passages out of an MLDR query.
fn inline_judgments(row: &Row, collected: &mut Collected) -> Result<(), RetrievalDataError> {
    let query = row.id(&QUERY_ID, "query")?;
    let (field, value) = row.need(&["positive_passages"])?;
    let Value::Array(passages) = value else {
        return Err(row.wrong_type(field, value, "a list"));
    };
    for passage in passages {
        let Value::Object(fields) = passage else {
            return Err(row.wrong_type(field, passage, "a list of objects"));
        };
        let passage = Row {
            path: Arc::clone(&row.path),
            line: row.line,
            fields: fields.clone(),
        };
        let document = passage.id(&DOCUMENT_ID, "document")?;
        let place = SourceLine {
            path: row.path.to_path_buf(),
            line: row.line,
        };
        collected.add(&query, &document, 1, &place)?;
    }
    Ok(())
}
