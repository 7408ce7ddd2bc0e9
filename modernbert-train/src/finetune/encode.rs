//! Texts to labelled sequences.

use modernbert::parallel::try_map;
use modernbert::tokenizer::{Tokenizer, TokenizerError};

use super::sequence::{Sample, Target};

/// A text or a pair of texts with its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Text<'a> {
    /// The text, or the first of the pair.
    pub text: &'a str,
    /// The second text of a pair.
    pub pair: Option<&'a str>,
    /// The label.
    pub target: Target,
}

/// Sequences, and counts of the unusual ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// One per text, in order.
    pub samples: Vec<Sample>,
    /// Number of texts or pairs that were truncated because they were longer than the limit; of a pair the longer text loses its end first.
    pub truncated: usize,
    /// Number of texts or pairs with a text without a token; they are kept.
    pub empty: usize,
}

/// Tokenizes texts on all cores: `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, at most `max_length` tokens.
///
/// # Errors
/// A limit too small for the special tokens.
pub fn encode(
    tokenizer: &Tokenizer,
    texts: &[Text<'_>],
    max_length: usize,
) -> Result<Encoded, TokenizerError> {
    let one = |text: &Text<'_>| {
        let encoded = tokenizer.encode_truncated(text.text, text.pair, max_length)?;
        let empty = text.text.trim().is_empty() || text.pair.is_some_and(|t| t.trim().is_empty());
        let sample = Sample {
            second: encoded.second,
            ids: encoded.ids,
            target: text.target.clone(),
        };
        Ok((sample, encoded.truncated, empty))
    };
    let rows = try_map::<_, _, TokenizerError>(texts, one)?;
    let mut all = Encoded::default();
    for (sample, truncated, empty) in rows {
        all.samples.push(sample);
        all.truncated += usize::from(truncated);
        all.empty += usize::from(empty);
    }
    Ok(all)
}
