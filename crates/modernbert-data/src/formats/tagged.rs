//! Words with a tag each, from CoNLL files and JSONL; texts with labelled spans, from JSONL.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kind::{FileKind, Format};
use super::row::{Cell, Row};
use super::table::{LabelSet, TableError, meaning};
use super::{FormatError, Rows};

/// A labelled sentence or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedRow {
    /// Line in the file, from 1; of a sentence in a CoNLL file that of its first word.
    pub line: u64,
    /// Words or a text.
    pub content: TaggedContent,
}

/// Labelled content of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaggedContent {
    /// Words with a tag each; at least one word, none of them empty.
    Words {
        /// The words.
        words: Vec<String>,
        /// Their tags, such as `B-PER` or `O`.
        tags: Vec<String>,
    },
    /// A text with labelled spans, which don't overlap, in order.
    Text {
        /// The text.
        text: String,
        /// The spans.
        spans: Vec<TextSpan>,
    },
}

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSpan {
    /// First character, counted from 0 in Unicode code points.
    pub start: usize,
    /// Character after the last one.
    pub end: usize,
    /// Kind of the span, such as `PER`.
    pub label: String,
}

/// A file of labelled sentences or texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedFile {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one, all with words or all with texts.
    pub rows: Vec<TaggedRow>,
}

