//! A reader of the YAML that training configurations are written in: block mappings, lists of scalars, `{}` and `[]`, comments, quotes,
//! and references to other keys as `${key}`.
//!
//! The rest of YAML (anchors, tags, block scalars, several documents, mappings in lists, tabs) is refused with its line: a misread
//! setting is worse than a refused one.

use std::collections::BTreeMap;

/// Reason why a text is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct YamlError {
    /// File and line.
    pub place: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// A value: the text of a scalar without its quotes, nothing, or a list of scalars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// `null`, `~`, `{}` or nothing at all.
    Null,
    /// A scalar.
    Text(String),
    /// A list of scalars.
    List(Vec<String>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => write!(f, "[{}]", items.join(", ")),
        }
    }
}

/// A key without keys below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The keys from the outermost to this one, dotted.
    pub(super) key: String,
    /// Number of its line, from 1.
    pub(super) line: usize,
    /// Its value, with every reference replaced.
    pub(super) value: Value,
}

/// References followed from one value before they are treated as a cycle.
const DEPTH: usize = 16;

/// The leaves of a document, in its order.
///
/// # Errors
/// YAML beyond the subset, a key twice, a reference to no key or in a circle.
pub(super) fn read(text: &str, name: &str) -> Result<Vec<Leaf>, YamlError> {
    let leaves = Reader { name }.leaves(text)?;
    let known: BTreeMap<String, Value> = leaves
        .iter()
        .map(|leaf| (leaf.key.clone(), leaf.value.clone()))
        .collect();
    let resolve = |leaf: Leaf| {
        let failed = |reason| YamlError {
            place: format!("{name}:{}", leaf.line),
            reason,
        };
        let value = resolve(&leaf.value, &known, DEPTH).map_err(failed)?;
        Ok(Leaf { value, ..leaf })
    };
    leaves.into_iter().map(resolve).collect()
}

/// The value with every `${key}` replaced.
fn resolve(value: &Value, known: &BTreeMap<String, Value>, depth: usize) -> Result<Value, String> {
    let one = |text: &str| -> Result<Value, String> {
        let Some(start) = text.find("${") else {
            return Ok(Value::Text(text.to_string()));
        };
        if depth == 0 {
            return Err(format!(
                "{text} refers to itself; give one of its keys a value"
            ));
        }
        let Some(length) = text[start..].find('}') else {
            return Err(format!("{text} has no closing brace; write ${{key}}"));
        };
        let key = &text[start + 2..start + length];
        let Some(found) = known.get(key) else {
            return Err(format!("there is no key {key} for {text}; give it a value"));
        };
        let found = resolve(found, known, depth - 1)?;
        if start == 0 && length + 1 == text.len() {
            return Ok(found);
        }
        let Value::Text(inner) = found else {
            return Err(format!("{key} is {found}, which can't be a part of {text}"));
        };
        let joined = format!("{}{inner}{}", &text[..start], &text[start + length + 1..]);
        resolve(&Value::Text(joined), known, depth - 1)
    };
    match value {
        Value::Null => Ok(Value::Null),
        Value::Text(text) => one(text),
        Value::List(items) => {
            let each = items.iter().map(|item| match one(item)? {
                Value::Text(text) => Ok(text),
                other => Err(format!(
                    "{item} is {other}, which can't be an item of a list"
                )),
            });
            Ok(Value::List(each.collect::<Result<_, String>>()?))
        }
    }
}

struct Reader<'a> {
    name: &'a str,
}

/// A key whose value is below it.
struct Open {
    indent: usize,
    key: String,
    line: usize,
    /// True if something was below it.
    filled: bool,
}

/// The name of the key `last` below the open keys, or of the innermost open key.
fn dotted(open: &[Open], last: Option<&str>) -> String {
    let keys = open.iter().map(|one| one.key.as_str()).chain(last);
    keys.collect::<Vec<_>>().join(".")
}

