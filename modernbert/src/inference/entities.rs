//! Entities: neighboring tokens whose labels belong together.

use super::Tag;

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

/// Position of a token in its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// First token of an entity of several: `B`.
    Begin,
    /// Token inside an entity: `I` or `M`; the first one where no entity of its kind is open.
    Inside,
    /// Last token of an entity: `E` or `L`.
    End,
    /// The only token of an entity: `S` or `U`.
    Single,
}

/// A label read by its scheme: `None` outside of all entities.
type Read<'l> = Option<(Part, &'l str)>;

/// The scheme of a set of labels.
///
/// `B-` and `I-` always are prefixes. `E-`, `L-`, `M-`, `S-` and `U-` are prefixes where some label has the prefix `B-`, as in the
/// schemes IOBES and BILOU; elsewhere they are part of a name such as `S-BAR`. Labels without a prefix are kinds of their own, of
/// which neighbors make up one entity. Only `O` by itself is outside: `B-O` begins an entity of the kind `O`.
#[derive(Debug)]
pub(super) struct Scheme {
    ends: bool,
}

impl Scheme {
    pub(super) fn of(labels: &[String]) -> Self {
        Self {
            ends: labels.iter().any(|label| label.starts_with("B-")),
        }
    }

    fn read<'l>(&self, label: &'l str) -> Read<'l> {
        if label == "O" {
            return None;
        }
        let prefix = label.split_once('-').filter(|(_, kind)| !kind.is_empty());
        let part = match prefix {
            Some(("B", _)) => Some(Part::Begin),
            Some(("I", _)) => Some(Part::Inside),
            Some(("M", _)) if self.ends => Some(Part::Inside),
            Some(("E" | "L", _)) if self.ends => Some(Part::End),
            Some(("S" | "U", _)) if self.ends => Some(Part::Single),
            _ => None,
        };
        match (part, prefix) {
            (Some(part), Some((_, kind))) => Some((part, kind)),
            _ => Some((Part::Inside, label)),
        }
    }
}

/// The entities that tags form; `labels` are the names of the labels.
pub(super) fn entities(tags: &[Tag], labels: &[String]) -> Vec<Entity> {
    let scheme = Scheme::of(labels);
    let mut entities: Vec<(Entity, usize)> = Vec::new();
    let mut open = false;
    for tag in tags {
        let label = labels.get(tag.label).map_or("O", String::as_str);
        let Some((part, kind)) = scheme.read(label) else {
            open = false;
            continue;
        };
        let goes_on = open && matches!(part, Part::Inside | Part::End);
        match entities.last_mut() {
            Some((entity, count)) if goes_on && entity.label == kind => {
                entity.end = tag.end.max(entity.end);
                entity.score += tag.score;
                *count += 1;
            }
            _ => entities.push((
                Entity {
                    label: kind.to_string(),
                    score: tag.score,
                    start: tag.start,
                    end: tag.end,
                },
                1,
            )),
        }
        open = matches!(part, Part::Begin | Part::Inside);
    }
    let mean = |(mut entity, count): (Entity, usize)| {
        entity.score /= count as f32;
        entity
    };
    entities.into_iter().map(mean).collect()
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
