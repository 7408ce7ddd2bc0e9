//! The classes of a training set.

use modernbert_files::config::MAX_LABELS;
use modernbert_files::tokenizer::compatible;
use modernbert_files::wording::{displayed, is_invisible};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::super::row::is_whole;
use super::{SeveralTable, Table, TableError};

/// The classes of a data set, by class id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    names: Vec<String>,
}

/// Labels named in an error; the rest is counted.
const NAMED: usize = 20;

impl LabelSet {
    /// The labels of a training set: by size if all are whole numbers, else in alphabetical order.
    ///
    /// # Errors
    /// Only one label in all rows; two labels that differ in their spelling only: in case, invisible characters, white space, the codes of one
    /// character, or as numbers (`1`, `1.0` and `1e0`); a label with control characters; more labels than `config.json` can name.
    pub fn of(train: &Table) -> Result<Self, TableError> {
        let rows = train.rows.iter();
        let set = Self::of_labels(&train.path, rows.map(|row| (row.line, row.label.as_str())))?;
        match &set.names[..] {
            [label] => Err(TableError::OneClass {
                path: train.path.clone(),
                label: label.clone(),
            }),
            _ => Ok(set),
        }
    }

    /// The labels of a training set whose rows have any number of them, in the same order.
    ///
    /// # Errors
    /// No label in any row; the same labels in all rows; two labels that differ in their spelling only.
    pub fn of_several(train: &SeveralTable) -> Result<Self, TableError> {
        let of_row = |row: &super::SeveralRow| -> Vec<(u64, String)> {
            let labels = row.labels.iter();
            labels.map(|label| (row.line, label.clone())).collect()
        };
        let labels: Vec<(u64, String)> = train.rows.iter().flat_map(of_row).collect();
        let set = Self::of_labels(&train.path, labels.iter().map(|(l, s)| (*l, s.as_str())))?;
        if set.names.is_empty() {
            return Err(TableError::NoLabels(train.path.clone()));
        }
        let of = |row: &super::SeveralRow| {
            let mut labels = row.labels.clone();
            labels.sort();
            labels
        };
        let mut rows = train.rows.iter().map(of);
        if let Some(first) = rows.next()
            && rows.all(|labels| labels == first)
        {
            return Err(TableError::OneSet {
                path: train.path.clone(),
                is_vector: first.iter().all(|label| label == "0" || label == "1"),
                labels: set.in_words(),
            });
        }
        Ok(set)
    }

    /// The labels of a file, each with its line.
    fn of_labels<'l>(
        path: &Path,
        labels: impl Iterator<Item = (u64, &'l str)>,
    ) -> Result<Self, TableError> {
        // Label and first line by the label's normalized form.
        let mut meanings: BTreeMap<String, (&str, u64)> = BTreeMap::new();
        let mut with_sharp_s: BTreeMap<String, Vec<(&str, u64)>> = BTreeMap::new();
        for (line, label) in labels {
            if label.chars().any(is_invisible) {
                return Err(TableError::Control {
                    path: path.to_path_buf(),
                    line,
                    label: label.to_owned(),
                });
            }
            let meant = meaning(label);
            let is_new = !meanings.contains_key(&meant);
            let (mut other, mut other_line) =
                *meanings.entry(meant.clone()).or_insert((label, line));
            if is_new && (meant.contains('ß') || meant.contains("ss")) {
                let alike = with_sharp_s.entry(meant.replace('ß', "ss")).or_default();
                if let Some(found) = alike.iter().find(|(known, _)| are_sharp_s(known, label)) {
                    (other, other_line) = *found;
                }
                alike.push((label, line));
            }
            if other != label {
                return Err(TableError::Spelling {
                    path: path.to_path_buf(),
                    line,
                    label: label.to_owned(),
                    other: other.to_owned(),
                    other_line,
                });
            }
        }
        let mut names: Vec<String> = meanings
            .into_values()
            .map(|(name, _)| name.to_owned())
            .collect();
        names.sort();
        if names.iter().all(|name| is_whole(name)) {
            names.sort_by(|a, b| by_size(a, b));
        }
        if names.len() > MAX_LABELS {
            return Err(TableError::ManyLabels {
                path: path.to_path_buf(),
                count: names.len(),
            });
        }
        Ok(Self { names })
    }

