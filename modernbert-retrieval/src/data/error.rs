//! Errors of data sets and run files.

use std::path::PathBuf;

use modernbert_files::output::write_remedy;

/// Reason why a data set or a run file could not be read. Each message names the file, the line and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalDataError {
    /// The folder of the data set does not exist.
    #[error("{path}: no such folder; give the folder that contains the data set")]
    NoFolder {
        /// The folder asked for.
        path: PathBuf,
    },
    /// The folder has none of the known layouts.
    #[error(
        "{path}: no retrieval data set; expected corpus.jsonl, queries.jsonl and qrels/ (BEIR), folders corpus, queries and qrels \
         with Parquet or JSONL files (NanoBEIR, Hub), folders LANGUAGE-corpus, LANGUAGE-queries and LANGUAGE-qrels (CoIR), or \
         corpus.jsonl and SPLIT.jsonl (MLDR), JSONL files also as .gz"
    )]
    UnknownLayout {
        /// The folder.
        path: PathBuf,
    },
    /// The data set has no such split.
    #[error("{path}: no judgments for the split '{split}'; {found}")]
    NoSplit {
        /// The folder of the judgments.
        path: PathBuf,
        /// The split asked for.
        split: String,
        /// The splits found, in words.
        found: String,
    },
    /// The folder contains several sets, and none was chosen.
    #[error("{path}: contains several sets; choose one with --subset: {found}")]
    ChooseSubset {
        /// The folder.
        path: PathBuf,
        /// The sets found.
        found: String,
    },
    /// The folder has no such set.
    #[error("{path}: no set '{subset}'; the sets there are: {found}")]
    NoSubset {
        /// The folder.
        path: PathBuf,
        /// The set asked for.
        subset: String,
        /// The sets found.
        found: String,
    },
    /// A row has two ids.
    #[error(
        "{path}:{line}: _id is {first:?} and id is {second:?}, both names of the row's id; remove one of the two fields"
    )]
    TwoIds {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// Value of `_id`.
        first: String,
        /// Value of `id`.
        second: String,
    },
    /// The operating system refused to read a file.
    #[error("{path}: cannot be read ({source}); check that it is a whole, readable file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The operating system refused to write a file.
    #[error(
        "{path}: cannot be written ({source}); {}",
        write_remedy(source, "check the folder, its permissions and the free space"),
        path = path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A line cannot be read, for example because a .gz file is cut short.
    #[error("{path}:{line}: cannot be read ({source}); download the file again")]
    ReadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The system's error.
        source: std::io::Error,
    },
    /// A line is longer than any document.
    #[error("{path}:{line}: longer than {limit} MiB; a JSONL file has one row a line")]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The longest line, in MiB.
        limit: u64,
    },
    /// A line is not UTF-8.
    #[error("{path}:{line}: not UTF-8{hint}; {remedy}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The encoding that the bytes suggest, in words; or nothing.
        hint: String,
        /// The remedy.
        remedy: String,
    },
    /// A line is not a JSON object.
    #[error(
        "{path}:{line}: not a JSON object ({reason}); repair the line or download the file again"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        reason: String,
    },
    /// A Parquet file is malformed.
    #[error("{path}: not a readable Parquet file ({reason}); download it again")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        reason: String,
    },
    /// A field occurs twice in an object.
    #[error("{path}:{line}: the field '{field}' occurs twice; remove one of them")]
    FieldTwice {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
    },
    /// A field that is needed is null.
    #[error("{path}:{line}: the field '{field}' is null; give it a value, or leave the row out")]
    NullField {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The field.
        field: String,
    },
    /// A row lacks a field.
    #[error("{path}:{line}: no field {wanted}; the row has {found}")]
    NoField {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The names accepted.
        wanted: String,
        /// The names found.
        found: String,
    },
    /// A field has the wrong type.
    #[error("{path}:{line}: the field '{field}' is {found} where {expected} is expected")]
    FieldType {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The field.
        field: String,
        /// The type found.
        found: &'static str,
        /// The type expected.
        expected: &'static str,
    },
    /// A row has the wrong number of columns.
    #[error(
        "{path}:{line}: {} where {expected} are expected; repair the row",
        modernbert_files::wording::counted(*found, "column", "columns")
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Columns found.
        found: usize,
        /// Columns expected, in words.
        expected: &'static str,
    },
    /// An id is empty.
    #[error("{path}:{line}: the {what} id is empty; give each {what} an id")]
    EmptyId {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// Document or query.
        what: &'static str,
    },
    /// An id occurs twice.
    #[error(
        "{path}:{line}: the {what} id '{id}' occurs a second time, first at {first_path}:{first_line}; remove or rename one of them"
    )]
    DuplicateId {
        /// The file of the second occurrence.
        path: PathBuf,
        /// The line of the second occurrence, from 1.
        line: usize,
        /// Document or query.
        what: &'static str,
        /// The id.
        id: String,
        /// The file of the first occurrence.
        first_path: PathBuf,
        /// The line of the first occurrence, from 1.
        first_line: usize,
    },
    /// A query has no text.
    #[error(
        "{path}:{line}: the text of query '{id}' is empty; give it a text or remove the query and its judgments"
    )]
    EmptyQuery {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The query.
        id: String,
    },
    /// The corpus has no document.
    #[error("{path}: the corpus has no document; download it again")]
    EmptyCorpus {
        /// The corpus file or folder.
        path: PathBuf,
    },
    /// The split has no judgment.
    #[error("{path}: no judgment; without judgments nothing can be evaluated")]
    NoJudgments {
        /// The file or folder of the judgments.
        path: PathBuf,
    },
    /// A column or a number that may be the grade has no known name.
    #[error(
        "{path}:{line}: '{name}' is no known name of the grade; name it score (also relevance, label, rel, grade, qrel, relevance_score), \
         or leave it out"
    )]
    UnknownGrade {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The name found.
        name: String,
    },
    /// Two columns or fields of one row are grades, and they differ.
    #[error(
        "{path}:{line}: '{first}' is {first_grade} and '{second}' is {second_grade}, and both are names of the grade; leave one of \
         them out"
    )]
    TwoGrades {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The first name.
        first: &'static str,
        /// Its grade.
        first_grade: i32,
        /// The second name.
        second: &'static str,
        /// Its grade.
        second_grade: i32,
    },
    /// Some rows of a file have a grade, others none.
    #[error(
        "{path}:{line}: the row has {has}, unlike the rows before it; give each row a grade (score), or none"
    )]
    SomeGrades {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// What the row has.
        has: &'static str,
    },
    /// One part of a data set is there in two forms.
    #[error("{} and {} are two forms of one file; remove one of them", path.display(), second.display())]
    TwoForms {
        /// The first file.
        path: PathBuf,
        /// The second file.
        second: PathBuf,
    },
    /// A grade is not an integer.
    #[error(
        "{path}:{line}: the grade '{grade}' is not an integer between -127 and 127; repair the row"
    )]
    Grade {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: usize,
        /// The grade found.
        grade: String,
    },
    /// One pair of query and document has two different grades.
    #[error(
        "{path}:{line}: query '{query}' and document '{document}' have the grade {second} here and {first} before; keep one of them"
    )]
    ConflictingGrades {
        /// The file.
        path: PathBuf,
        /// The line or row of the second grade, from 1.
        line: usize,
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The earlier grade.
        first: i32,
        /// The later grade.
        second: i32,
    },
    /// A judgment names a query that the queries lack.
    #[error(
        "{path}:{line}: query '{id}' is judged but is not among the queries; complete the queries, or accept a partial set \
         (--partial), in which the query is left out"
    )]
    MissingQuery {
        /// The file of the judgment.
        path: PathBuf,
        /// The line or row of the judgment, from 1.
        line: usize,
        /// The query.
        id: String,
    },
    /// Judgments name documents that the corpus lacks.
    #[error(
        "{path}:{line}: document '{id}' is judged but is not in the corpus ({count} such documents in all); complete the corpus, or \
         accept a partial set (--partial), in which they count as not found"
    )]
    MissingDocument {
        /// The file of the first such judgment.
        path: PathBuf,
        /// Its line or row, from 1.
        line: usize,
        /// The document.
        id: String,
        /// Number of such documents.
        count: usize,
    },
    /// The score in a run file is not a finite number.
    #[error("{path}:{line}: the score '{score}' is not a finite number; repair the row")]
    Score {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The score found.
        score: String,
    },
    /// A run ranks one document twice for one query.
    #[error(
        "{path}:{line}: document '{document}' occurs a second time for query '{query}'; remove one of the rows, or keep the better \
         score of each (--keep-best)"
    )]
    DuplicateHit {
        /// The file.
        path: PathBuf,
        /// The line of the second occurrence, from 1.
        line: usize,
        /// The query.
        query: String,
        /// The document.
        document: String,
    },
    /// A run file would have no row.
    #[error(
        "{path}: no query has a result, and a run file without rows cannot be evaluated; nothing is written"
    )]
    NoResults {
        /// The run file.
        path: PathBuf,
    },
    /// A run file has no row.
    #[error("{path}: no row; an empty run cannot be evaluated")]
    EmptyRun {
        /// The file.
        path: PathBuf,
    },
    /// An id has white space, which separates the columns of a run file.
    #[error(
        "{path}: the id {id:?} contains white space or is empty; a run file cannot contain it, rename it in the data set"
    )]
    UnwritableId {
        /// The run file.
        path: PathBuf,
        /// The id.
        id: String,
    },
    /// A score that a run file can't contain.
    #[error(
        "{path}: the score of document '{document}' for query '{query}' is {score}; a run file has finite scores alone"
    )]
    UnwritableScore {
        /// The run file.
        path: PathBuf,
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The score.
        score: f64,
    },
}
