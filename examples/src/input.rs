//! Texts from the command line, from files, from standard input: one at a time, so that a file may be larger than memory.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use flate2::read::MultiGzDecoder;
use modernbert::inference::Input;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A line longer than this is refused: it would not be a text but a file without line ends.
const LONGEST_LINE: u64 = 256 << 20;

/// Source of the texts.
#[derive(Args, Clone, Debug, Default)]
pub struct InputArgs {
    /// Texts, one per argument.
    pub texts: Vec<String>,
    /// File of texts, `-` for standard input; .gz is unpacked.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub input: Option<String>,
    /// Form of the file; by default jsonl for .jsonl and .jsonl.gz, else txt.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Field of a JSON line that holds the text.
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub text_field: String,
    /// Field of a JSON line that holds the second text of a pair, if it is there.
    #[arg(long, value_name = "FIELD", default_value = "pair")]
    pub pair_field: String,
    /// True if the text field holds a list of strings instead, which the program reads from the record's JSON.
    #[arg(skip)]
    pub lists: bool,
}

/// Form of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One text per line.
    Txt,
    /// One JSON string or object per line; an object's `id` is handed through.
    Jsonl,
}

/// One input with what its output is labelled with.
#[derive(Clone, Debug)]
pub struct Record {
    /// The `id` of a JSON line.
    pub id: Option<Value>,
    /// The whole JSON line, for programs that read more fields; null for plain texts.
    pub json: Value,
    /// Text or pair.
    pub input: Input<'static>,
}

impl Record {
    fn plain(text: String) -> Self {
        Self {
            id: None,
            json: Value::Null,
            input: text.into(),
        }
    }
}

/// Records, one after the other.
pub type Records = Box<dyn Iterator<Item = anyhow::Result<Record>>>;

impl InputArgs {
    /// The records of the chosen source.
    ///
    /// # Errors
    /// No source at all, or a file that can't be opened; errors of single lines come with the records.
    pub fn records(&self) -> anyhow::Result<Records> {
        let Some(name) = self.input.clone() else {
            if self.texts.is_empty() {
                bail!(
                    "no text; pass texts as arguments, or a file with --input FILE (- for standard input)"
                );
            }
            let texts = self.texts.clone().into_iter();
            return Ok(Box::new(texts.map(|text| Ok(Record::plain(text)))));
        };
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let format = self.format.unwrap_or(if plain.ends_with(".jsonl") {
            Format::Jsonl
        } else {
            Format::Txt
        });
        let place = if name == "-" { "standard input" } else { &name }.to_string();
        let reader: Box<dyn BufRead> = if name == "-" {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(Path::new(&name))
                .with_context(|| format!("{name} can't be opened; check --input"))?;
            if name.ends_with(".gz") {
                Box::new(BufReader::new(MultiGzDecoder::new(file)))
            } else {
                Box::new(BufReader::new(file))
            }
        };
        let fields = (self.text_field.clone(), self.pair_field.clone());
        let lists = self.lists;
        let lines = Lines {
            reader: Some(reader),
            place,
            number: 0,
        };
        Ok(Box::new(lines.filter_map(move |line| {
            let (place, text) = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            match format {
                Format::Txt => Some(Ok(Record::plain(text))),
                Format::Jsonl if text.trim().is_empty() => None,
                Format::Jsonl if lists => Some(list_record(&text, &place, &fields.0)),
                Format::Jsonl => Some(json_record(&text, &place, &fields.0, &fields.1)),
            }
        })))
    }
}

/// Lines with their place, `file:number`; ends after the first error.
struct Lines {
    reader: Option<Box<dyn BufRead>>,
    place: String,
    number: usize,
}

impl Iterator for Lines {
    type Item = anyhow::Result<(String, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        let mut bytes = Vec::new();
        let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        self.number += 1;
        let place = format!("{}:{}", self.place, self.number);
        let result = match read {
            Ok(0) => return None,
            Ok(count) if count as u64 == LONGEST_LINE => Err(anyhow::anyhow!(
                "{place}: the line is longer than 256 MiB; put one text on each line"
            )),
            Ok(_) => {
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                String::from_utf8(bytes)
                    .map_err(|_| anyhow::anyhow!("{place}: not UTF-8; convert the file"))
            }
            Err(error) => Err(anyhow::Error::new(error).context(format!("{place}: can't be read"))),
        };
        if result.is_err() {
            self.reader = None;
        }
        Some(result.map(|text| (place, text)))
    }
}

fn list_record(line: &str, place: &str, field: &str) -> anyhow::Result<Record> {
    let json: Value = serde_json::from_str(line).with_context(|| format!("{place}: not JSON"))?;
    let list = json.get(field).and_then(Value::as_array);
    if !list.is_some_and(|list| list.iter().all(Value::is_string)) {
        bail!("{place}: the field {field:?} is not a list of strings");
    }
    Ok(Record {
        id: json.get("id").cloned(),
        input: String::new().into(),
        json,
    })
}

fn json_record(line: &str, place: &str, text: &str, pair: &str) -> anyhow::Result<Record> {
    let json: Value = serde_json::from_str(line).with_context(|| format!("{place}: not JSON"))?;
    if let Value::String(text) = json {
        return Ok(Record::plain(text));
    }
    let field = |name: &str| match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => bail!("{place}: the field {name:?} is not a string"),
    };
    let Some(text_value) = field(text)? else {
        bail!("{place}: no field {text:?}; name the field that holds the text with --text-field");
    };
    let input = match field(pair)? {
        Some(pair) => (text_value, pair).into(),
        None => text_value.into(),
    };
    Ok(Record {
        id: json.get("id").cloned(),
        input,
        json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_a_string_or_an_object() {
        let read = |line: &str| json_record(line, "f:1", "text", "pair");
        assert_eq!(read("\"a\"").unwrap().input, "a".into());
        let record = read(r#"{"text":"a","pair":"b","id":7}"#).unwrap();
        assert_eq!(record.input, ("a", "b").into());
        assert_eq!(record.id, Some(7.into()));
        for (line, said) in [
            ("{", "f:1: not JSON"),
            ("{}", "no field \"text\""),
            (r#"{"text":3}"#, "not a string"),
        ] {
            let message = format!("{:#}", read(line).unwrap_err());
            assert!(message.contains(said), "{message}");
        }
    }
}
