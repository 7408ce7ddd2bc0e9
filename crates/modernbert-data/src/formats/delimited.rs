//! CSV and TSV with a header.
//!
//! CSV is read after RFC 4180, strictly: a field that holds a comma, a line end or a double quote is enclosed in double quotes, and
//! a quote in it is doubled. A quote anywhere else, text behind a closing quote and a quote that is never closed are errors, because
//! lenient readers join or cut rows there. TSV has no quoting: a double quote is a letter like any other. Lines end in `\n` or
//! `\r\n`; empty lines are skipped.

use std::sync::Arc;

use modernbert_files::wording::counted;

use super::FormatError;
use super::row::{Cell, RowContent, Wanted, quoted};
use super::text::{Lines, without_end};

/// Format of a delimited file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Csv,
    Tsv,
}

/// The rows of a delimited file.
pub(super) struct Delimited {
    lines: Lines,
    style: Style,
    columns: usize,
    /// Columns that are wanted: position and name.
    wanted: Vec<(usize, Arc<str>)>,
}

impl Delimited {
    /// Reads the header.
    ///
    /// `wanted` picks columns by name; `None` takes all.
    pub(super) fn open(
        lines: Lines,
        style: Style,
        wanted: Option<&Wanted>,
    ) -> Result<Self, FormatError> {
        let mut this = Self {
            lines,
            style,
            columns: 0,
            wanted: Vec::new(),
        };
        let header = match this.fields() {
            Some(header) => header?.1,
            None => Vec::new(),
        };
        this.columns = header.len();
        let positions = |column: &str| {
            let all = header.iter().enumerate();
            all.filter(|(_, name)| *name == column)
                .map(|(position, _)| position)
                .collect::<Vec<usize>>()
        };
        let path = this.lines.path().to_path_buf();
        let twice = |column: &str| FormatError::DuplicateColumn {
            path: path.clone(),
            column: column.into(),
        };
        let Some(wanted) = wanted else {
            for (position, name) in header.iter().enumerate() {
                // Columns without a name, such as a row number, are ignored and may be several.
                if name.is_empty() {
                    continue;
                }
                if positions(name).len() > 1 {
                    return Err(twice(name));
                }
                this.wanted.push((position, name.as_str().into()));
            }
            return Ok(this);
        };
        for (i, column) in wanted.names.iter().enumerate() {
            match positions(column)[..] {
                [position] => this.wanted.push((position, column.as_str().into())),
                [] if i >= wanted.required => {}
                [] => {
                    return Err(FormatError::NoColumn {
                        path,
                        column: column.clone(),
                        columns: quoted(header.iter().map(String::as_str)),
                        hint: hint(&header, style),
                    });
                }
                _ => return Err(twice(column)),
            }
        }
        Ok(this)
    }

    /// The next row with its line.
    pub(super) fn next(&mut self) -> Option<Result<(u64, RowContent), FormatError>> {
        let (line, fields) = match self.fields()? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        if fields.len() != self.columns {
            let (found, expected) = (fields.len(), self.columns);
            let remedy = match self.style {
                Style::Csv => "put double quotes around a field with a comma in it",
                Style::Tsv => {
                    "a tab inside a field can't be written in .tsv: replace it with a space, or write .csv or .jsonl"
                }
            };
            let found = counted(found, "column", "columns");
            return Some(Err(FormatError::Row {
                path: self.lines.path().into(),
                line,
                reason: format!("{found} where the header has {expected}; {remedy}"),
            }));
        }
        let mut fields: Vec<Option<String>> = fields.into_iter().map(Some).collect();
        let cells = self.wanted.iter().map(|(position, name)| {
            let field = fields[*position].take().unwrap_or_default();
            (name.to_string(), Cell::Text(field))
        });
        Some(Ok((line, RowContent::Cells(cells.collect()))))
    }

    /// The fields of the next row that is not an empty line, and the line it begins in.
    fn fields(&mut self) -> Option<Result<(u64, Vec<String>), FormatError>> {
        loop {
            let line = match self.lines.next_with_end()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if without_end(&line).is_empty() {
                continue;
            }
            let number = self.lines.number();
            return Some(match self.style {
                Style::Tsv => {
                    let fields = without_end(&line).split('\t');
                    Ok((number, fields.map(str::to_owned).collect()))
                }
                Style::Csv => self.csv(line).map(|fields| (number, fields)),
            });
        }
    }

    /// The fields of a row of CSV that begins with `line`; reads on where a quoted field holds a line end.
    fn csv(&mut self, mut line: String) -> Result<Vec<String>, FormatError> {
        let begin = self.lines.number();
        let (mut fields, mut at, mut length) = (Vec::new(), 0, line.len() as u64);
        loop {
            if line[at..].starts_with('"') {
                let opened = self.lines.number();
                at += 1;
                let mut field = String::new();
                loop {
                    let Some(quote) = line[at..].find('"').map(|found| at + found) else {
                        field.push_str(&line[at..]);
                        line = match self.lines.next_with_end() {
                            Some(line) => line?,
                            None => return Err(self.fatal(opened, UNCLOSED)),
                        };
                        length += line.len() as u64;
                        if length > self.lines.limit() {
                            return Err(self.fatal(opened, UNCLOSED));
                        }
                        at = 0;
                        continue;
                    };
                    field.push_str(&line[at..quote]);
                    at = quote + 1;
                    if !line[at..].starts_with('"') {
                        break;
                    }
                    field.push('"');
                    at += 1;
                }
                fields.push(field);
                if line[at..].starts_with(',') {
                    at += 1;
                    continue;
                }
                if without_end(&line[at..]).is_empty() {
                    return Ok(fields);
                }
                let number = self.lines.number();
                return Err(self.fatal(number, BEHIND_QUOTE));
            }
            let rest = &line[at..];
            let comma = rest.find(',');
            let field = comma.map_or(without_end(rest), |comma| &rest[..comma]);
            if field.contains('"') {
                return Err(self.fatal(begin.max(self.lines.number()), STRAY_QUOTE));
            }
            if field.contains('\r') {
                return Err(self.fatal(begin.max(self.lines.number()), CARRIAGE_RETURN));
            }
            fields.push(field.to_owned());
            match comma {
                Some(comma) => at += comma + 1,
                None => return Ok(fields),
            }
        }
    }

    /// An error after which no row can be found.
    fn fatal(&mut self, line: u64, reason: &str) -> FormatError {
        self.lines.end();
        FormatError::Syntax {
            path: self.lines.path().into(),
            line,
            reason: reason.into(),
        }
    }
}

const UNCLOSED: &str = "the double quote that opens a field in this line is never closed; close it, or double it and enclose the field in \
                        double quotes if it is part of the text";
const BEHIND_QUOTE: &str = "text follows the double quote that closes a field; double the quotes that are part of the text (\"\")";
const STRAY_QUOTE: &str = "a double quote inside a field that does not begin with one; enclose the field in double quotes and double those in it";
const CARRIAGE_RETURN: &str = "a carriage return without a line feed; convert the line ends, or enclose the field in double quotes";

/// Probable reason why no column has the wanted name.
fn hint(header: &[String], style: Style) -> &'static str {
    match header {
        [] => "; the file is empty",
        [only] if only.contains(';') => "; the file is separated by semicolons, convert it",
        [only] if style == Style::Csv && only.contains('\t') => {
            "; the file is separated by tabs, name it .tsv"
        }
        [only] if style == Style::Tsv && only.contains(',') => {
            "; the file is separated by commas, name it .csv"
        }
        _ => "",
    }
}
