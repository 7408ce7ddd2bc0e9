//! Hard negatives: documents that a retriever ranks high for a query and that are not its positives.
//!
//! Candidates are ranked, the query's positives taken out, and of the rest those chosen whose rank is in a range and whose score is far
//! enough below the positive's. Texts that are equal but for white space count as one. Texts of held-out data are never chosen.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use modernbert_train::order::epoch_order;

use crate::train::TrainRows;

/// Choice of negatives among the candidates that qualify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// The best ranked.
    #[default]
    Top,
    /// Any of them, as the seed decides.
    Random,
}

/// Choice of the negatives.
#[derive(Clone, Debug, PartialEq)]
pub struct MineOptions {
    /// Negatives of a row.
    pub negatives: usize,
    /// Ranks that qualify, counted from 0 without the positives.
    pub ranks: Range<usize>,
    /// Least difference of the positive's score and a negative's.
    pub margin: Option<f64>,
    /// Largest score of a negative as a share of the positive's, such as 0.95.
    pub share: Option<f64>,
    /// Largest score of a negative.
    pub most: Option<f64>,
    /// Smallest score of a negative.
    pub least: Option<f64>,
    /// Choice among those that qualify.
    pub sampling: Sampling,
    /// Seed of [`Sampling::Random`].
    pub seed: u64,
}

impl Default for MineOptions {
    /// The best three of the first hundred.
    fn default() -> Self {
        Self {
            negatives: 3,
            ranks: 0..100,
            margin: None,
            share: None,
            most: None,
            least: None,
            sampling: Sampling::Top,
            seed: 0,
        }
    }
}

/// A query with its positive and its negatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinedRow {
    /// Number of the row that it comes from.
    pub row: usize,
    /// Indices of the negatives among the candidates.
    pub negatives: Vec<usize>,
}

/// Negatives of all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mined {
    /// The rows with enough negatives, in order.
    pub rows: Vec<MinedRow>,
    /// Rows that are left out because too few candidates qualify.
    pub left_out: usize,
}

/// The documents that can be negatives.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Their texts.
    pub texts: Vec<String>,
    known: HashMap<String, usize>,
    forbidden: HashSet<String>,
}

/// A text without differences in white space.
fn key(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Candidates {
    /// No candidates; none of these texts will be one.
    pub fn without<'a>(held_out: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            forbidden: held_out.into_iter().map(key).collect(),
            ..Self::default()
        }
    }

    /// Adds a text unless it is empty, held out or there already.
    pub fn add(&mut self, text: &str) {
        let key = key(text);
        if key.is_empty() || self.forbidden.contains(&key) || self.known.contains_key(&key) {
            return;
        }
        self.known.insert(key, self.texts.len());
        self.texts.push(text.to_string());
    }

    /// True for a text that is held out.
    pub fn is_held_out(&self, text: &str) -> bool {
        self.forbidden.contains(&key(text))
    }

    /// The index of a text; `None` where it is no candidate.
    pub fn find(&self, text: &str) -> Option<usize> {
        self.known.get(&key(text)).copied()
    }
}

/// A candidate and its score.
pub type Ranked = (usize, f64);

/// The positives of each query of the rows, by the query's text.
pub fn positives(rows: &TrainRows) -> HashMap<u32, HashSet<String>> {
    let mut all: HashMap<u32, HashSet<String>> = HashMap::new();
    for row in &rows.rows {
        if let Some(&positive) = row.documents.first() {
            let known = all.entry(row.query).or_default();
            known.insert(key(&rows.texts[positive as usize]));
        }
    }
    all
}