impl TaggedFile {
    /// Reads a file.
    ///
    /// A name that ends in `.jsonl` (or `.ndjson`) holds an object a line: `{"tokens": ["Ada", …], "tags": ["B-PER", …]}`, or `{"text":
    /// "…", "spans": [{"start": 0, "end": 3, "label": "PER"}]}` with positions in characters. Any other name but `.csv` and `.parquet` is
    /// a CoNLL file: columns separated by blanks or tabs, the word first and its tag last, an empty line after each sentence, as many
    /// columns in every line. Lines that begin with `-DOCSTART-` are left out.
    ///
    /// # Errors
    /// A file that can't be read, holds no row, or mixes words and texts; a row that is broken: with file and line.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let kind = FileKind::of(path).map(|kind| kind.format);
        let rows = match kind {
            Some(Format::Jsonl) => jsonl(path)?,
            Some(Format::Csv | Format::Parquet) => {
                return Err(FormatError::Ending { path: path.into() }.into());
            }
            _ => conll(path)?,
        };
        if rows.is_empty() {
            return Err(TableError::Empty(path.to_path_buf()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// Refuses a file to score on without a tag other than `O` and without a span.
    ///
    /// # Errors
    /// Nothing to find, by which F1 would be undefined.
    pub fn check_scored(&self) -> Result<(), TableError> {
        let has_label = |row: &TaggedRow| match &row.content {
            TaggedContent::Words { tags, .. } => tags.iter().any(|tag| tag != "O"),
            TaggedContent::Text { spans, .. } => !spans.is_empty(),
        };
        match self.rows.iter().any(has_label) {
            true => Ok(()),
            false => Err(TableError::NothingToFind(self.path.clone())),
        }
    }

    /// The tags of a training set: `O` first, the others in alphabetical order. Spans of texts have the tags `B-` and `I-` of their label.
    ///
    /// # Errors
    /// No tag besides `O`; `o`, or `0` beside tags of spans.
    pub fn tag_set(&self) -> Result<LabelSet, TableError> {
        let spelled = self.rows.iter().flat_map(|row| {
            let labels: Vec<(u64, &str)> = match &row.content {
                TaggedContent::Words { tags, .. } => {
                    tags.iter().map(|tag| (row.line, tag.as_str())).collect()
                }
                TaggedContent::Text { spans, .. } => {
                    let labels = spans.iter().map(|span| span.label.as_str());
                    labels.map(|label| (row.line, label)).collect()
                }
            };
            labels
        });
        LabelSet::check_spellings(&self.path, spelled)?;
        self.check_outside()?;
        let mut names = std::collections::BTreeSet::new();
        for row in &self.rows {
            match &row.content {
                TaggedContent::Words { tags, .. } => names.extend(tags.iter().cloned()),
                TaggedContent::Text { spans, .. } => {
                    for span in spans {
                        names.insert(format!("B-{}", span.label));
                        names.insert(format!("I-{}", span.label));
                    }
                }
            }
        }
        names.remove("O");
        if names.is_empty() {
            return Err(TableError::NoLabels(self.path.clone()));
        }
        let outside = std::iter::once("O".to_string());
        Ok(LabelSet::of_names(outside.chain(names).collect()))
    }
}

impl TaggedFile {
    /// Refuses other spellings of `O`: each word with one would be a span.
    fn check_outside(&self) -> Result<(), TableError> {
        let tags = |row: &TaggedRow| match &row.content {
            TaggedContent::Words { tags, .. } => tags.clone(),
            TaggedContent::Text { .. } => Vec::new(),
        };
        let begins = |tag: &String| tag.starts_with("B-") || tag.starts_with("I-");
        let of_spans = self.rows.iter().any(|row| tags(row).iter().any(begins));
        for row in &self.rows {
            let is_outside = |tag: &&String| {
                let is_letter = *tag != "O" && meaning(tag) == meaning("O");
                is_letter || (of_spans && *tag == "0")
            };
            if let Some(tag) = tags(row).iter().find(is_outside) {
                return Err(TableError::Outside {
                    path: self.path.clone(),
                    line: row.line,
                    tag: tag.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The sentences of a CoNLL file.
fn conll(path: &Path) -> Result<Vec<TaggedRow>, TableError> {
    let mut rows = Vec::new();
    let mut columns: Option<(u64, usize)> = None;
    let (mut words, mut tags) = (Vec::new(), Vec::new());
    let mut first = 0;
    let mut end = |words: &mut Vec<String>, tags: &mut Vec<String>, line: u64| {
        if !words.is_empty() {
            let content = TaggedContent::Words {
                words: std::mem::take(words),
                tags: std::mem::take(tags),
            };
            rows.push(TaggedRow { line, content });
        }
    };
    for row in Rows::open_as(path, Format::Text)? {
        let row = row?;
        // A word may hold blanks other than these two.
        let fields = row.text("")?.split([' ', '\t']);
        let fields: Vec<&str> = fields.filter(|field| !field.is_empty()).collect();
        let [word, .., tag] = fields[..] else {
            match fields[..] {
                [] => {
                    end(&mut words, &mut tags, first);
                    continue;
                }
                // Files of CoNLL-2003 that were cut to two columns may have this line alone.
                ["-DOCSTART-"] => continue,
                _ => {
                    return Err(row
                        .error("one column where a word and its tag are expected; separate them by a blank or a tab")
                        .into());
                }
            }
        };
        if word == "-DOCSTART-" {
            continue;
        }
        let (line, expected) = *columns.get_or_insert((row.number(), fields.len()));
        if fields.len() != expected {
            return Err(row
                .error(format!(
                    "{} columns, in line {line} there are {expected}; write the same columns in every line",
                    fields.len()
                ))
                .into());
        }
        if words.is_empty() {
            first = row.number();
        }
        words.push(word.to_owned());
        tags.push(tag.to_owned());
    }
    end(&mut words, &mut tags, first);
    Ok(rows)
}

/// The rows of a JSONL file.
fn jsonl(path: &Path) -> Result<Vec<TaggedRow>, TableError> {
    let mut rows: Vec<TaggedRow> = Vec::new();
    for row in Rows::open(path)? {
        let row = row?;
        let content = match (row.cell("tokens"), row.cell("text")) {
            (Some(_), Some(_)) => {
                return Err(row
                    .error("both \"tokens\" and \"text\"; keep the one that the labels belong to")
                    .into());
            }
            (Some(_), None) => words(&row)?,
            (None, Some(_)) => text(&row)?,
            (None, None) => {
                return Err(row
                    .error("neither \"tokens\" nor \"text\"; write {\"tokens\": […], \"tags\": […]} or {\"text\": …, \"spans\": […]}")
                    .into());
            }
        };
        let of_words = |content: &TaggedContent| matches!(content, TaggedContent::Words { .. });
        if let Some(before) = rows.first()
            && of_words(&before.content) != of_words(&content)
        {
            return Err(row
                .error(format!(
                    "words and texts in one file (see line {}); write all rows in one form",
                    before.line
                ))
                .into());
        }
        let line = row.number();
        rows.push(TaggedRow { line, content });
    }
    Ok(rows)
}

fn words(row: &Row) -> Result<TaggedContent, FormatError> {
    let strings = |field: &str| -> Result<Vec<String>, FormatError> {
        let wrong = || {
            row.error(match row.cell(field) {
                None => format!(
                    "no field {field:?}; write {{\"tokens\": […], \"tags\": […]}}, a tag for each token"
                ),
                Some(_) => format!(
                    "the field {field:?} is not a list of strings; write one, a tag by its name"
                ),
            })
        };
        let Some(Cell::Nested(Value::Array(list))) = row.cell(field) else {
            return Err(wrong());
        };
        let string = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
        list.iter().map(string).collect()
    };
    let (words, tags) = (strings("tokens")?, strings("tags")?);
    if words.len() != tags.len() {
        return Err(row.error(format!(
            "the numbers of tokens and of tags differ ({} and {}); give each token one tag",
            words.len(),
            tags.len()
        )));
    }
    if words.is_empty() {
        return Err(row.error("no tokens; leave the row out"));
    }
    for (what, list) in [("token", &words), ("tag", &tags)] {
        if let Some(i) = list.iter().position(|entry| entry.trim().is_empty()) {
            return Err(row.error(format!(
                "{what} {} is empty; remove the token with its tag",
                i + 1
            )));
        }
    }
    Ok(TaggedContent::Words { words, tags })
}

fn text(row: &Row) -> Result<TaggedContent, FormatError> {
    let text = row.text("text")?.to_owned();
    let length = text.chars().count();
    let Some(Cell::Nested(Value::Array(list))) = row.cell("spans") else {
        let found = match row.cell("spans") {
            None => "no field \"spans\"",
            Some(_) => "the field \"spans\" is not a list",
        };
        return Err(row.error(format!(
            "{found}; write [{{\"start\": 0, \"end\": 3, \"label\": \"PER\"}}], or [] for none"
        )));
    };
    let mut spans: Vec<TextSpan> = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let position = |name: &str| {
            let number = value.get(name).and_then(Value::as_u64);
            number.and_then(|number| usize::try_from(number).ok())
        };
        let label = value.get("label").and_then(Value::as_str).map(str::trim);
        let (Some(start), Some(end), Some(label)) = (position("start"), position("end"), label)
        else {
            return Err(row.error(format!(
                "span {} has not \"start\" and \"end\" as whole numbers and \"label\" as a string; write all three",
                i + 1
            )));
        };
        if start >= end || end > length || label.is_empty() {
            return Err(row.error(format!(
                "span {} is {start}..{end} with the label {label:?} in a text of {length} characters; give a label and positions in it, \
                 the end behind the last character",
                i + 1
            )));
        }
        if meaning(label) == meaning("O") {
            return Err(row.error(format!(
                "span {} has the label {label:?}, which is the tag of words outside of every span; leave the span out, or name its kind",
                i + 1
            )));
        }
        if label.starts_with("B-") || label.starts_with("I-") {
            return Err(row.error(format!(
                "span {} has the label {label:?}; write the kind of the span, such as {:?}, since its words get the tags B- and I- of it",
                i + 1,
                &label[2..]
            )));
        }
        let label = label.to_owned();
        spans.push(TextSpan { start, end, label });
    }
    spans.sort_by_key(|span| (span.start, span.end));
    if let Some(pair) = spans.windows(2).find(|pair| pair[1].start < pair[0].end) {
        return Err(row.error(format!(
            "the spans {}..{} and {}..{} overlap; a token has one tag, keep one of them",
            pair[0].start, pair[0].end, pair[1].start, pair[1].end
        )));
    }
    Ok(TaggedContent::Text { text, spans })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(name: &str, content: &str) -> Result<TaggedFile, TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        TaggedFile::read(&path)
    }

    #[test]
    fn conll_columns_and_json_lists_hold_the_same_words() {
        let conll =
            "\u{feff}-DOCSTART- -X- O\n\nAda NNP B-PER\r\nLovelace NNP I-PER\n\n\n a\u{a0}b\tX\tO";
        let json = "{\"tokens\":[\"Ada\",\"Lovelace\"],\"tags\":[\"B-PER\",\"I-PER\"]}\n{\"tokens\":[\"a\u{a0}b\"],\"tags\":[\"O\"]}\n";
        let (conll, json) = (
            read("a.conll", conll).unwrap(),
            read("a.jsonl", json).unwrap(),
        );
        let contents = |file: &TaggedFile| -> Vec<TaggedContent> {
            file.rows.iter().map(|row| row.content.clone()).collect()
        };
        assert_eq!(contents(&conll), contents(&json));
        assert_eq!((conll.rows[0].line, conll.rows[1].line), (3, 7));
        assert_eq!(conll.tag_set().unwrap().names(), ["O", "B-PER", "I-PER"]);
    }

    #[test]
    fn a_file_to_score_on_has_something_to_find() {
        for (name, content, found) in [
            ("a.conll", "the O\ncat B-X\n", true),
            ("a.conll", "the O\ncat O\n", false),
            (
                "a.jsonl",
                "{\"text\":\"Ada\",\"spans\":[{\"start\":0,\"end\":3,\"label\":\"P\"}]}\n",
                true,
            ),
            ("a.jsonl", "{\"text\":\"Ada\",\"spans\":[]}\n", false),
        ] {
            let checked = read(name, content).unwrap().check_scored();
            assert_eq!(checked.is_ok(), found, "{content}");
        }
    }

    #[test]
    fn spellings_of_one_tag_are_refused() {
        for (rows, said) in [
            ("Ada O\nLovelace o\n", "\"o\" differs from \"O\" in line"),
            ("Ada B-PER\nBob B-per\n", "\"B-per\" differs from \"B-PER\""),
            ("Ada B-K\nBob B-\u{212a}\n", "B-\\u{212a}"),
        ] {
            let message = read("a.conll", rows)
                .unwrap()
                .tag_set()
                .unwrap_err()
                .to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn other_spellings_of_the_outside_tag_are_refused() {
        for rows in ["Ada B-PER\nlived o\n", "Ada B-PER\nlived 0\n"] {
            let message = read("a.conll", rows).unwrap().tag_set().unwrap_err();
            assert!(message.to_string().contains("is not \"O\""), "{message}");
        }
        let numbers = read("a.conll", "Ada 1\nlived 0\n").unwrap();
        assert_eq!(numbers.tag_set().unwrap().names(), ["O", "0", "1"]);
        for (label, said) in [("O", "leave the span out"), ("B-PER", "such as \"PER\"")] {
            let row = format!(
                "{{\"text\":\"Ada\",\"spans\":[{{\"start\":0,\"end\":3,\"label\":\"{label}\"}}]}}"
            );
            let message = read("a.jsonl", &row).unwrap_err().to_string();
            assert!(
                message.contains("a.jsonl:1") && message.contains(said),
                "{message}"
            );
        }
        for (row, said) in [
            ("{\"text\":\"Ada\"}", "no field \"spans\""),
            ("{\"tokens\":[\"Ada\"]}", "no field \"tags\""),
        ] {
            let message = read("a.jsonl", row).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn spans_are_sorted_and_make_the_tags_of_their_labels() {
        let file = read(
            "a.jsonl",
            "{\"text\":\"né à Paris\",\"spans\":[{\"start\":5,\"end\":10,\"label\":\"LOC\"},{\"start\":0,\"end\":2,\"label\":\"X\"}]}",
        )
        .unwrap();
        let TaggedContent::Text { spans, .. } = &file.rows[0].content else {
            panic!("not a text");
        };
        assert_eq!((spans[0].start, spans[1].end), (0, 10));
        assert_eq!(
            file.tag_set().unwrap().names(),
            ["O", "B-LOC", "B-X", "I-LOC", "I-X"]
        );
    }

    #[test]
    fn broken_rows_are_named_with_their_line() {
        let span = |start: u64, end: u64| {
            format!(
                "{{\"text\":\"abc\",\"spans\":[{{\"start\":{start},\"end\":{end},\"label\":\"X\"}}]}}"
            )
        };
        for (name, content, said) in [
            ("a.txt", "a O\nb\n".to_string(), "a.txt:2: one column"),
            ("a.conll", "a O\n\nb X O\n".to_string(), ":3: 3 columns, in line 1 there are 2"),
            ("a.conll", "\n\n".to_string(), "holds no rows"),
            ("a.csv", "a,O\n".to_string(), "format of this file"),
            ("a.jsonl", "{\"tokens\":[\"a\"],\"tags\":[]}".to_string(), "tags differ (1 and 0)"),
            ("a.jsonl", "{\"tokens\":[\"a\"],\"tags\":[3]}".to_string(), "by its name"),
            ("a.jsonl", "{\"tokens\":[\"a\",\"\"],\"tags\":[\"O\",\"O\"]}".to_string(), "token 2 is empty"),
            ("a.jsonl", "{\"tokens\":[],\"tags\":[]}".to_string(), "no tokens"),
            ("a.jsonl", "{\"word\":\"a\"}".to_string(), "neither \"tokens\" nor \"text\""),
            ("a.jsonl", span(1, 4), "1..4"),
            ("a.jsonl", span(2, 2), "2..2"),
            ("a.jsonl", format!("{}\n{{\"tokens\":[\"a\"],\"tags\":[\"O\"]}}", span(0, 1)), ":2: words and texts"),
            (
                "a.jsonl",
                "{\"text\":\"abc\",\"spans\":[{\"start\":0,\"end\":2,\"label\":\"X\"},{\"start\":1,\"end\":3,\"label\":\"X\"}]}".to_string(),
                "0..2 and 1..3 overlap",
            ),
        ] {
            let message = read(name, &content).unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
        let all_outside = read("a.conll", "a O\n").unwrap();
        let message = all_outside.tag_set().unwrap_err().to_string();
        assert!(message.contains("no row has a label"), "{message}");
    }
}
