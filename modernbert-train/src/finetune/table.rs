//! Texts to train on from the rows of a [`Table`]; the reader is [`modernbert_data::formats::table`].

pub use modernbert_data::formats::table::{Columns, LabelSet, LabelledRow, Table, TableError};

use super::batches::Target;
use super::encode::Text;

/// The texts of a table with class ids.
///
/// # Errors
/// A label that is not in the set, with file and line.
pub fn class_texts<'a>(table: &'a Table, labels: &LabelSet) -> Result<Vec<Text<'a>>, TableError> {
    let ids = table.class_ids(labels)?;
    Ok(texts(table, ids.into_iter().map(Target::Class)))
}

/// The texts of a table with scores.
///
/// # Errors
/// A label that is no finite number, with file and line.
pub fn score_texts(table: &Table) -> Result<Vec<Text<'_>>, TableError> {
    let scores = table.scores()?;
    Ok(texts(table, scores.into_iter().map(Target::Score)))
}

fn texts(table: &Table, targets: impl Iterator<Item = Target>) -> Vec<Text<'_>> {
    let rows = table.rows.iter().zip(targets);
    rows.map(|(row, target)| Text {
        text: &row.text,
        pair: row.pair.as_deref(),
        target,
    })
    .collect()
}
