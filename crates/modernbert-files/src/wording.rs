//! Numbers and foreign texts in messages.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;

/// Returns a count with its noun: `1 text`, `2 texts`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == 1.into() { one } else { many };
    format!("{count} {noun}")
}

/// Returns a size for a message, in bytes, kB, MB or GB: `900 bytes`, `1.5 kB`, `20 MB`.
pub fn size(bytes: u64) -> String {
    // Beyond 999.5 of a unit the number would be written as 1000.
    let (factor, unit) = match bytes {
        0..1_000 => return counted(bytes, "byte", "bytes"),
        1_000..999_500 => (1e3, "kB"),
        999_500..999_500_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    let value = bytes as f64 / factor;
    let digits = if value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$} {unit}")
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

/// Returns a path as [`printable`] text.
pub fn shown(path: impl AsRef<Path>) -> String {
    printable(&path.as_ref().display().to_string()).into_owned()
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
        ("invalid type: sequence", "found a list"),
        ("invalid type: list", "found a list"),
        ("invalid type: map", "found a table or date"),
        ("invalid type: object", "found an object"),
        ("invalid type: string", "found the text"),
        ("invalid type: integer", "found the number"),
        ("invalid type: boolean", "found the value"),
        ("invalid type: null", "found null"),
        ("invalid type: ", "found "),
        ("invalid value: integer", "found the number"),
        ("invalid value: ", "found "),
        ("unknown variant", "unknown value"),
    ];
    let message = message.trim_end().replace('\n', ", ");
    words.iter().fold(message, |message, (of_rust, plain)| {
        message.replace(of_rust, plain)
    })
}

/// Returns a message of a JSON reader without Rust's names of types.
pub fn of_json_reader(message: &str) -> String {
    let words = [
        ("invalid type: map", "invalid type: object"),
        ("expected a map", "expected an object"),
        ("expected internally tagged enum", "expected an object"),
        ("expected a string", "expected a text"),
        ("expected string", "expected a text"),
        ("expected a boolean", "expected true or false"),
        ("expected f32", "expected a number"),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected path string", "expected a path"),
    ];
    let mut message = message.to_owned();
    // `expected struct Manifest with 3 elements`: the name is one of this program's own.
    while let Some(start) = message.find("expected struct ") {
        let rest = &message[start + "expected struct ".len()..];
        let name = rest.find(' ').unwrap_or(rest.len());
        message = format!("{}expected an object{}", &message[..start], &rest[name..]);
    }
    // Rust reads a list as an object whose fields are its entries, if they are as many.
    if let Some(start) = message.find("invalid length ")
        && message[start..].contains(", expected an object with ")
        && let Some(end) = message[start..].find(" elements")
    {
        let rest = &message[start + end + " elements".len()..];
        message = format!(
            "{}invalid type: list, expected an object{rest}",
            &message[..start]
        );
    }
    of_reader(&words.iter().fold(message, |message, (of_rust, plain)| {
        message.replace(of_rust, plain)
    }))
}

/// Control characters, separators of lines, and controls of the direction of text.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a name as it is displayed: without the characters that Unicode lists as ignorable in display (`Default_Ignorable_Code_Point`: of zero
/// width, variation selectors, fillers, tags), and with one space for any white space. The tags of the flags of regions are kept.
pub fn displayed(name: &str) -> String {
    let has_flag = name.contains('\u{1f3f4}');
    let ignorable = |c: char| match c {
        '\u{e0020}'..='\u{e007f}' => !has_flag,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    };
    let shown: String = name.chars().filter(|c| !ignorable(*c)).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
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
        assert_eq!(super::shown(odd), shown);
        assert_eq!(
            printable_lines(odd),
            shown.replace(r"\n", "\n").replace(r"\t", "\t")
        );
    }

    #[test]
    fn names_that_look_the_same_are_displayed_as_one() {
        for odd in [
            "a\u{fe0f} b",
            "a\u{34f} b",
            "\u{3164}a b",
            "a  b",
            "a\u{a0}b ",
            "a b\u{e0041}",
            "a\u{200b} b",
            "a\u{115f} b",
        ] {
            assert_eq!(displayed(odd), "a b", "{odd:?}");
        }
        let flag = |region: char| format!("\u{1f3f4}\u{e0067}\u{e0062}{region}\u{e007f}");
        assert_ne!(displayed(&flag('\u{e0065}')), displayed(&flag('\u{e0073}')));
    }

    #[test]
    fn messages_of_readers_have_no_names_of_rust() {
        let shown = of_reader("invalid type: string \"3k\", expected u64\n");
        assert_eq!(
            shown,
            "found the text \"3k\", expected a whole number, 0 or more"
        );
        let shown = of_reader("invalid type: floating point `3000.0`, expected u64");
        assert!(shown.starts_with("not a whole number: `3000.0`"), "{shown}");
    }

    #[test]
    fn messages_of_json_readers_have_no_names_of_rust() {
        for (message, shown) in [
            (
                "invalid type: string \"3\", expected struct Manifest at line 1 column 5",
                "found the text \"3\", expected an object at line 1 column 5",
            ),
            (
                "invalid length 0, expected struct Row with 18 elements at line 1 column 2",
                "found a list, expected an object at line 1 column 2",
            ),
            (
                "invalid type: sequence, expected a map",
                "found a list, expected an object",
            ),
            (
                "invalid type: map, expected a string",
                "found an object, expected a text",
            ),
            (
                "invalid value: integer `-1`, expected u64",
                "found the number `-1`, expected a whole number, 0 or more",
            ),
        ] {
            assert_eq!(of_json_reader(message), shown);
        }
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
    fn sizes_are_never_zero_of_a_unit() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (65_536, "66 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (9_949_999, "9.9 MB"),
            (9_999_999, "10 MB"),
            (250_000_000, "250 MB"),
            (1_000_000_000, "1.0 GB"),
            (u64::MAX, "18446744074 GB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn a_count_and_its_noun_agree() {
        assert_eq!(counted(1u64, "text", "texts"), "1 text");
        assert_eq!(counted(0usize, "text", "texts"), "0 texts");
        assert_eq!(counted(21u64, "token", "tokens"), "21 tokens");
    }
}