impl Reader<'_> {
    fn error<T>(&self, line: usize, reason: impl Into<String>) -> Result<T, YamlError> {
        Err(YamlError {
            place: format!("{}:{line}", self.name),
            reason: reason.into(),
        })
    }

    fn leaves(&self, text: &str) -> Result<Vec<Leaf>, YamlError> {
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        for (i, raw) in text.lines().enumerate() {
            let line = i + 1;
            let content = self.without_comment(raw, line)?;
            let trimmed = content.trim_end();
            if trimmed.trim().is_empty() || (line == 1 && trimmed == "---") {
                continue;
            }
            let indent = trimmed.len() - trimmed.trim_start_matches(' ').len();
            let body = &trimmed[indent..];
            if body.starts_with('\t') {
                return self.error(line, "a tab indents this line; YAML wants spaces");
            }
            if body == "---" || body == "..." {
                return self.error(line, "a second document begins; give one document a file");
            }
            if let Some(item) = body.strip_prefix("- ").or((body == "-").then_some("")) {
                self.item(item, indent, line, &mut open, &mut leaves)?;
                continue;
            }
            while open.last().is_some_and(|last| last.indent >= indent) {
                self.close(open.pop(), &open, &mut leaves);
            }
            let (key, value) = self.key(body, line)?;
            if open.is_empty() && indent > 0 {
                return self.error(line, "this line is indented and belongs to no key");
            }
            if let Some(parent) = open.last_mut() {
                parent.filled = true;
            }
            let dotted = dotted(&open, Some(key));
            if leaves.iter().any(|leaf| leaf.key == dotted) {
                return self.error(
                    line,
                    format!("{dotted} is given twice; remove one of the two"),
                );
            }
            match value {
                "" => open.push(Open {
                    indent,
                    key: key.to_string(),
                    line,
                    filled: false,
                }),
                value => {
                    let value = self.value(value, line)?;
                    leaves.push(Leaf {
                        key: dotted,
                        line,
                        value,
                    });
                }
            }
        }
        while let Some(last) = open.pop() {
            self.close(Some(last), &open, &mut leaves);
        }
        Ok(leaves)
    }

    /// A key under which nothing was is null.
    fn close(&self, closed: Option<Open>, open: &[Open], leaves: &mut Vec<Leaf>) {
        let Some(closed) = closed.filter(|closed| !closed.filled) else {
            return;
        };
        leaves.push(Leaf {
            key: dotted(open, Some(&closed.key)),
            line: closed.line,
            value: Value::Null,
        });
    }

    /// An item of a list: that of the innermost key which is indented no deeper.
    fn item(
        &self,
        item: &str,
        indent: usize,
        line: usize,
        open: &mut Vec<Open>,
        leaves: &mut Vec<Leaf>,
    ) -> Result<(), YamlError> {
        while open.last().is_some_and(|last| last.indent > indent) {
            self.close(open.pop(), open, leaves);
        }
        let dotted = dotted(open, None);
        let Some(parent) = open.last_mut() else {
            return self.error(line, "this item belongs to no key");
        };
        let Value::Text(text) = self.value(item.trim(), line)? else {
            return self.error(line, "a list in a list is not read; write scalars");
        };
        if text.ends_with(':') || text.contains(": ") && !item.trim().starts_with(['"', '\'']) {
            return self.error(line, "a mapping in a list is not read; write scalars");
        }
        let new = !parent.filled;
        parent.filled = true;
        let parent_line = parent.line;
        match leaves.last_mut() {
            Some(Leaf {
                key,
                value: Value::List(items),
                ..
            }) if *key == dotted && !new => items.push(text),
            _ if new => leaves.push(Leaf {
                key: dotted,
                line: parent_line,
                value: Value::List(vec![text]),
            }),
            _ => return self.error(line, "this item stands among keys"),
        }
        Ok(())
    }

    /// The line up to a `#` that begins a comment.
    fn without_comment<'b>(&self, text: &'b str, line: usize) -> Result<&'b str, YamlError> {
        let mut quote = None;
        let mut before = ' ';
        for (at, c) in text.char_indices() {
            match (quote, c) {
                (None, '#') if before.is_whitespace() => return Ok(&text[..at]),
                (None, '"' | '\'') if before.is_whitespace() || matches!(before, '[' | ',') => {
                    quote = Some(c);
                }
                (Some(open), c) if c == open => quote = None,
                _ => {}
            }
            before = c;
        }
        match quote {
            None => Ok(text),
            Some(_) => self.error(line, "a quote is not closed on its line"),
        }
    }

    /// Key and value of a line.
    fn key<'b>(&self, body: &'b str, line: usize) -> Result<(&'b str, &'b str), YamlError> {
        let split = body
            .split_once(": ")
            .or_else(|| Some((body.strip_suffix(':')?, "")));
        let Some((key, value)) = split else {
            return self.error(line, format!("{} is no `key: value`", shortened(body)));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        if key.is_empty() || !key.chars().all(plain) {
            return self.error(
                line,
                format!("{key} is no plain key; use letters, digits, _, - and /"),
            );
        }
        Ok((key, value.trim()))
    }

    fn value(&self, text: &str, line: usize) -> Result<Value, YamlError> {
        let quoted = |text: &str| {
            let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            Some((quote, text[1..].strip_suffix(quote)?.to_string()))
        };
        if let Some((quote, inner)) = quoted(text) {
            if inner.contains(quote) || (quote == '"' && inner.contains('\\')) {
                return self.error(
                    line,
                    "escapes in quotes are not read; write the text without them",
                );
            }
            return Ok(Value::Text(inner));
        }
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let items = inner
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items = items.map(|item| match self.value(item, line)? {
                Value::Text(text) => Ok(text),
                _ => self.error(line, "only scalars are read in a list"),
            });
            return Ok(Value::List(items.collect::<Result<_, YamlError>>()?));
        }
        match text {
            "{}" | "null" | "~" | "Null" | "NULL" | "" => Ok(Value::Null),
            _ if text.starts_with([
                '&', '*', '!', '|', '>', '{', '[', '%', '@', '`', '"', '\'', '?',
            ]) =>
            {
                self.error(
                    line,
                    format!(
                        "{} is YAML that is not read here; write a scalar or a list of scalars",
                        shortened(text)
                    ),
                )
            }
            _ => Ok(Value::Text(text.to_string())),
        }
    }
}

