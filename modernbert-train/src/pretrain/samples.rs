//! Held-out lines with one token masked, and the model's predictions.

use modernbert::inference::{Candidate, InferenceError, fill_mask};
use modernbert::model::MaskedLm;
use modernbert::tokenizer::Tokenizer;

use crate::corpus::Document;

/// A line, the masked token, and the model's predictions.
#[derive(Clone, Debug)]
pub struct MaskedLine {
    /// The line with the mask token in it.
    pub text: String,
    /// The masked token.
    pub truth: String,
    /// The model's best predictions.
    pub predictions: Vec<Candidate>,
}

/// Masks a word in `count` lines of different documents and returns the model's three best predictions for each.
///
/// Lines of 30 to 90 characters are taken, the word nearest to their middle is masked; comments and lines without a word
/// of at least three letters are skipped. The choice depends on the documents alone.
///
/// # Errors
/// A model or tokenizer that can't be used.
pub fn masked_lines(
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    documents: &[Document],
    count: usize,
) -> Result<Vec<MaskedLine>, InferenceError> {
    let mask = tokenizer
        .token(tokenizer.special().mask)
        .unwrap_or_default();
    let stride = (documents.len() / count.max(1)).max(1);
    let mut found = Vec::new();
    // First one line of every `stride`-th document, then, should documents be few, lines of the others.
    let order = (0..documents.len())
        .step_by(stride)
        .chain((0..documents.len()).filter(|i| i % stride != 0));
    for index in order {
        let lines: Vec<&str> = documents[index].text.lines().collect();
        let from = lines.len() / 3;
        let candidate = lines[from..].iter().find_map(|line| maskable(line));
        if let Some((before, truth, after)) = candidate {
            let text = format!("{before}{mask}{after}");
            let predictions = fill_mask(model, tokenizer, &text, 3)?;
            found.push(MaskedLine {
                text,
                truth: truth.to_string(),
                predictions: predictions.into_iter().next().unwrap_or_default(),
            });
        }
        if found.len() == count {
            break;
        }
    }
    Ok(found)
}

/// Splits a line at the word nearest to its middle.
fn maskable(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.trim();
    if !(30..=90).contains(&line.len())
        || !line.is_ascii()
        || line.starts_with("//")
        || line.starts_with('#')
    {
        return None;
    }
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut start = None;
    for i in 0..=bytes.len() {
        let letter = bytes.get(i).is_some_and(|b| b.is_ascii_alphabetic());
        match (start, letter) {
            (None, true) => start = Some(i),
            (Some(from), false) => {
                if i - from >= 3 && from > 0 {
                    words.push((from, i));
                }
                start = None;
            }
            _ => {}
        }
    }
    let middle = bytes.len() / 2;
    let (from, to) = words
        .into_iter()
        .min_by_key(|&(from, to)| ((from + to) / 2).abs_diff(middle))?;
    Some((&line[..from], &line[from..to], &line[to..]))
}

#[cfg(test)]
mod tests {
    use super::maskable;

    #[test]
    fn the_word_nearest_to_the_middle_is_masked() {
        let line = "    pub fn capacity(&self) -> usize { self.len }";
        assert_eq!(
            maskable(line),
            Some(("pub fn capacity(&", "self", ") -> usize { self.len }"))
        );
        assert_eq!(
            maskable("// a comment that is long enough to be taken"),
            None
        );
        assert_eq!(maskable("short"), None);
    }
}
