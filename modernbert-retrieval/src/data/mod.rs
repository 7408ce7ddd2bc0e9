//! Retrieval data sets: BEIR, NanoBEIR, MLDR and CoIR folders.
//!
//! | module | contents |
//! |---|---|
//! | [`layout`](Layout) | which files of a folder are corpus, queries and judgments |
//! | [`judgments`](Judgments) | grades by query and document |
//! | `rows` | JSONL and Parquet files as rows with their place |
//!
//! Queries and judgments are read when a set is opened; documents are a stream, because a corpus can be larger than memory.

mod error;
mod judgments;
mod layout;
mod rows;

pub use error::DataError;
pub use judgments::Judgments;
pub use layout::Layout;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use judgments::{Collected, Place};
use rows::{Rows, rows_of};
use serde_json::Value;

pub(crate) use rows::{Row, lines, rows};

const DOCUMENT_ID: [&str; 4] = ["_id", "id", "docid", "doc_id"];
const QUERY_ID: [&str; 3] = ["_id", "id", "query_id"];

/// A document of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id, unique in the corpus.
    pub id: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its text; can be empty.
    pub text: String,
}

impl Document {
    /// Returns title and text with a space between them, trimmed: what is indexed and encoded.
    pub fn full_text(&self) -> String {
        if self.title.is_empty() {
            return self.text.trim().to_string();
        }
        format!("{} {}", self.title, self.text).trim().to_string()
    }
}

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
    pub layout: Layout,
    /// Split whose judgments are used.
    pub split: String,
    /// Queries that have a judgment in this split, in the order of their file.
    pub queries: Vec<Query>,
    /// Judgments of these queries.
    pub judgments: Judgments,
    /// Facts that do not stop an evaluation, in sentences.
    pub notes: Vec<String>,
    corpus: Vec<PathBuf>,
    judged: HashMap<String, Place>,
    partial: bool,
    missing_queries: bool,
    drops_empty: bool,
}

impl Dataset {
    /// Returns the names of the sets in a folder with several (NanoBEIR, CoIR, MLDR, CQADupStack); empty for a folder with one.
    ///
    /// # Errors
    /// A folder that does not exist or has no known layout.
    pub fn subsets(folder: &Path) -> Result<Vec<String>, DataError> {
        layout::subsets(folder)
    }

    /// `true` if judged queries are absent, which only [`DatasetOptions::partial`] allows.
    pub fn is_missing_queries(&self) -> bool {
        self.missing_queries
    }

