//! Results by system and set, with the paper's.

pub mod paper;

use std::collections::BTreeMap;

use paper::{PAPER_SYSTEMS, PaperSet, paper_set};
use serde::Serialize;

/// Sizes of an evaluated set, from which it follows whether the set is partial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetSize {
    /// Name of the set; parts of one set are `SET/PART`.
    pub name: String,
    /// Documents of the corpus that was read.
    pub documents: usize,
    /// Judged queries.
    pub queries: usize,
    /// Judgments name documents or queries that are absent.
    pub incomplete: bool,
}

impl SetSize {
    /// `true` if the set is smaller than the one the paper measures, or is missing judged documents or queries.
    pub fn is_partial(&self) -> bool {
        let smaller = |set: &PaperSet| {
            set.documents
                .is_some_and(|documents| self.documents < documents)
                || self.queries < set.queries
        };
        self.incomplete || paper_set(&self.name).is_some_and(smaller)
    }
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Title, with a star where the set is partial.
    pub title: String,
    /// Score by system, times 100.
    pub scores: BTreeMap<String, f64>,
    /// The paper's scores for this set.
    pub paper: Option<[Option<f64>; 4]>,
}

/// Arranges nDCG@10 by set and system: one column per set, and one with the mean for sets that consist of parts (CQADupStack,
/// CodeSearchNet).
pub fn columns(sets: &[(SetSize, BTreeMap<String, f64>)]) -> Vec<Column> {
    let star = |partial: bool| if partial { "*" } else { "" };
    let mut columns: Vec<Column> = sets
        .iter()
        .map(|(size, scores)| {
            let known = paper_set(&size.name);
            Column {
                title: format!(
                    "{}{}",
                    known.map_or(size.name.as_str(), |set| set.title),
                    star(size.is_partial())
                ),
                scores: scores
                    .iter()
                    .map(|(system, score)| (system.clone(), 100.0 * score))
                    .collect(),
                paper: known.map(|set| set.scores),
            }
        })
        .collect();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (size, _)) in sets.iter().enumerate() {
        if let Some((group, _)) = size.name.split_once('/') {
            groups.entry(group).or_default().push(i);
        }
    }
    for (group, members) in groups.into_iter().filter(|(_, members)| members.len() > 1) {
        let known = paper_set(group);
        let queries: usize = members.iter().map(|&i| sets[i].0.queries).sum();
        let partial = members.iter().any(|&i| sets[i].0.is_partial())
            || known.is_some_and(|set| members.len() < set.parts || queries < set.queries);
        let mut scores = BTreeMap::new();
        for system in sets[members[0]].1.keys() {
            let of_system: Option<Vec<f64>> = members
                .iter()
                .map(|&i| sets[i].1.get(system).copied())
                .collect();
            if let Some(of_system) = of_system {
                let mean = of_system.iter().sum::<f64>() / of_system.len() as f64;
                scores.insert(system.clone(), 100.0 * mean);
            }
        }
        columns.push(Column {
            title: format!(
                "{}{} (mean)",
                known.map_or(group, |set| set.title),
                star(partial)
            ),
            scores,
            paper: known.map(|set| set.scores),
        });
    }
    columns
}

/// Returns a Markdown table of nDCG@10 times 100, a row per system and one per system of the paper that has a score for a column.
pub fn markdown(columns: &[Column], systems: &[String]) -> String {
    let header = std::iter::once("nDCG@10".to_string())
        .chain(columns.iter().map(|column| column.title.clone()));
    let mut rows = vec![header.collect::<Vec<_>>()];
    let cell = |score: Option<f64>| score.map_or("–".to_string(), |score| format!("{score:.1}"));
    for system in systems {
        let scores = columns
            .iter()
            .map(|column| cell(column.scores.get(system).copied()));
        rows.push(std::iter::once(system.clone()).chain(scores).collect());
    }
    for (i, system) in PAPER_SYSTEMS.iter().enumerate() {
        let scores: Vec<Option<f64>> = columns
            .iter()
            .map(|column| column.paper.and_then(|scores| scores[i]))
            .collect();
        if scores.iter().any(Option::is_some) {
            let cells = scores.into_iter().map(cell);
            rows.push(std::iter::once(system.to_string()).chain(cells).collect());
        }
    }
    let mut text = aligned(&rows);
    if columns.iter().any(|column| column.title.contains('*')) {
        text.push_str("\n\\* partial: fewer documents or queries than the whole set; not comparable with the paper's score\n");
    }
    text
}

/// Returns rows of equal length as a Markdown table whose columns line up, the first row as its header. All columns but the first are
/// aligned to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if column == 0 {
                ("", space.as_str())
            } else {
                (space.as_str(), "")
            };
            text.push_str(&format!("| {before}{cell}{after} "));
        }
        text.push_str("|\n");
        if i == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width - usize::from(column > 0));
                text.push_str(&format!("| {dashes}{} ", if column > 0 { ":" } else { "" }));
            }
            text.push_str("|\n");
        }
    }
    text
}
