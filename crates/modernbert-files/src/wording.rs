//! Numbers in messages.

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

#[cfg(test)]
mod tests {
    use super::*;

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
