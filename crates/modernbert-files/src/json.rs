//! JSON without repeated keys.
//!
//! JSON leaves open which of two values of one key counts, and readers differ: a file that has a key twice means one thing here and another
//! elsewhere.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

use crate::wording::of_json_reader;

/// Reads a JSON text.
///
/// # Errors
/// Text that is not JSON or not a `T`, and an object, at any depth, with a key twice.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    check_keys(bytes)?;
    serde_json::from_slice(bytes).map_err(in_plain_words)
}

/// An error about a value of another type without the names of Rust's types, at the same place.
fn in_plain_words(error: serde_json::Error) -> serde_json::Error {
    match error.is_data() {
        true => serde_json::Error::custom(of_json_reader(&error.to_string())),
        false => error,
    }
}

/// Refuses a JSON text with a key twice in an object, at any depth; the error is one of data. Trailing blanks are allowed.
///
/// # Errors
/// Text that is not JSON, and such an object.
pub fn check_keys(bytes: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Unique>(bytes).map(|_| ())
}

/// Any JSON value whose objects have each key once; the values are dropped.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        while list.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            keys.insert(key);
            map.next_value::<Unique>()?;
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::Value;
    use std::collections::HashMap;

    #[test]
    fn refuses_a_key_twice_at_any_depth() {
        for (text, key) in [
            (r#"{"a": 1, "a": 1}"#, "\"a\""),
            (r#"{"x": [{"b": {}, "c": 0, "b": 2}]}"#, "\"b\""),
            (r#"{"é": 1, "\u00e9": 2}"#, "\"é\""),
        ] {
            let message = parse::<Value>(text.as_bytes()).unwrap_err().to_string();
            assert!(
                message.contains(key) && message.contains("twice"),
                "{message}"
            );
            assert!(message.contains("line 1"), "{message}");
        }
    }

    #[test]
    fn another_type_is_named_in_plain_words_with_its_line() {
        for (text, said) in [
            ("{\n\"a\": \"x\"}", "expected a whole number, 0 or more"),
            ("{\"a\":\n-1}", "expected a whole number, 0 or more"),
            ("{\"a\":\n1.5}", "not a whole number"),
            ("{\"a\":\n[]}", "expected a whole number, 0 or more"),
            ("\n[3]", "expected an object"),
        ] {
            let error = parse::<HashMap<String, u64>>(text.as_bytes()).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(said), "{message}");
            assert_eq!(message.matches("line 2").count(), 1, "{message}");
            assert!(
                !message.contains("u64") && !message.contains("map"),
                "{message}"
            );
        }
    }

    #[test]
    fn reads_what_has_each_key_once() {
        let text = r#"{"a": {"b": [null, true, -1, 2, 0.5, "x"]}, "b": {"b": {}}}"#;
        let value: Value = parse(text.as_bytes()).unwrap();
        assert_eq!(value, text.parse::<Value>().unwrap());
        assert!(check_keys(b"{\"a\": 1}   ").is_ok());
        assert!(check_keys(b"{\"a\": 1, \"a\": 1}").unwrap_err().is_data());
        assert!(!check_keys(b"{").unwrap_err().is_data());
        assert!(parse::<Value>(b"{} {}").is_err());
        assert!(parse::<Value>("[".repeat(100_000).as_bytes()).is_err());
    }
}