/// The beginning of a text for a message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn leaves(text: &str) -> Vec<(String, usize, Value)> {
        let leaves = read(text, "x.yaml").unwrap();
        leaves
            .into_iter()
            .map(|leaf| (leaf.key, leaf.line, leaf.value))
            .collect()
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_string())
    }

    #[test]
    fn mappings_lists_comments_and_references_are_read() {
        let found = leaves(
            "length: 1024 # tokens\nempty: # nothing\n\nmodel:\n  sizes:\n    wide: 768\n  name: \"a # b\"\nloader:\n  \
             length: ${length}\n  betas:\n  - 0.9\n  - ${model.sizes.wide}\n  flags: [a, 'b c']\ncalls:\n  one: {}\n  two:\n    \
             every: 10\npath: runs/${model.name}/x\nlast:\n",
        );
        let expected = [
            ("length", 1, text("1024")),
            ("empty", 2, Value::Null),
            ("model.sizes.wide", 6, text("768")),
            ("model.name", 7, text("a # b")),
            ("loader.length", 9, text("1024")),
            (
                "loader.betas",
                10,
                Value::List(vec!["0.9".into(), "768".into()]),
            ),
            (
                "loader.flags",
                13,
                Value::List(vec!["a".into(), "b c".into()]),
            ),
            ("calls.one", 15, Value::Null),
            ("calls.two.every", 17, text("10")),
            ("path", 18, text("runs/a # b/x")),
            ("last", 19, Value::Null),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(key, line, value)| (key.to_string(), line, value))
            .collect();
        let mut found = found;
        found.sort_by_key(|&(_, line, _)| line);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_line() {
        for (text, line, reason) in [
            ("a: 1\n\tb: 2\n", 2, "tab"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: &x 1\n", 1, "not read here"),
            ("a: |\n  text\n", 1, "not read here"),
            ("a: 1\na: 2\n", 2, "a is given twice"),
            ("a:\n  - b: 1\n", 2, "mapping in a list"),
            ("- 1\n", 1, "belongs to no key"),
            ("  a: 1\n", 1, "belongs to no key"),
            ("a 1\n", 1, "no `key: value`"),
            ("a: 'b\n", 1, "quote is not closed"),
            ("a: \"b\\n\"\n", 1, "escapes"),
            ("a: ${b}\n", 1, "no key b"),
            ("a: 1\nb: ${a\n", 2, "no closing brace"),
            ("a: ${b}\nb: ${a}\n", 1, "refers to itself"),
            ("a:\n- 1\n- [2]\n", 3, "a list in a list"),
        ] {
            let error = read(text, "x.yaml").unwrap_err();
            assert_eq!(error.place, format!("x.yaml:{line}"), "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
        }
    }
}
