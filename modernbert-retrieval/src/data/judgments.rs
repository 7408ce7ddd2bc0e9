//! Relevance judgments (qrels).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::RetrievalDataError;
use super::rows::{Line, Row, lines, rows};

/// Grades by query and document. A grade of 1 or more means relevant, 0 judged and not relevant; below 0 the document counts as not judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgments {
    /// Query id to document id to grade.
    pub queries: BTreeMap<String, BTreeMap<String, i32>>,
}

impl Judgments {
    /// Number of judgments.
    pub fn len(&self) -> usize {
        self.queries.values().map(BTreeMap::len).sum()
    }

    /// `true` if there is no judgment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads files of judgments: TSV with BEIR's header, TREC's four columns, JSONL or Parquet. A row without a grade has grade 1.
    ///
    /// # Errors
    /// A file that cannot be read; a row with the wrong columns, an empty id or a grade that is not an integer; two grades for one pair.
    pub fn read(paths: &[PathBuf]) -> Result<Self, RetrievalDataError> {
        Ok(Collected::read(paths)?.judgments)
    }
}

/// A place in a file.
#[derive(Clone, Debug)]
pub(super) struct SourceLine {
    pub(super) path: PathBuf,
    pub(super) line: usize,
}

/// Judgments together with the place where each query and each document is first judged.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) judgments: Judgments,
    pub(super) queries: HashMap<String, SourceLine>,
    pub(super) documents: HashMap<String, SourceLine>,
    /// Rows that repeat an earlier one.
    pub(super) repeated: usize,
}

impl Collected {
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, RetrievalDataError> {
        let mut collected = Self::default();
        for path in paths {
            let name = path.to_string_lossy();
            if [".tsv", ".txt", ".qrels"]
                .iter()
                .any(|ending| name.ends_with(ending))
            {
                collected.read_table(path)?;
            } else {
                for row in rows(path)? {
                    collected.add_row(&row?)?;
                }
            }
        }
        Ok(collected)
    }

    pub(super) fn add(
        &mut self,
        query: &str,
        document: &str,
        grade: i32,
        place: &SourceLine,
    ) -> Result<(), RetrievalDataError> {
        for (id, what) in [(query, "query"), (document, "document")] {
            if id.is_empty() {
                return Err(RetrievalDataError::EmptyId {
                    path: place.path.clone(),
                    line: place.line,
                    what,
                });
            }
        }
        let of_query = match self.judgments.queries.get_mut(query) {
            Some(of_query) => of_query,
            None => self.judgments.queries.entry(query.to_string()).or_default(),
        };
        match of_query.get(document) {
            Some(&first) if first != grade => {
                return Err(RetrievalDataError::ConflictingGrades {
                    path: place.path.clone(),
                    line: place.line,
                    query: query.to_string(),
                    document: document.to_string(),
                    first,
                    second: grade,
                });
            }
            Some(_) => self.repeated += 1,
            None => {
                of_query.insert(document.to_string(), grade);
            }
        }
        for (id, places) in [(query, &mut self.queries), (document, &mut self.documents)] {
            if !places.contains_key(id) {
                places.insert(id.to_string(), place.clone());
            }
        }
        Ok(())
    }

    fn add_row(&mut self, row: &Row) -> Result<(), RetrievalDataError> {
        let query = row.id(&["query-id", "query_id", "qid"], "query")?;
        let document = row.id(&["corpus-id", "corpus_id", "docid", "doc_id"], "document")?;
        let place = SourceLine {
            path: row.path.to_path_buf(),
            line: row.line,
        };
        let grade = match row.find(&["score", "relevance", "label"]) {
            None => 1,
            Some((_, value)) => {
                let number = match value {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                let fits = number.filter(|number| number.fract() == 0.0 && number.abs() <= 127.0);
                fits.ok_or_else(|| place.bad_grade(value.to_string()))? as i32
            }
        };
        self.add(&query, &document, grade, &place)
    }

    fn read_table(&mut self, path: &Path) -> Result<(), RetrievalDataError> {
        // BEIR's files have a header; TREC's have none, and an unused second column.
        let mut header: Option<[Option<usize>; 3]> = None;
        for line in lines(path)? {
            let Line { number, text } = line?;
            let place = SourceLine {
                path: path.to_path_buf(),
                line: number,
            };
            let tabs: Vec<&str> = text.split('\t').map(str::trim).collect();
            if number == 1
                && let Some(found) = beir_header(&tabs)
            {
                header = Some(found);
                continue;
            }
            let (query, document, grade) = if let Some([query, document, grade]) = header {
                let cell =
                    |column: Option<usize>| column.and_then(|column| tabs.get(column)).copied();
                let (Some(query), Some(document)) = (cell(query), cell(document)) else {
                    return Err(place.columns(tabs.len(), "those of the header"));
                };
                let missing = grade.is_some() && cell(grade).is_none();
                if missing {
                    return Err(place.columns(tabs.len(), "those of the header"));
                }
                (query, document, cell(grade).unwrap_or("1"))
            } else if tabs.len() == 3 {
                (tabs[0], tabs[1], tabs[2])
            } else {
                let words: Vec<&str> = text.split_whitespace().collect();
                match words[..] {
                    [query, _, document, grade] => (query, document, grade),
                    _ => {
                        return Err(
                            place.columns(words.len(), "3 separated by tabs (BEIR) or 4 (TREC)")
                        );
                    }
                }
            };
            let parsed = grade.parse::<i32>().ok().filter(|grade| grade.abs() <= 127);
            let grade = parsed.ok_or_else(|| place.bad_grade(grade.to_string()))?;
            self.add(query, document, grade, &place)?;
        }
        Ok(())
    }
}

/// Columns of query, document and grade, if the line is a header.
fn beir_header(cells: &[&str]) -> Option<[Option<usize>; 3]> {
    let column = |names: &[&str]| cells.iter().position(|cell| names.contains(cell));
    let query = column(&["query-id", "query_id", "qid"])?;
    let document = column(&["corpus-id", "corpus_id", "docid", "doc_id", "pid"])?;
    Some([Some(query), Some(document), column(&["score", "relevance"])])
}

impl SourceLine {
    fn bad_grade(&self, grade: String) -> RetrievalDataError {
        RetrievalDataError::Grade {
            path: self.path.clone(),
            line: self.line,
            grade,
        }
    }

    fn columns(&self, found: usize, expected: &'static str) -> RetrievalDataError {
        RetrievalDataError::Columns {
            path: self.path.clone(),
            line: self.line,
            found,
            expected,
        }
    }
}
