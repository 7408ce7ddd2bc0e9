//! Rows to train on: the readers of [`modernbert_data::formats`], and texts from the rows of a [`Table`] or a [`SeveralTable`].

pub use modernbert_data::formats::choices::{ChoiceFile, ChoiceRow};
pub use modernbert_data::formats::questions::{AnswerSpan, QuestionFile, QuestionRow};
pub use modernbert_data::formats::table::{
    Columns, LabelSet, LabelledRow, SeveralRow, SeveralTable, Table, TableError,
};
pub use modernbert_data::formats::tagged::{TaggedContent, TaggedFile, TaggedRow, TextSpan};

use super::encode::Text;
use super::sequence::Target;

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

/// The texts of a table with any number of labels a row.
///
/// # Errors
/// A label that is not in the set, with file and line.
pub fn label_texts<'a>(
    table: &'a SeveralTable,
    labels: &LabelSet,
) -> Result<Vec<Text<'a>>, TableError> {
    let ids = table.label_ids(labels)?;
    let rows = table.rows.iter().zip(ids);
    Ok(rows
        .map(|(row, ids)| Text {
            text: &row.text,
            pair: row.pair.as_deref(),
            target: Target::Labels(ids),
        })
        .collect())
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
