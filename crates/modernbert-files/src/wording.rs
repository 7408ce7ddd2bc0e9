//! Numbers in messages.

use std::fmt::Display;

/// Returns a count with its noun: `1 text`, `2 texts`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == 1.into() { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_and_its_noun_agree() {
        assert_eq!(counted(1u64, "text", "texts"), "1 text");
        assert_eq!(counted(0usize, "text", "texts"), "0 texts");
        assert_eq!(counted(21u64, "token", "tokens"), "21 tokens");
    }
}
