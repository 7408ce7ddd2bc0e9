//! Entities: neighboring tokens whose labels belong together.

use super::Tag;
use super::scheme::{TagScheme, TagSpan};

/// Neighboring tokens that form one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Kind of the entity: the label of its tokens without its prefix.
    pub label: String,
    /// Mean probability of its tokens' labels.
    pub score: f32,
    /// First character.
    pub start: usize,
    /// Character after the last one.
    pub end: usize,
}

/// The entities that tags form; `labels` are the names of the labels.
pub(super) fn entities(tags: &[Tag], labels: &[String]) -> Vec<Entity> {
    let names = tags
        .iter()
        .map(|tag| labels.get(tag.label).map_or("O", String::as_str));
    let entity = |span: TagSpan<'_>| {
        let tags = &tags[span.first..=span.last];
        let score: f32 = tags.iter().map(|tag| tag.score).sum();
        Entity {
            label: span.kind.to_string(),
            score: score / tags.len() as f32,
            start: tags[0].start,
            end: tags.iter().map(|tag| tag.end).max().unwrap_or_default(),
        }
    };
    let spans = TagScheme::of(labels).spans(names);
    spans.into_iter().map(entity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entities as `kind start..end`, of one tag per label.
    fn found(labels: &[&str], tags: &[&str]) -> Vec<String> {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let tags: Vec<Tag> = tags
            .iter()
            .enumerate()
            .map(|(i, tag)| Tag {
                label: labels.iter().position(|label| label == tag).unwrap_or(99),
                score: 0.5,
                start: 10 * i,
                end: 10 * i + 5,
            })
            .collect();
        entities(&tags, &labels)
            .iter()
            .map(|e| format!("{} {}..{}", e.label, e.start, e.end))
            .collect()
    }

    #[test]
    fn b_begins_and_i_goes_on() {
        let labels = ["O", "B-PER", "I-PER", "I-LOC"];
        let tags = ["B-PER", "I-PER", "B-PER", "I-LOC", "O", "I-PER", "I-PER"];
        assert_eq!(
            found(&labels, &tags),
            ["PER 0..15", "PER 20..25", "LOC 30..35", "PER 50..65"]
        );
    }

    #[test]
    fn ends_and_singles_close() {
        let iobes = ["O", "B-X", "I-X", "E-X", "S-X"];
        let tags = [
            "B-X", "I-X", "E-X", "E-X", "S-X", "S-X", "I-X", "E-X", "I-X",
        ];
        assert_eq!(
            found(&iobes, &tags),
            [
                "X 0..25", "X 30..35", "X 40..45", "X 50..55", "X 60..75", "X 80..85"
            ]
        );
        let bilou = ["O", "B-X", "I-X", "L-X", "U-X"];
        let tags = ["U-X", "B-X", "L-X", "O", "U-X"];
        assert_eq!(found(&bilou, &tags), ["X 0..5", "X 10..25", "X 40..45"]);
    }

    #[test]
    fn the_kind_o_is_a_kind() {
        let labels = ["O", "B-O", "I-O"];
        assert_eq!(
            found(&labels, &["B-O", "I-O", "O", "B-O"]),
            ["O 0..15", "O 30..35"]
        );
    }

    #[test]
    fn names_without_a_prefix_are_kinds() {
        let labels = ["NOUN", "S-BAR", "O"];
        assert_eq!(
            found(&labels, &["NOUN", "NOUN", "S-BAR", "S-BAR", "O"]),
            ["NOUN 0..15", "S-BAR 20..35"]
        );
        assert_eq!(
            found(&["I-A", "B-"], &["B-", "I-A"]),
            ["B- 0..5", "A 10..15"]
        );
    }
}
