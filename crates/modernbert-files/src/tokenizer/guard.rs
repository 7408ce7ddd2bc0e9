//! Panics of the tokenizers library as errors.
//!
//! The library panics on a file with an empty pattern, a length of zero or a broken template, in some cases only when the first affected
//! text is encoded. So every call into the library is guarded, and a file is tested with a few texts when it is loaded.

use serde_json::Value;

use crate::panics::caught;

/// The reason why the library can't use a file or a text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(String);

impl Reason {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

/// Runs `work`; a panic becomes its message, and nothing is printed.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    caught(work).map_err(|panic| Reason(format!("the tokenizers library fails on it: {panic}")))
}

/// Texts with which a file is tested: empty, blanks, words, digits, marks that compose, control characters, other scripts.
pub(super) const PROBES: [&str; 9] = [
    "",
    " ",
    "a",
    "One two  three,\n\tfour. 12345 it's",
    "e\u{301}\u{323} nai\u{308}ve \u{fb01}n \u{1100}\u{1161}\u{11a8} İ",
    "\u{0}\u{7}\u{200d}\u{feff}\u{fffd}",
    "日本語 русский العربية 🙂👩\u{200d}🔬",
    "[CLS] [SEP] [MASK] <mask> <s> ▁x Ġx ##x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// A text may become at most this many times as long in the normalizer.
const MOST_GROWTH: f64 = 1000.0;

/// Refuses a normalizer whose replacements could make a text longer by more than a factor of 1000.
pub(super) fn check_growth(normalizer: &Value) -> Result<(), Reason> {
    let factor = growth(normalizer);
    if factor <= MOST_GROWTH {
        return Ok(());
    }
    Err(Reason(format!(
        "its normalizer can make a text {factor:.0} times as long, and {MOST_GROWTH} times is the limit"
    )))
}

/// An upper bound on the growth of a long text.
fn growth(normalizer: &Value) -> f64 {
    match normalizer {
        Value::Array(parts) => parts.iter().map(growth).product(),
        Value::Object(fields) => {
            let inner: f64 = fields
                .iter()
                .filter(|(key, _)| *key == "normalizers")
                .map(|(_, value)| growth(value))
                .product();
            let content = fields.get("content").and_then(Value::as_str);
            let pattern = fields.get("pattern");
            let own = match (content, pattern) {
                (Some(content), Some(pattern)) => {
                    let length = |key: &str| pattern.get(key)?.as_str().map(str::len);
                    match length("String") {
                        // At every position between two characters.
                        Some(0) | None => 1.0 + content.len() as f64,
                        Some(pattern) => (content.len() as f64 / pattern as f64).max(1.0),
                    }
                }
                _ => 1.0,
            };
            inner * own
        }
        _ => 1.0,
    }
}
