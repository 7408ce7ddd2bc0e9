//! A line of JSON as a row. Numbers keep the spelling of the file, so that large ones stay distinct; a duplicate name is an error.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::reason::Reason;
use super::row::{Cell, RowContent, Wanted, no_field};

/// The row in a line: an object, or a string as a bare text.
///
/// `wanted` picks members by name; the others are checked to be JSON and left out.
pub(super) fn row(line: &str, wanted: Option<&Wanted>) -> Result<RowContent, Reason> {
    let line = line.trim_start_matches('\u{feff}').trim();
    serde_json::from_str::<IgnoredAny>(line).map_err(not_json)?;
    match line.as_bytes().first() {
        Some(b'"') => Ok(RowContent::Bare(string(line)?)),
        Some(b'{') => members(line, wanted),
        _ => Err("not a JSON object; write one object on each line".into()),
    }
}

/// The members of an object that is known to be valid JSON.
fn members(object: &str, wanted: Option<&Wanted>) -> Result<RowContent, Reason> {
    let bytes = object.as_bytes();
    let (mut cells, mut seen, mut others) = (Vec::new(), HashSet::new(), Vec::new());
    let mut at = space(bytes, 1);
    while bytes.get(at).is_some_and(|&byte| byte == b'"') {
        let end = string_end(bytes, at);
        let name = string(&object[at..end])?;
        // After the colon.
        let from = space(bytes, space(bytes, end) + 1);
        let to = value_end(bytes, from);
        let is_wanted = wanted.is_none_or(|wanted| wanted.names.contains(&name));
        if is_wanted {
            if !seen.insert(name.clone()) {
                return Err(format!(
                    "the object has more than one field {name:?}; rename or remove all but one"
                )
                .into());
            }
            cells.push((name, cell(&object[from..to])?));
        } else {
            others.push(name);
        }
        at = space(bytes, to);
        if bytes.get(at) == Some(&b',') {
            at = space(bytes, at + 1);
        }
    }
    let required = wanted.map_or(&[][..], |wanted| &wanted.names[..wanted.required]);
    if let Some(missing) = required.iter().find(|name| !seen.contains(*name)) {
        let names = cells.iter().map(|(name, _)| name).chain(&others);
        return Err(no_field(missing, names.map(String::as_str)).into());
    }
    Ok(RowContent::Cells(cells))
}

fn cell(value: &str) -> Result<Cell, Reason> {
    Ok(match value.as_bytes().first() {
        Some(b'"') => Cell::Text(string(value)?),
        Some(b't') => Cell::Bool(true),
        Some(b'f') => Cell::Bool(false),
        Some(b'n') => Cell::Null,
        Some(b'{' | b'[') => {
            let value: Value = serde_json::from_str(value).map_err(not_json)?;
            Cell::Nested(value)
        }
        _ => Cell::Number(value.to_owned()),
    })
}

fn string(quoted: &str) -> Result<String, Reason> {
    serde_json::from_str(quoted).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> Reason {
    format!("not JSON ({error}); write one object on each line").into()
}

/// The first byte from `at` on that is not white space.
fn space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The byte after the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// The byte after the value that begins at `from`.
fn value_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from) {
        Some(b'"') => string_end(bytes, from),
        Some(b'{' | b'[') => {
            let (mut at, mut depth) = (from, 0usize);
            loop {
                match bytes.get(at) {
                    Some(b'"') => {
                        at = string_end(bytes, at);
                        continue;
                    }
                    Some(b'{' | b'[') => depth += 1,
                    Some(b'}' | b']') => depth -= 1,
                    Some(_) => {}
                    None => return bytes.len(),
                }
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            let length = bytes[from..].iter().position(ends);
            length.map_or(bytes.len(), |length| from + length)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn cells(line: &str) -> Vec<(String, Cell)> {
        match row(line, None).unwrap() {
            RowContent::Cells(cells) => cells,
            RowContent::Bare(text) => panic!("{text}"),
        }
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let line = r#" {"a": 18446744073709551617, "b" :-1.50e2 ,"c":[1,"]}"],"d":{"x":"\"}"} , "e":true,"f":null,"g\u0041":"\\"} "#;
        let found = cells(line);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f", "gA"]);
        assert_eq!(found[0].1, Cell::Number("18446744073709551617".into()));
        assert_eq!(found[1].1, Cell::Number("-1.50e2".into()));
        assert_eq!(found[4].1, Cell::Bool(true));
        assert_eq!(found[5].1, Cell::Null);
        assert_eq!(found[6].1, Cell::Text("\\".into()));
        assert!(matches!(&found[2].1, Cell::Nested(value) if value[1] == "]}"));
        assert!(cells("{}").is_empty() && cells("{ }").is_empty());
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for (line, said) in [
            ("[1]", "not a JSON object"),
            ("3", "not a JSON object"),
            ("{\"a\":1", "not JSON"),
            ("{\"a\":1} {}", "not JSON"),
            ("{\"a\":1,\"a\":2}", "more than one field \"a\""),
            ("{\"a\":1,\"\\u0061\":2}", "more than one field \"a\""),
            ("{\"a\":\"\\ud800\"}", "not JSON"),
            (&"[".repeat(100_000), "not JSON"),
        ] {
            let message = row(line, None).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
        // A name that is not wanted may occur twice.
        let wanted = Wanted::all_of(&["b"]);
        assert!(row("{\"a\":1,\"a\":2,\"b\":3}", Some(&wanted)).is_ok());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"\\\\{}\\[\\],: \u{e9}\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_comes_back(map in prop::collection::hash_map("[a-c\"\\\\}]{0,3}", value(), 0..5), pretty: bool) {
            let object = Value::Object(map.into_iter().collect());
            let line = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let found = cells(&line.unwrap());
            let object_again: Value = Value::Object(found.into_iter().map(|(name, cell)| (name, cell.to_json())).collect());
            prop_assert_eq!(object_again, object);
        }

        #[test]
        fn any_text_is_a_row_or_an_error(line in "[{}\\[\\]\",:a1 \\\\]{0,24}") {
            let _ = row(&line, None);
        }
    }
}
