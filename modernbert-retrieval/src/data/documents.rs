//! Documents of a corpus.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use modernbert_files::wording::counted;

use super::judgments::SourceLine;
use super::rows::{Row, RowStream, rows_of};
use super::{DOCUMENT_ID, Dataset, RetrievalDataError};

/// A document of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusDocument {
    /// Its id, unique in the corpus.
    pub id: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its text; can be empty.
    pub text: String,
}

impl CorpusDocument {
    /// Returns title and text with a space between them, trimmed: what is indexed and encoded.
    pub fn full_text(&self) -> String {
        if self.title.is_empty() {
            return self.text.trim().to_string();
        }
        format!("{} {}", self.title, self.text).trim().to_string()
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
    /// The counts as notes for a person.
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
    rows: RowStream,
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

impl<'set> Documents<'set> {
    pub(super) fn new(dataset: &'set Dataset) -> Self {
        Self {
            dataset,
            rows: rows_of(&dataset.corpus),
            seen: HashMap::new(),
            paths: Vec::new(),
            state: State::Reading,
            summary: CorpusSummary::default(),
        }
    }

    /// Counts of what was read so far.
    pub fn summary(&self) -> &CorpusSummary {
        &self.summary
    }

    fn document(&mut self, row: Row) -> Result<Option<CorpusDocument>, RetrievalDataError> {
        let id = row.id(&DOCUMENT_ID, "document")?;
        if self.paths.last().is_none_or(|last| *last != row.path) {
            self.paths.push(Arc::clone(&row.path));
        }
        if let Some(&(file, line)) = self.seen.get(&id) {
            return Err(RetrievalDataError::DuplicateId {
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
        let document = CorpusDocument { id, title, text };
        if document.title.trim().is_empty() && document.text.trim().is_empty() {
            if self.dataset.drops_empty {
                self.summary.left_out += 1;
                return Ok(None);
            }
            self.summary.empty += 1;
        }
        self.summary.documents += 1;
        Ok(Some(document))
    }

    fn check_end(&mut self) -> Result<(), RetrievalDataError> {
        if self.summary.documents == 0 {
            return Err(RetrievalDataError::EmptyCorpus {
                path: self.dataset.corpus[0].clone(),
            });
        }
        let absent = self
            .dataset
            .judged
            .iter()
            .filter(|(id, _)| !self.seen.contains_key(*id));
        let absent: Vec<(&String, &SourceLine)> = absent.collect();
        self.summary.missing = absent.len();
        let first = absent
            .iter()
            .min_by_key(|(_, place)| (&place.path, place.line));
        match first {
            Some((id, place)) if !self.dataset.partial => {
                Err(RetrievalDataError::MissingDocument {
                    path: place.path.clone(),
                    line: place.line,
                    id: id.to_string(),
                    count: absent.len(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<CorpusDocument, RetrievalDataError>;

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
