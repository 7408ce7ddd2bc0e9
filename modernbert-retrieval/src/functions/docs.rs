//! Doc comments to queries.

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// Longest query in bytes; a first paragraph of more is cut at a word.
const QUERY_BYTES: usize = 400;

/// The text of the doc comments among attributes: `///`, `/** */` and `#[doc = "…"]`. Without the text of other macros, such as `include_str!`.
pub(super) fn text(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else {
            continue;
        };
        let Expr::Lit(ExprLit {
            lit: Lit::Str(line),
            ..
        }) = &pair.value
        else {
            continue;
        };
        if pair.path.is_ident("doc") {
            text.push_str(&line.value());
            text.push('\n');
        }
    }
    text
}

/// The first paragraph of a doc comment as a sentence: without headings, code blocks, markup of links and code, and line breaks.
pub fn first_paragraph(text: &str) -> String {
    let mut paragraph = String::new();
    for line in text.lines() {
        // Lines of block comments begin with a star.
        let line = line.trim();
        let line = line.strip_prefix("* ").unwrap_or(line);
        let is_break = line.is_empty() || line == "*" || line.starts_with('#');
        let is_block = line.starts_with("```") || line.starts_with("~~~");
        if is_block || (is_break && !paragraph.is_empty()) {
            break;
        }
        if !is_break {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    let plain = without_links(&paragraph).replace(['`', '*'], "");
    let mut query = String::new();
    for word in plain.split_whitespace() {
        if query.len() + word.len() >= QUERY_BYTES {
            break;
        }
        if !query.is_empty() {
            query.push(' ');
        }
        query.push_str(word);
    }
    query
}

/// Markdown with the text of links and images alone: `[text](place)`, `[text][name]`, `[text]`, `![text](place)`, `<https://…>`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['[', '<']) {
        let (before, link) = rest.split_at(at);
        plain.push_str(before);
        if let Some(place) = link.strip_prefix('<') {
            match place.find('>') {
                Some(end) if place[..end].contains("://") => rest = &place[end + 1..],
                _ => {
                    plain.push('<');
                    rest = place;
                }
            }
            continue;
        }
        let Some(end) = closing(link, '[', ']') else {
            plain.push('[');
            rest = &link[1..];
            continue;
        };
        let (label, after) = (&link[1..end], &link[end + 1..]);
        let target = match after.chars().next() {
            Some('(') => closing(after, '(', ')'),
            Some('[') => closing(after, '[', ']'),
            _ => None,
        };
        // `x[i]` is no link: a label without a target is one only at the beginning of a word.
        let is_index = target.is_none() && before.ends_with(|c: char| c.is_alphanumeric());
        if is_index {
            plain.push_str(&link[..=end]);
        } else {
            if target.is_some() && plain.ends_with('!') {
                plain.pop();
            }
            plain.push_str(&without_links(label));
        }
        rest = &after[target.map_or(0, |end| end + 1)..];
    }
    plain.push_str(rest);
    plain
}

/// Position of the bracket that closes the one `text` begins with.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}
