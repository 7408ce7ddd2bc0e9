//! Runs: ranked documents by query, read from and written to TREC run files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use modernbert_files::atomic::write_atomically;

use crate::data::{RetrievalDataError, lines};

/// A document found for a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Document id.
    pub id: String,
    /// Score; a higher one ranks first.
    pub score: f64,
}

/// Results of a retrieval system: hits by query id, each document at most once per query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Name of the system, the last column of a run file.
    pub name: String,
    /// Hits by query, in any order; [`crate::metrics::rank`] sorts them.
    pub queries: BTreeMap<String, Vec<Hit>>,
}

/// Treatment of a document that a run file ranks twice for one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// An error.
    #[default]
    Refuse,
    /// The best score counts, as when the passages of a document are scored one by one.
    KeepBest,
}

impl Run {
    /// Reads a TREC run file: query id, an unused column, document id, rank (unused), score, name of the system; separated by white space.
    ///
    /// # Errors
    /// [`RetrievalDataError`]: a file that cannot be read or is empty, a row without six columns, a score that is not finite, a duplicate
    /// document under [`Duplicates::Refuse`].
    pub fn read(path: &Path, duplicates: Duplicates) -> Result<Self, RetrievalDataError> {
        let mut run = Self::default();
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for line in lines(path)? {
            let line = line?;
            let columns: Vec<&str> = line.text.split_whitespace().collect();
            let [query, _, document, _, score, name] = columns[..] else {
                return Err(RetrievalDataError::Columns {
                    path: path.to_path_buf(),
                    line: line.number,
                    found: columns.len(),
                    expected: "6 (query, Q0, document, rank, score, name)",
                });
            };
            let parsed = score.parse::<f64>().ok().filter(|score| score.is_finite());
            let score = parsed.ok_or_else(|| RetrievalDataError::Score {
                path: path.to_path_buf(),
                line: line.number,
                score: score.to_string(),
            })?;
            if run.name.is_empty() {
                run.name = name.to_string();
            }
            let hits = run.queries.entry(query.to_string()).or_default();
            let key = (query.to_string(), document.to_string());
            match places.get(&key) {
                Some(&place) if duplicates == Duplicates::KeepBest => {
                    hits[place].score = hits[place].score.max(score);
                }
                Some(_) => {
                    return Err(RetrievalDataError::DuplicateHit {
                        path: path.to_path_buf(),
                        line: line.number,
                        query: key.0,
                        document: key.1,
                    });
                }
                None => {
                    places.insert(key, hits.len());
                    hits.push(Hit {
                        id: document.to_string(),
                        score,
                    });
                }
            }
        }
        if run.queries.is_empty() {
            return Err(RetrievalDataError::EmptyRun {
                path: path.to_path_buf(),
            });
        }
        Ok(run)
    }

    /// Writes a TREC run file; see [`Self::text`]. The file appears complete or not at all.
    ///
    /// # Errors
    /// As [`Self::text`]; a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RetrievalDataError> {
        let content = self.text(path)?;
        write_atomically(path, &content).map_err(|source| RetrievalDataError::Write {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Returns the content of a TREC run file in evaluation order, with ranks from 1. Scores are written so that they are read back
    /// exactly. `path` is the file's name in errors.
    ///
    /// # Errors
    /// [`RetrievalDataError`]: an id with white space, a score that is not finite, a run without hits.
    pub fn text(&self, path: &Path) -> Result<Vec<u8>, RetrievalDataError> {
        let unwritable = |id: &str| RetrievalDataError::UnwritableId {
            path: path.to_path_buf(),
            id: id.to_string(),
        };
        let is_word = |id: &str| !id.is_empty() && !id.contains(char::is_whitespace);
        let failed = |source| RetrievalDataError::Write {
            path: path.to_path_buf(),
            source,
        };
        let name: String = self.name.split_whitespace().collect::<Vec<_>>().join("-");
        let name = if name.is_empty() { "run" } else { &name };
        let mut content = Vec::new();
        for (query, hits) in &self.queries {
            if !is_word(query) {
                return Err(unwritable(query));
            }
            for (i, hit) in crate::metrics::rank(hits).into_iter().enumerate() {
                if !is_word(&hit.id) {
                    return Err(unwritable(&hit.id));
                }
                if !hit.score.is_finite() {
                    return Err(RetrievalDataError::UnwritableScore {
                        path: path.to_path_buf(),
                        query: query.clone(),
                        document: hit.id.clone(),
                        score: hit.score,
                    });
                }
                writeln!(
                    content,
                    "{query} Q0 {} {} {} {name}",
                    hit.id,
                    i + 1,
                    hit.score
                )
                .map_err(failed)?;
            }
        }
        if content.is_empty() {
            return Err(RetrievalDataError::NoResults {
                path: path.to_path_buf(),
            });
        }
        Ok(content)
    }

    /// Removes hits whose document id equals the query's, and returns their number. BEIR does so for every set, MTEB for some
    /// ([`crate::metrics::mteb_ignores_identical_ids`]).
    pub fn drop_identical_ids(&mut self) -> usize {
        let mut dropped = 0;
        for (query, hits) in &mut self.queries {
            let before = hits.len();
            hits.retain(|hit| hit.id != *query);
            dropped += before - hits.len();
        }
        dropped
    }

    /// Keeps the best `count` hits of each query, in evaluation order.
    pub fn truncate(&mut self, count: usize) {
        for hits in self.queries.values_mut() {
            let ranked = crate::metrics::rank(hits);
            let best: Vec<Hit> = ranked.into_iter().take(count).cloned().collect();
            *hits = best;
        }
    }

    /// Number of documents that occur in this run but are not among the given ids.
    pub fn unknown_documents(&self, known: &HashSet<String>) -> usize {
        let ids: HashSet<&str> = self
            .queries
            .values()
            .flatten()
            .map(|hit| hit.id.as_str())
            .collect();
        ids.into_iter().filter(|id| !known.contains(*id)).count()
    }
}
