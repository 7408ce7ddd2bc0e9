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

    /// Reads files of judgments: TSV with BEIR's header, TREC's four columns, JSONL or Parquet. In a file
    /// without grades every row has grade 1.
    ///
    /// # Errors
    /// A file that cannot be read; a row with the wrong columns, an empty id or a grade that is not an integer; a column or a number that
    /// may be the grade and has no known name; two grades for one pair.
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
                let mut graded = None;
                for row in rows(path)? {
                    collected.add_row(&row?, &mut graded)?;
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

    /// Adds a row; `graded` is true if the rows of its file have grades, `None` before the first.
    fn add_row(&mut self, row: &Row, graded: &mut Option<bool>) -> Result<(), RetrievalDataError> {
        let query = row.id(QUERY_NAMES, "query")?;
        let document = row.id(DOCUMENT_NAMES, "document")?;
        let place = SourceLine {
            path: row.path.to_path_buf(),
            line: row.line,
        };
        let mut grades = Vec::new();
        for name in GRADE_NAMES {
            let Some(value) = row.fields.get(*name) else {
                continue;
            };
            if value.is_null() {
                return Err(RetrievalDataError::NullField {
                    path: place.path,
                    line: place.line,
                    field: name.to_string(),
                });
            }
            let number = match value {
                Value::Number(number) => number.as_f64(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let fits = number.filter(|number| number.fract() == 0.0 && number.abs() <= 127.0);
            let grade = fits.ok_or_else(|| place.bad_grade(value.to_string()))? as i32;
            grades.push((*name, grade));
        }
        // A number of another name may be the grade.
        let is_other = |name: &str| {
            let known = [QUERY_NAMES, DOCUMENT_NAMES, UNUSED_NAMES];
            !known.iter().any(|names| names.contains(&name))
        };
        if grades.is_empty()
            && let Some((name, _)) = row
                .fields
                .iter()
                .find(|(name, value)| is_numeric(value) && is_other(name))
        {
            return Err(place.unknown_grade(name));
        }
        if *graded.get_or_insert(!grades.is_empty()) == grades.is_empty() {
            // Some rows of the file have a grade, others none.
            return Err(RetrievalDataError::SomeGrades {
                path: place.path,
                line: place.line,
                has: if grades.is_empty() {
                    "no grade"
                } else {
                    "a grade"
                },
            });
        }
        let grade = place.one_grade(&grades)?;
        self.add(&query, &document, grade, &place)
    }

    fn read_table(&mut self, path: &Path) -> Result<(), RetrievalDataError> {
        // BEIR's files have a header; TREC's have none, and an unused second column.
        let mut header: Option<Header> = None;
        for line in lines(path)? {
            let Line { number, text } = line?;
            let place = SourceLine {
                path: path.to_path_buf(),
                line: number,
            };
            let tabs: Vec<&str> = text.split('\t').map(str::trim).collect();
            if number == 1
                && let Some(found) = Header::read(&tabs, &place)?
            {
                header = Some(found);
                continue;
            }
            let parsed = |grade: &str| {
                let parsed = grade.parse::<i32>().ok().filter(|grade| grade.abs() <= 127);
                parsed.ok_or_else(|| place.bad_grade(grade.to_string()))
            };
            let (query, document, grade) = if let Some(header) = &header {
                if tabs.len() != header.columns {
                    return Err(place.columns(tabs.len(), "those of the header"));
                }
                let mut grades = Vec::new();
                for (name, column) in &header.grades {
                    grades.push((*name, parsed(tabs[*column])?));
                }
                let grade = place.one_grade(&grades)?;
                (tabs[header.query], tabs[header.document], grade)
            } else if tabs.len() == 3 {
                (tabs[0], tabs[1], parsed(tabs[2])?)
            } else {
                let words: Vec<&str> = text.split_whitespace().collect();
                match words[..] {
                    [query, _, document, grade] => (query, document, parsed(grade)?),
                    _ => {
                        return Err(
                            place.columns(words.len(), "3 separated by tabs (BEIR) or 4 (TREC)")
                        );
                    }
                }
            };
            self.add(query, document, grade, &place)?;
        }
        Ok(())
    }
}

/// Names of the query's id.
const QUERY_NAMES: &[&str] = &["query-id", "query_id", "qid"];
/// Names of the document's id.
const DOCUMENT_NAMES: &[&str] = &["corpus-id", "corpus_id", "docid", "doc_id", "pid"];
/// Names of the grade.
const GRADE_NAMES: &[&str] = &[
    "score",
    "relevance",
    "label",
    "rel",
    "grade",
    "qrel",
    "relevance_score",
    "relevance-score",
    "relevance_label",
    "judgment",
    "gain",
];
/// Names of columns without effect: TREC's iteration and the row number of pandas.
const UNUSED_NAMES: &[&str] = &["iteration", "iter", "q0", "Q0", "__index_level_0__"];

fn is_numeric(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => text.trim().parse::<f64>().is_ok(),
        _ => false,
    }
}

/// Columns of a table, by its header.
struct Header {
    columns: usize,
    query: usize,
    document: usize,
    /// Name and column of each grade; without one, every row has grade 1.
    grades: Vec<(&'static str, usize)>,
}

impl Header {
    /// Returns the columns if the line is a header.
    fn read(cells: &[&str], place: &SourceLine) -> Result<Option<Self>, RetrievalDataError> {
        let column = |names: &[&str]| cells.iter().position(|cell| names.contains(cell));
        let (Some(query), Some(document)) = (column(QUERY_NAMES), column(DOCUMENT_NAMES)) else {
            return Ok(None);
        };
        let mut grades = Vec::new();
        for (i, cell) in cells.iter().enumerate() {
            if cells[..i].contains(cell) {
                return Err(RetrievalDataError::FieldTwice {
                    path: place.path.clone(),
                    line: place.line,
                    field: cell.to_string(),
                });
            }
            let lower = cell.to_lowercase();
            if let Some(name) = GRADE_NAMES.iter().find(|name| **name == lower) {
                grades.push((*name, i));
            } else if i != query && i != document && !UNUSED_NAMES.contains(cell) {
                return Err(place.unknown_grade(cell));
            }
        }
        Ok(Some(Self {
            columns: cells.len(),
            query,
            document,
            grades,
        }))
    }
}

impl SourceLine {
    fn bad_grade(&self, grade: String) -> RetrievalDataError {
        RetrievalDataError::Grade {
            path: self.path.clone(),
            line: self.line,
            grade,
        }
    }

    fn unknown_grade(&self, name: &str) -> RetrievalDataError {
        RetrievalDataError::UnknownGrade {
            path: self.path.clone(),
            line: self.line,
            name: name.to_string(),
        }
    }

    /// Returns the grade, 1 where there is none.
    fn one_grade(&self, grades: &[(&'static str, i32)]) -> Result<i32, RetrievalDataError> {
        let Some(((first, grade), rest)) = grades.split_first() else {
            return Ok(1);
        };
        match rest.iter().find(|(_, other)| other != grade) {
            None => Ok(*grade),
            Some((second, other)) => Err(RetrievalDataError::TwoGrades {
                path: self.path.clone(),
                line: self.line,
                first,
                first_grade: *grade,
                second,
                second_grade: *other,
            }),
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
