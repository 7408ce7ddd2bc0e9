//! BM25 with Lucene's formula and English analysis: the lexical baseline of every table.
//!
//! `score(q, d) = Σ idf(t) · tf / (tf + k1 · (1 − b + b · |d| / mean))` over the query's words t, repeated ones repeatedly, with
//! `idf(t) = ln(1 + (N − df + 0.5) / (df + 0.5))`. Lengths are exact, where Lucene rounds them to one byte. Results do not depend on the
//! number of threads.

mod analyzer;
mod porter;

pub use analyzer::Analyzer;
pub use porter::stem;

use std::cmp::Ordering;
use std::collections::HashMap;

use rayon::prelude::*;

use crate::run::{Hit, Run};

/// Parameters of the formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Saturation of repeated words, 0 or more.
    pub k1: f64,
    /// Weight of the document's length, 0 to 1.
    pub b: f64,
}

/// Those of BEIR's baseline (Anserini).
impl Default for Parameters {
    fn default() -> Self {
        Self { k1: 0.9, b: 0.4 }
    }
}

/// Parameters outside their range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("BM25 with k1 {k1} and b {b}; k1 is finite and 0 or more, b between 0 and 1")]
pub struct BadParameters {
    k1: f64,
    b: f64,
}

/// Occurrences of one word in one document.
#[derive(Clone, Copy, Debug)]
struct Posting {
    document: u32,
    count: u32,
}

/// An inverted index in memory: 8 bytes for each different word of a document.
#[derive(Debug)]
pub struct Bm25 {
    analyzer: Analyzer,
    parameters: Parameters,
    ids: Vec<String>,
    lengths: Vec<u32>,
    words: HashMap<String, usize>,
    postings: Vec<Vec<Posting>>,
    total_length: u64,
}

impl Bm25 {
    /// Returns an empty index.
    ///
    /// # Errors
    /// Parameters outside their range.
    pub fn new(analyzer: Analyzer, parameters: Parameters) -> Result<Self, BadParameters> {
        let Parameters { k1, b } = parameters;
        if !(k1.is_finite() && k1 >= 0.0 && (0.0..=1.0).contains(&b)) {
            return Err(BadParameters { k1, b });
        }
        Ok(Self {
            analyzer,
            parameters,
            ids: Vec::new(),
            lengths: Vec::new(),
            words: HashMap::new(),
            postings: Vec::new(),
            total_length: 0,
        })
    }

    /// Adds documents `(id, text)`. The texts are analyzed in parallel and added in their order. Ids must differ from all earlier ones.
    pub fn add(&mut self, documents: &[(String, String)]) {
        let analyzer = &self.analyzer;
        let counted: Vec<(HashMap<String, u32>, u32)> = documents
            .par_iter()
            .map(|(_, text)| {
                let words = analyzer.words(text);
                let length = words.len() as u32;
                let mut counts = HashMap::new();
                for word in words {
                    *counts.entry(word).or_insert(0) += 1;
                }
                (counts, length)
            })
            .collect();
        for ((id, _), (counts, length)) in documents.iter().zip(counted) {
            let document = self.ids.len() as u32;
            self.ids.push(id.clone());
            self.lengths.push(length);
            self.total_length += u64::from(length);
            for (word, count) in counts {
                let next = self.postings.len();
                let slot = *self.words.entry(word).or_insert(next);
                if slot == next {
                    self.postings.push(Vec::new());
                }
                self.postings[slot].push(Posting { document, count });
            }
        }
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// `true` if there is no document.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the best `count` documents that share a word with the query, by score, descending; equal scores by id, descending.
    pub fn search(&self, query: &str, count: usize) -> Vec<Hit> {
        let mut scores = ScoreAccumulators::new(self.len());
        self.search_with(&mut scores, query, count)
    }

    /// Searches all queries `(id, text)` in parallel. Each query has an entry in the run, empty where nothing was found.
    pub fn run<'a>(
        &self,
        queries: impl IntoIterator<Item = (&'a str, &'a str)>,
        count: usize,
    ) -> Run {
        let (ids, texts): (Vec<&str>, Vec<&str>) = queries.into_iter().unzip();
        let found = self.search_all(texts, count);
        let ids = ids.into_iter().map(str::to_string);
        Run {
            name: "bm25".to_string(),
            queries: ids.zip(found).collect(),
        }
    }

