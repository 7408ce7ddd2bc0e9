//! Text to index terms.

use unicode_segmentation::UnicodeSegmentation;

use super::stem;

/// Lucene's English stop words.
const STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// Longest word in characters; a longer one is split, as by Lucene's tokenizer.
const LONGEST: usize = 255;

/// Rules that turn a text into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Analyzer {
    /// Those of Lucene's `EnglishAnalyzer`: words by Unicode's rules, no possessive 's, lower case, no stop words, Porter's stems.
    #[default]
    English,
    /// Words by Unicode's rules in lower case, for texts in other languages.
    Words,
}

impl Analyzer {
    /// Returns the words of a text in their order.
    pub fn words(self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        for word in text.unicode_words() {
            let mut rest = word;
            while !rest.is_empty() {
                let end = rest
                    .char_indices()
                    .nth(LONGEST)
                    .map_or(rest.len(), |(end, _)| end);
                let (piece, after) = rest.split_at(end);
                rest = after;
                words.extend(self.word(piece));
            }
        }
        words
    }

    fn word(self, word: &str) -> Option<String> {
        if self == Self::Words {
            return Some(word.to_lowercase());
        }
        let possessive = [
            "'s",
            "'S",
            "\u{2019}s",
            "\u{2019}S",
            "\u{ff07}s",
            "\u{ff07}S",
        ];
        let stripped = possessive
            .iter()
            .find_map(|ending| word.strip_suffix(ending));
        let lower = stripped.unwrap_or(word).to_lowercase();
        if lower.is_empty() || STOP_WORDS.contains(&lower.as_str()) {
            return None;
        }
        Some(stem(&lower))
    }
}
