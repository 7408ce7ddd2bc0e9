//! What goes into a model.

use std::borrow::Cow;

/// A text, or a pair of texts that are read together as `[CLS] first [SEP] second [SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// The second text of a pair.
    pub pair: Option<Cow<'a, str>>,
}

impl Input<'_> {
    /// Bytes of both texts.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.pair.as_ref().map_or(0, |pair| pair.len())
    }
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text: text.into(),
            pair: None,
        }
    }
}

impl From<String> for Input<'_> {
    fn from(text: String) -> Self {
        Self {
            text: text.into(),
            pair: None,
        }
    }
}

impl<'a> From<(&'a str, &'a str)> for Input<'a> {
    fn from((text, pair): (&'a str, &'a str)) -> Self {
        Self {
            text: text.into(),
            pair: Some(pair.into()),
        }
    }
}

impl From<(String, String)> for Input<'_> {
    fn from((text, pair): (String, String)) -> Self {
        Self {
            text: text.into(),
            pair: Some(pair.into()),
        }
    }
}