/// Chooses negatives for each row from the candidates ranked for its query, best first; `ranked` and `positive_scores` are in the order of
/// the rows.
pub fn mine(
    rows: &TrainRows,
    candidates: &Candidates,
    ranked: &[Vec<Ranked>],
    positive_scores: &[f64],
    options: &MineOptions,
) -> Mined {
    let positives = positives(rows);
    let mut mined = Mined::default();
    for (number, row) in rows.rows.iter().enumerate() {
        let own = &positives[&row.query];
        let query = key(&rows.texts[row.query as usize]);
        let positive = positive_scores[number];
        let qualifies = |score: f64| {
            options
                .margin
                .is_none_or(|margin| score <= positive - margin)
                && options.share.is_none_or(|share| score <= positive * share)
                && options.most.is_none_or(|most| score <= most)
                && options.least.is_none_or(|least| score >= least)
        };
        let other = |&(candidate, _): &Ranked| {
            let text = key(&candidates.texts[candidate]);
            !own.contains(&text) && text != query
        };
        let others = ranked[number].iter().copied().filter(other);
        let in_range = others.skip(options.ranks.start).take(options.ranks.len());
        let found: Vec<usize> = in_range
            .filter(|&(_, score)| qualifies(score))
            .map(|(candidate, _)| candidate)
            .collect();
        if found.len() < options.negatives {
            mined.left_out += 1;
            continue;
        }
        let negatives = match options.sampling {
            Sampling::Top => found[..options.negatives].to_vec(),
            Sampling::Random => {
                let order = epoch_order(found.len() as u32, options.seed, number as u64);
                let chosen = order.into_iter().take(options.negatives);
                chosen.map(|i| found[i as usize]).collect()
            }
        };
        mined.rows.push(MinedRow {
            row: number,
            negatives,
        });
    }
    mined
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows() -> TrainRows {
        TrainRows::of([("q", vec!["a"]), ("q", vec!["b"]), ("r", vec!["c"])])
    }

    fn candidates() -> Candidates {
        let mut candidates = Candidates::without(["held  out"]);
        for text in ["a", "b", "c", "d", "e", "held out", " d ", "", "q", "f"] {
            candidates.add(text);
        }
        candidates
    }

    fn texts(candidates: &Candidates, row: &MinedRow) -> Vec<String> {
        let text = |&i: &usize| candidates.texts[i].clone();
        row.negatives.iter().map(text).collect()
    }

    fn ranking(candidates: &Candidates, order: &[&str]) -> Vec<Ranked> {
        let ranked = order.iter().enumerate();
        ranked
            .map(|(i, text)| (candidates.find(text).unwrap(), 1.0 - 0.1 * i as f64))
            .collect()
    }

    #[test]
    fn candidates_are_distinct_and_none_is_held_out() {
        let candidates = candidates();
        assert_eq!(candidates.texts, ["a", "b", "c", "d", "e", "q", "f"]);
        assert_eq!(candidates.find("held out"), None);
        assert_eq!(candidates.find("d  "), Some(3));
    }

    #[test]
    fn positives_of_the_query_and_the_query_itself_are_no_negatives() {
        let candidates = candidates();
        let order = ["a", "q", "b", "d", "c", "e", "f"];
        let ranked = vec![ranking(&candidates, &order); 3];
        let options = MineOptions {
            negatives: 2,
            ..MineOptions::default()
        };
        let mined = mine(&rows(), &candidates, &ranked, &[1.0; 3], &options);
        assert_eq!(mined.left_out, 0);
        assert_eq!(texts(&candidates, &mined.rows[0]), ["d", "c"]);
        assert_eq!(texts(&candidates, &mined.rows[1]), ["d", "c"]);
        // Another query: "a" and "b" are no positives of "r".
        assert_eq!(texts(&candidates, &mined.rows[2]), ["a", "q"]);
    }

    #[test]
    fn ranks_margins_and_scores_limit_the_choice() {
        let candidates = candidates();
        let ranked = vec![ranking(&candidates, &["c", "d", "e", "f", "a", "b"]); 3];
        let chosen = |change: &dyn Fn(&mut MineOptions)| {
            let mut options = MineOptions {
                negatives: 1,
                ..MineOptions::default()
            };
            change(&mut options);
            let mined = mine(&rows(), &candidates, &ranked, &[1.0; 3], &options);
            let first = mined.rows.iter().find(|row| row.row == 0);
            first.map(|row| texts(&candidates, row)[0].clone())
        };
        assert_eq!(chosen(&|_| {}).unwrap(), "c");
        assert_eq!(chosen(&|o| o.ranks = 1..3).unwrap(), "d");
        assert_eq!(chosen(&|o| o.margin = Some(0.15)).unwrap(), "e");
        assert_eq!(chosen(&|o| o.share = Some(0.75)).unwrap(), "f");
        assert_eq!(chosen(&|o| o.most = Some(0.95)).unwrap(), "d");
        assert_eq!(chosen(&|o| o.least = Some(2.0)), None);
        // Only "c" to "f" are left for the query, so a row of five is left out.
        assert_eq!(chosen(&|o| o.negatives = 5), None);
    }

    #[test]
    fn random_negatives_depend_on_the_seed_alone() {
        let candidates = candidates();
        let ranked = vec![ranking(&candidates, &["c", "d", "e", "f", "a", "b"]); 3];
        let chosen = |seed| {
            let options = MineOptions {
                negatives: 2,
                sampling: Sampling::Random,
                seed,
                ..MineOptions::default()
            };
            mine(&rows(), &candidates, &ranked, &[1.0; 3], &options)
        };
        assert_eq!(chosen(1), chosen(1));
        assert!((2..20).any(|seed| chosen(seed) != chosen(1)));
    }
}
