//! Notes about the data of a task, for a person.

use super::{Split, TaskData};

/// Number of malformed lines that are named; the others are counted.
const NAMED: usize = 12;

/// Sets with fewer rows than the official ones, sets that are missing, rows that were left out, empty sentences.
pub fn notes(data: &TaskData) -> Vec<String> {
    let mut notes = Vec::new();
    for split in std::iter::once(&data.train).chain(&data.dev) {
        notes.extend(rows(split));
    }
    for path in &data.missing {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        notes.push(format!("{name} is not there"));
    }
    for split in std::iter::once(&data.train).chain(&data.dev) {
        notes.extend(skipped(split));
        if split.empty_sentences > 0 {
            notes.push(format!(
                "{}: {} examples with an empty sentence, kept",
                split.name, split.empty_sentences
            ));
        }
    }
    notes
}

fn rows(split: &Split) -> Option<String> {
    let (found, official) = (split.examples.len(), split.official_rows);
    if split.partial {
        Some(format!(
            "{} is partial: {found} of {official} rows",
            split.name
        ))
    } else if found > official {
        Some(format!(
            "{} is not the official set: {found} rows instead of {official}",
            split.name
        ))
    } else {
        None
    }
}

fn skipped(split: &Split) -> Option<String> {
    if split.skipped.is_empty() {
        return None;
    }
    let lines: Vec<String> = split
        .skipped
        .iter()
        .take(NAMED)
        .map(|row| row.line.to_string())
        .collect();
    let more = split.skipped.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Some(format!(
        "{}: {} malformed lines left out: {}{more}",
        split.name,
        split.skipped.len(),
        lines.join(", ")
    ))
}