    /// Opens the data set in a folder and reads its queries and judgments.
    ///
    /// # Errors
    /// [`DataError`]: an unknown layout, split or subset; a malformed row, with file and line; two queries of one id; a judged query
    /// without text; and, unless [`DatasetOptions::partial`], a judged query that is absent.
    pub fn open(folder: &Path, options: &DatasetOptions) -> Result<Self, DataError> {
        let files = layout::find(folder, &options.split, options.subset.as_deref())?;
        let mut collected = Collected::read(&files.judgments)?;
        let mut all = Queries::default();
        let mut dropped = 0;
        // NanoBEIR's own convention: documents and queries without text are left out.
        let drops_empty = files.layout == Layout::Hub && files.name.starts_with("Nano");
        for row in rows_of(&files.queries) {
            let row = row?;
            if files.layout == Layout::Mldr {
                inline_judgments(&row, &mut collected)?;
            }
            let id = row.id(&QUERY_ID, "query")?;
            let text = row.text(&["text", "query"])?;
            let judged = collected.judgments.queries.contains_key(&id);
            if judged && text.trim().is_empty() {
                if !drops_empty {
                    return Err(DataError::EmptyQuery {
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
            return Err(DataError::NoJudgments {
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
        let mut absent: Vec<(&String, &Place)> = collected
            .queries
            .iter()
            .filter(|(id, _)| !all.places.contains_key(*id))
            .collect();
        absent.sort_by_key(|(_, place)| (&place.path, place.line));
        let missing_queries = !absent.is_empty();
        if let Some((id, place)) = absent.first() {
            if !options.partial {
                return Err(DataError::MissingQuery {
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
            judged: collected.documents,
            partial: options.partial,
            missing_queries,
            drops_empty,
        })
    }

    /// Returns the documents in the order of their files. After the last one, the stream checks that every judged document occurred.
    ///
    /// # Errors
    /// Items are errors for a malformed row, two documents of one id, a corpus without a document and, unless
    /// [`DatasetOptions::partial`], a judged document that is absent.
    pub fn documents(&self) -> Documents<'_> {
        Documents {
            dataset: self,
            rows: rows_of(&self.corpus),
            seen: HashMap::new(),
            paths: Vec::new(),
            state: State::Reading,
            summary: CorpusSummary::default(),
        }
    }
}

/// Counts about a corpus that was read to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorpusSummary {
    /// Documents returned.
    pub documents: usize,
    /// Documents among them with neither title nor text.
    pub empty: usize,
    /// Documents without text that were left out, as NanoBEIR does.
    pub left_out: usize,
    /// Judged documents that are absent from the corpus.
    pub missing: usize,
}

impl CorpusSummary {
    /// The counts that are worth a sentence.
    pub fn notes(&self) -> Vec<String> {
        let sentences = [
            (
                self.empty,
                "document without text",
                "documents without text",
            ),
            (
                self.left_out,
                "document without text left out",
                "documents without text left out",
            ),
            (
                self.missing,
                "judged document is absent from the corpus and counts as not found: the set is partial",
                "judged documents are absent from the corpus and count as not found: the set is partial",
            ),
        ];
        let present = sentences.into_iter().filter(|(count, ..)| *count > 0);
        present
            .map(|(count, one, many)| counted(count, one, many))
            .collect()
    }
}

/// Stream of a corpus's documents; see [`Dataset::documents`].
pub struct Documents<'set> {
    dataset: &'set Dataset,
    rows: Rows,
    seen: HashMap<String, (u32, usize)>,
    paths: Vec<Arc<PathBuf>>,
    state: State,
    summary: CorpusSummary,
}

#[derive(PartialEq)]
enum State {
    Reading,
    Done,
}

impl Documents<'_> {
    /// Counts of what was read so far.
    pub fn summary(&self) -> &CorpusSummary {
        &self.summary
    }

    fn document(&mut self, row: Row) -> Result<Option<Document>, DataError> {
        let id = row.id(&DOCUMENT_ID, "document")?;
        if self.paths.last().is_none_or(|last| *last != row.path) {
            self.paths.push(Arc::clone(&row.path));
        }
        if let Some(&(file, line)) = self.seen.get(&id) {
            return Err(DataError::DuplicateId {
                path: row.path.to_path_buf(),
                line: row.line,
                what: "document",
                id,
                first_path: self.paths[file as usize].to_path_buf(),
                first_line: line,
            });
        }
        self.seen
            .insert(id.clone(), (self.paths.len() as u32 - 1, row.line));
        let title = row.text_or_empty(&["title"])?;
        let text = row.text(&["text"])?;
        let document = Document { id, title, text };
        if document.full_text().is_empty() {
            if self.dataset.drops_empty {
                self.summary.left_out += 1;
                return Ok(None);
            }
            self.summary.empty += 1;
        }
        self.summary.documents += 1;
        Ok(Some(document))
    }

    fn check_end(&mut self) -> Result<(), DataError> {
        if self.summary.documents == 0 {
            return Err(DataError::EmptyCorpus {
                path: self.dataset.corpus[0].clone(),
            });
        }
        let absent = self
            .dataset
            .judged
            .iter()
            .filter(|(id, _)| !self.seen.contains_key(*id));
        let absent: Vec<(&String, &Place)> = absent.collect();
        self.summary.missing = absent.len();
        let first = absent
            .iter()
            .min_by_key(|(_, place)| (&place.path, place.line));
        match first {
            Some((id, place)) if !self.dataset.partial => Err(DataError::MissingDocument {
                path: place.path.clone(),
                line: place.line,
                id: id.to_string(),
                count: absent.len(),
            }),
            _ => Ok(()),
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.state == State::Reading {
            let result = match self.rows.next() {
                Some(Ok(row)) => self.document(row),
                Some(Err(error)) => Err(error),
                None => {
                    self.state = State::Done;
                    return self.check_end().err().map(Err);
                }
            };
            match result {
                Ok(Some(document)) => return Some(Ok(document)),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Done;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Queries read so far, with the place of each id.
#[derive(Default)]
struct Queries {
    judged: Vec<Query>,
    places: BTreeMap<String, Place>,
}

impl Queries {
    fn add(&mut self, row: &Row, query: Query, judged: bool) -> Result<(), DataError> {
        if let Some(first) = self.places.get(&query.id) {
            return Err(DataError::DuplicateId {
                path: row.path.to_path_buf(),
                line: row.line,
                what: "query",
                id: query.id,
                first_path: first.path.clone(),
                first_line: first.line,
            });
        }
        let place = Place {
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
fn inline_judgments(row: &Row, collected: &mut Collected) -> Result<(), DataError> {
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
        let place = Place {
            path: row.path.to_path_buf(),
            line: row.line,
        };
        collected.add(&query, &document, 1, &place)?;
    }
    Ok(())
}

pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