    /// As [`Self::search`] for many queries, in parallel and in their order.
    pub fn search_all<'a>(
        &self,
        queries: impl IntoIterator<Item = &'a str>,
        count: usize,
    ) -> Vec<Vec<Hit>> {
        let queries: Vec<&str> = queries.into_iter().collect();
        let searched = queries.par_iter().map_init(
            || ScoreAccumulators::new(self.len()),
            |scores, text| self.search_with(scores, text, count),
        );
        searched.collect()
    }

    /// Returns the score of any text for a query, with the frequencies and lengths of the index: for a text in the index exactly the score
    /// that a search gives it.
    pub fn score(&self, query: &str, text: &str) -> f64 {
        let words = self.analyzer.words(text);
        let length = words.len() as u32;
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for word in &words {
            *counts.entry(word).or_insert(0) += 1;
        }
        let terms = self.analyzer.words(query).into_iter().filter_map(|word| {
            let count = *counts.get(word.as_str())?;
            let slot = self.words.get(&word);
            let frequency = slot.map_or(0, |&slot| self.postings[slot].len());
            Some(self.idf(frequency) * self.saturated(count, length))
        });
        // The order in which a search adds them.
        terms.fold(0.0, |sum, term| sum + term)
    }

    /// Weight of a word that this many documents have.
    fn idf(&self, frequency: usize) -> f64 {
        let frequency = frequency as f64;
        (1.0 + (self.len() as f64 - frequency + 0.5) / (frequency + 0.5)).ln()
    }

    /// Share of a word's weight for its occurrences in a document of `length` words.
    fn saturated(&self, count: u32, length: u32) -> f64 {
        let Parameters { k1, b } = self.parameters;
        let mean = self.total_length as f64 / (self.len() as f64).max(1.0);
        let mean = mean.max(f64::MIN_POSITIVE);
        let (count, length) = (f64::from(count), f64::from(length));
        count / (count + k1 * (1.0 - b + b * length / mean))
    }

    fn search_with(&self, scores: &mut ScoreAccumulators, query: &str, count: usize) -> Vec<Hit> {
        for word in self.analyzer.words(query) {
            let Some(&slot) = self.words.get(&word) else {
                continue;
            };
            let postings = &self.postings[slot];
            let idf = self.idf(postings.len());
            for posting in postings {
                let length = self.lengths[posting.document as usize];
                let score = idf * self.saturated(posting.count, length);
                scores.add(posting.document, score);
            }
        }
        let mut found = scores.take();
        let order = |a: &(u32, f64), b: &(u32, f64)| -> Ordering {
            // In f32, as trec_eval compares them: what is written is what is measured.
            let by_score = (b.1 as f32).total_cmp(&(a.1 as f32));
            by_score.then_with(|| self.ids[b.0 as usize].cmp(&self.ids[a.0 as usize]))
        };
        if count < found.len() && count > 0 {
            found.select_nth_unstable_by(count - 1, order);
        }
        found.truncate(count);
        found.sort_unstable_by(order);
        let hit = |(document, score): (u32, f64)| Hit {
            id: self.ids[document as usize].clone(),
            score,
        };
        found.into_iter().map(hit).collect()
    }
}

/// Sums of scores by document, reused from query to query.
struct ScoreAccumulators {
    sums: Vec<f64>,
    touched: Vec<u32>,
}

impl ScoreAccumulators {
    fn new(documents: usize) -> Self {
        Self {
            sums: vec![0.0; documents],
            touched: Vec::new(),
        }
    }

    fn add(&mut self, document: u32, score: f64) {
        let sum = &mut self.sums[document as usize];
        // Every term is positive, so 0 means not touched.
        if *sum == 0.0 {
            self.touched.push(document);
        }
        *sum += score;
    }

    fn take(&mut self) -> Vec<(u32, f64)> {
        let touched = std::mem::take(&mut self.touched);
        let taken = touched
            .into_iter()
            .map(|document| (document, std::mem::take(&mut self.sums[document as usize])));
        taken.collect()
    }
}
