//! The input of a model: a text or a pair of texts.

use std::borrow::Cow;

/// A text, or a pair of texts that are read together as `[CLS] first [SEP] second [SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// The second text of a pair.
    pub pair: Option<Cow<'a, str>>,
}

impl<'a> Input<'a> {
    /// Inputs of texts, pairs or inputs.
    pub(super) fn of_all<T>(texts: &'a [T]) -> Vec<Self>
    where
        &'a T: Into<Input<'a>>,
    {
        texts.iter().map(Into::into).collect()
    }
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

impl<'a, 's: 'a> From<&'a &'s str> for Input<'a> {
    fn from(text: &'a &'s str) -> Self {
        Self::from(*text)
    }
}

impl<'a> From<&'a String> for Input<'a> {
    fn from(text: &'a String) -> Self {
        Self::from(text.as_str())
    }
}

impl<'a, 's: 'a> From<&'a Cow<'s, str>> for Input<'a> {
    fn from(text: &'a Cow<'s, str>) -> Self {
        Self::from(text.as_ref())
    }
}

/// A pair of texts of any kind.
impl<'a, A: AsRef<str>, B: AsRef<str>> From<&'a (A, B)> for Input<'a> {
    fn from((text, pair): &'a (A, B)) -> Self {
        Self::from((text.as_ref(), pair.as_ref()))
    }
}

impl<'a, 's: 'a> From<&'a Input<'s>> for Input<'a> {
    fn from(input: &'a Input<'s>) -> Self {
        Self {
            text: Cow::Borrowed(&input.text),
            pair: input.pair.as_deref().map(Cow::Borrowed),
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
