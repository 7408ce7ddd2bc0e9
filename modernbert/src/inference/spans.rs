//! Positions in a text, counted in characters as Python counts them.

/// Number of the character at each byte of a text.
pub(super) struct Characters<'t> {
    text: &'t str,
    /// Characters before each byte, one entry more than there are bytes.
    before: Vec<u32>,
}

impl<'t> Characters<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut before = Vec::with_capacity(text.len() + 1);
        for (number, character) in text.chars().enumerate() {
            before.extend(std::iter::repeat_n(number as u32, character.len_utf8()));
        }
        before.push(text.chars().count() as u32);
        Self { text, before }
    }

    /// Characters `start..end` and text of the bytes `start..end`, without blanks at both ends: a token includes the space before its
    /// word.
    pub(super) fn trimmed(&self, (start, end): (usize, usize)) -> (usize, usize, &'t str) {
        let end = end.min(self.text.len());
        let piece = self.text.get(start.min(end)..end).unwrap_or_default();
        let start = start + piece.len() - piece.trim_start().len();
        let piece = piece.trim();
        let at = |byte: usize| self.before.get(byte).copied().unwrap_or_default() as usize;
        (at(start), at(start + piece.len()), piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_without_blanks() {
        let text = "né à Paris";
        let characters = Characters::new(text);
        assert_eq!(characters.trimmed((6, 12)), (5, 10, "Paris"));
        assert_eq!(characters.trimmed((0, 3)), (0, 2, "né"));
        assert_eq!(characters.trimmed((3, 7)), (3, 4, "à"));
        assert_eq!(characters.trimmed((0, 0)), (0, 0, ""));
        assert_eq!(characters.trimmed((3, 99)).2, "à Paris");
    }
}