    /// Labels in the order of their ids.
    pub(in super::super) fn of_names(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Refuses two labels that differ in their spelling only; each label with its line.
    pub(in super::super) fn check_spellings<'l>(
        path: &Path,
        labels: impl Iterator<Item = (u64, &'l str)>,
    ) -> Result<(), TableError> {
        Self::of_labels(path, labels).map(|_| ())
    }

    /// Their names, by class id.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class id of a label.
    pub fn id(&self, label: &str) -> Option<u32> {
        let position = self.names.iter().position(|name| name == label)?;
        u32::try_from(position).ok()
    }

    /// The class id of a label of the file `path`.
    ///
    /// # Errors
    /// A label that is not in the set, with file and line.
    pub fn known_id(&self, path: &Path, line: u64, label: &str) -> Result<u32, TableError> {
        self.id(label).ok_or_else(|| TableError::Label {
            path: path.to_path_buf(),
            line,
            label: label.to_owned(),
            known: self.in_words(),
            hint: self.alike(label).map_or_else(String::new, |known| {
                format!("; the training set spells it {known:?}, write one spelling")
            }),
        })
    }

    /// The label that means the same as `label` in another spelling.
    fn alike(&self, label: &str) -> Option<&str> {
        let meant = meaning(label);
        let unsharp = meant.replace('ß', "ss");
        let found = self.names.iter().find(|name| {
            let of_name = meaning(name);
            of_name == meant || (of_name.replace('ß', "ss") == unsharp && are_sharp_s(name, label))
        });
        found.map(String::as_str)
    }

    fn in_words(&self) -> String {
        let mut words = self.names[..self.names.len().min(NAMED)].join(", ");
        if self.names.len() > NAMED {
            words += &format!(" and {} more", self.names.len() - NAMED);
        }
        words
    }
}

/// Returns true if one of two labels, equal but for `ß` and `ss`, is written in capitals, where `SS` is the form of `ß`. `Masse` and `Maße` are two
/// words.
fn are_sharp_s(a: &str, b: &str) -> bool {
    [a, b].iter().any(|label| label.contains("SS"))
}

/// The normalized form of a label, in which spellings of one label are equal: without case and invisible characters, in Unicode's form NFKC, white
/// space as one space, numbers in one form.
pub(in super::super) fn meaning(label: &str) -> String {
    let label = match label.is_ascii() {
        true => Cow::Borrowed(label),
        false => Cow::Owned(compatible(label)),
    };
    let folded: String = displayed(&label)
        .chars()
        .flat_map(char::to_lowercase)
        // The small sigma at the end of a word.
        .map(|c| if c == 'ς' { 'σ' } else { c })
        .collect();
    number(&folded).unwrap_or(folded)
}

/// Largest exponent of a number that is compared as one.
const MOST_ZEROS: usize = 400;

/// A decimal number in one form: the same for `1`, `+1.0`, `01` and `10e-1`. Digits, not floating point: large numbers stay apart.
fn number(text: &str) -> Option<String> {
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let sign = if text.starts_with('-') { "-" } else { "" };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once('e') {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if digits.is_empty() || !all_digits(digits) {
                return None;
            }
            (mantissa, exponent.parse::<isize>().ok()?)
        }
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !all_digits(&digits) || exponent.unsigned_abs() > MOST_ZEROS {
        return None;
    }
    // Digits before the point.
    let point = whole.len() as isize + exponent;
    let zeros = |count: isize| "0".repeat(usize::try_from(count).unwrap_or(0));
    let padded = format!(
        "{}{digits}{}",
        zeros(-point),
        zeros(point - digits.len() as isize)
    );
    let (whole, fraction) = padded.split_at(usize::try_from(point).unwrap_or(0));
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    Some(match (whole, fraction) {
        ("", "") => "0".into(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    })
}

/// Compares whole numbers of any size.
fn by_size(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |number: &str| {
        let is_negative = number.starts_with('-');
        let digits = number
            .trim_start_matches(['-', '+'])
            .trim_start_matches('0');
        (is_negative, digits.len(), digits.to_owned())
    };
    let ((negative, length, digits), (other_negative, other_length, other)) = (key(a), key(b));
    match (negative, other_negative) {
        (false, false) => (length, digits).cmp(&(other_length, other)),
        (true, true) => (other_length, other).cmp(&(length, digits)),
        (first, second) => second.cmp(&first),
    }
}
