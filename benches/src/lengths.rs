//! Document lengths that every measurement uses, read from `benches/lengths.json` (written by `benches/peers/lengths.py`).

use anyhow::{Context, bail};
use serde::Deserialize;

/// Documents of known lengths, computed in batches.
#[derive(Clone, Debug)]
pub struct LengthSet {
    /// Name on the command line and in results.
    pub name: String,
    /// `cpu`, `paper`, `pretraining` or `queries`.
    pub group: String,
    /// Documents of a batch.
    pub batch: usize,
    /// Tokens of each document.
    pub lengths: Vec<usize>,
}

#[derive(Deserialize)]
struct File {
    sets: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    group: String,
    batch: usize,
    lengths: Option<Vec<usize>>,
    fixed: Option<Fixed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixed {
    count: usize,
    length: usize,
}

impl LengthSet {
    /// Returns the lengths of each batch, in the order of the file.
    pub fn batches(&self) -> impl Iterator<Item = &[usize]> {
        self.lengths.chunks(self.batch)
    }

    /// Returns the number of tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// Returns all sets of `benches/lengths.json`.
///
/// # Errors
/// If the file does not parse, or a set has no documents.
pub fn all() -> anyhow::Result<Vec<LengthSet>> {
    parse(include_str!("../lengths.json")).context("benches/lengths.json")
}

/// Returns the sets that `names` selects; a name is that of a set or of a group.
///
/// # Errors
/// If a name is neither.
pub fn select(names: &[String]) -> anyhow::Result<Vec<LengthSet>> {
    let all = all()?;
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(
            all.iter()
                .filter(|set| set.name == *name || set.group == *name)
                .cloned(),
        );
        if chosen.len() == before {
            let known: Vec<&str> = all.iter().map(|set| set.name.as_str()).collect();
            bail!(
                "unknown set `{name}`; use one of the groups cpu, latency, paper, pretraining and queries or one of the sets {}",
                known.join(", ")
            );
        }
    }
    Ok(chosen)
}

fn parse(text: &str) -> anyhow::Result<Vec<LengthSet>> {
    let file: File = serde_json::from_str(text)?;
    file.sets
        .into_iter()
        .map(|entry| {
            let lengths = match (entry.lengths, entry.fixed) {
                (Some(lengths), None) => lengths,
                (None, Some(fixed)) => vec![fixed.length; fixed.count],
                _ => bail!(
                    "set `{}` must have either `lengths` or `fixed`",
                    entry.name
                ),
            };
            if entry.batch == 0 || lengths.is_empty() || lengths.contains(&0) {
                bail!(
                    "set `{}` needs a batch of at least one document and documents of at least one token",
                    entry.name
                );
            }
            Ok(LengthSet {
                name: entry.name,
                group: entry.group,
                batch: entry.batch,
                lengths,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_sets_are_those_of_the_protocol() {
        let all = all().unwrap();
        let of = |name: &str| all.iter().find(|set| set.name == name).unwrap();
        for (name, low, high) in [
            ("variable-256", 32, 512),
            ("variable-4096", 32, 8192),
            ("queries", 32, 128),
        ] {
            let set = of(name);
            assert_eq!(set.lengths.len(), 8192);
            assert!(
                set.lengths.iter().all(|l| (low..=high).contains(l)),
                "{name}"
            );
        }
        assert_eq!(of("fixed-8192").tokens(), 67_108_864);
        assert_eq!(of("1x2048").lengths, [2048]);
        assert_eq!(of("ragged").batches().count(), 1);
    }

    #[test]
    fn a_set_that_says_nothing_is_refused() {
        for text in [
            r#"{"sets":[{"name":"a","group":"g","batch":1}]}"#,
            r#"{"sets":[{"name":"a","group":"g","batch":0,"lengths":[1]}]}"#,
            r#"{"sets":[{"name":"a","group":"g","batch":1,"lengths":[0]}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let message = select(&["nothing".to_owned()]).unwrap_err().to_string();
        assert!(message.contains("1x2048"), "{message}");
    }
}
