//! Numbers and foreign texts in messages.

use std::borrow::Cow;
use std::fmt::Display;

/// Returns a count with its noun: `1 text`, `2 texts`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == 1.into() { one } else { many };
    format!("{count} {noun}")
}

/// Returns a number for a message: `160000`, `0.02`, `1e300` instead of 301 digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-5..1e16).contains(&size) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

/// Returns a text with its control characters as escapes (`\u001b`), so that a message with names from files, arguments and variables is one line
/// and sends nothing to the terminal. Marks that reverse the direction of text are escaped too.
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.chars().any(is_invisible) {
        true => Cow::Owned(escaped(text, is_invisible)),
        false => Cow::Borrowed(text),
    }
}

/// As [`printable`], of a text that may have several lines and tabs.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let escapes = |c: char| !matches!(c, '\n' | '\t') && is_invisible(c);
    match text.chars().any(escapes) {
        true => Cow::Owned(escaped(text, escapes)),
        false => Cow::Borrowed(text),
    }
}

/// Returns a message of a TOML or JSON reader in one line and without Rust's names of types.
pub fn of_reader(message: &str) -> String {
    let words = [
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected struct RopeParameters", "expected a table"),
        (
            "invalid type: unit variant, expected string only",
            "expected a text",
        ),
        ("invalid type: floating point", "not a whole number:"),
        ("invalid type: sequence", "invalid type: list"),
        ("invalid type: map", "invalid type: table or date"),
    ];
    let message = message.trim_end().replace('\n', ", ");
    words.iter().fold(message, |message, (of_rust, plain)| {
        message.replace(of_rust, plain)
    })
}

/// Control characters, separators of lines, and controls of the direction of text.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if escapes(c) => shown.push_str("\\n"),
            '\r' if escapes(c) => shown.push_str("\\r"),
            '\t' if escapes(c) => shown.push_str("\\t"),
            // As in JSON, so that a line of JSON stays one; all of them have four digits.
            c if escapes(c) => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(printable("/a/b: `café 日本` \\"), "/a/b: `café 日本` \\");
        let odd = "a\nerror: b\u{1b}[31m\u{202e}\u{9b}\u{2028}\r\t";
        let shown = r"a\nerror: b\u001b[31m\u202e\u009b\u2028\r\t";
        assert_eq!(printable(odd), shown);
        assert_eq!(
            printable_lines(odd),
            shown.replace(r"\n", "\n").replace(r"\t", "\t")
        );
    }

    #[test]
    fn messages_of_readers_have_no_names_of_rust() {
        let shown = of_reader("invalid type: string \"3k\", expected u64\n");
        assert_eq!(
            shown,
            "invalid type: string \"3k\", expected a whole number, 0 or more"
        );
        let shown = of_reader("invalid type: floating point `3000.0`, expected u64");
        assert!(shown.starts_with("not a whole number: `3000.0`"), "{shown}");
    }

    #[test]
    fn long_numbers_are_written_with_an_exponent() {
        let shown = [
            0.0,
            2.0,
            -0.5,
            1e15,
            1e300,
            1e-5,
            -1e-300,
            f64::NAN,
            f64::INFINITY,
        ]
        .map(short);
        assert_eq!(
            shown,
            [
                "0",
                "2",
                "-0.5",
                "1000000000000000",
                "1e300",
                "0.00001",
                "-1e-300",
                "NaN",
                "inf"
            ]
        );
    }

    #[test]
    fn a_count_and_its_noun_agree() {
        assert_eq!(counted(1u64, "text", "texts"), "1 text");
        assert_eq!(counted(0usize, "text", "texts"), "0 texts");
        assert_eq!(counted(21u64, "token", "tokens"), "21 tokens");
    }
}
