//! Measures of a ranking, equal to pytrec_eval's.
//!
//! | module | contents |
//! |---|---|
//! | `mod.rs` | measures, their names, evaluation of a run |
//! | `trec` | trec_eval's definitions: linear gains, ties by document id, descending |
//! | `binary` | the definitions of sentence-transformers' evaluator: binary gains, ties by document id, ascending |
//! | [`significance`] | paired randomization test of two runs |

mod binary;
pub mod significance;
mod trec;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::data::Judgments;
use crate::run::{Hit, Run};

pub use trec::rank;

/// A measure of one query's ranking, between 0 and 1. `k` is the number of leading documents that count; `None` means all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Normalized discounted cumulative gain: gain equal to the grade, discount log2(rank + 1), relative to the best possible ranking.
    Ndcg(Option<usize>),
    /// Average precision.
    Map(Option<usize>),
    /// 1 / rank of the first relevant document.
    Mrr(Option<usize>),
    /// Share of the relevant documents that are among the first k.
    Recall(usize),
    /// Share of the first k that are relevant.
    Precision(usize),
    /// 1 if a relevant document is among the first k.
    Success(usize),
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, k) = match *self {
            Self::Ndcg(k) => ("ndcg", k),
            Self::Map(k) => ("map", k),
            Self::Mrr(k) => ("mrr", k),
            Self::Recall(k) => ("recall", Some(k)),
            Self::Precision(k) => ("p", Some(k)),
            Self::Success(k) => ("success", Some(k)),
        };
        match k {
            Some(k) => write!(f, "{name}@{k}"),
            None => f.write_str(name),
        }
    }
}

/// A measure's name that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown measure '{0}'; known are ndcg, map and mrr, each also with a cutoff such as ndcg@10, and recall@K, p@K and success@K with K of 1 or more"
)]
pub struct UnknownMeasure(String);

impl FromStr for Measure {
    type Err = UnknownMeasure;

    fn from_str(text: &str) -> Result<Self, UnknownMeasure> {
        let unknown = || UnknownMeasure(text.to_string());
        let (name, k) = match text.split_once('@') {
            None => (text, None),
            Some((name, k)) => {
                let k = k.parse::<usize>().ok().filter(|&k| k > 0);
                (name, Some(k.ok_or_else(unknown)?))
            }
        };
        match (name.to_lowercase().as_str(), k) {
            ("ndcg", k) => Ok(Self::Ndcg(k)),
            ("map", k) => Ok(Self::Map(k)),
            ("mrr", k) => Ok(Self::Mrr(k)),
            ("recall", Some(k)) => Ok(Self::Recall(k)),
            ("p" | "precision", Some(k)) => Ok(Self::Precision(k)),
            ("success", Some(k)) => Ok(Self::Success(k)),
            _ => Err(unknown()),
        }
    }
}

impl Measure {
    /// Returns the default measures of a table.
    pub fn standard() -> Vec<Self> {
        vec![
            Self::Ndcg(Some(10)),
            Self::Map(None),
            Self::Mrr(Some(10)),
            Self::Recall(100),
            Self::Precision(10),
        ]
    }

    /// The cutoff, if there is one.
    pub fn cutoff(self) -> Option<usize> {
        match self {
            Self::Ndcg(k) | Self::Map(k) | Self::Mrr(k) => k,
            Self::Recall(k) | Self::Precision(k) | Self::Success(k) => Some(k),
        }
    }
}

/// Definitions of the measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convention {
    /// trec_eval's, which BEIR and MTEB use: gain equal to the grade, ties by document id, descending, scores rounded to f32 first.
    #[default]
    TrecEval,
    /// Those of sentence-transformers' evaluator: every grade of 1 or more counts alike, ties by document id, ascending; average
    /// precision at k is divided by min(k, relevant documents).
    SentenceTransformers,
}

/// Choices of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// The measures.
    pub measures: Vec<Measure>,
    /// Their definitions.
    pub convention: Convention,
    /// Lowest grade that counts as relevant, 1 or more; for every measure but nDCG, whose gain is the grade.
    pub relevance_level: i32,
    /// Judged queries that the run lacks: `true` counts them as 0 (trec_eval -c), `false` leaves them out (pytrec_eval, BEIR, MTEB).
    pub complete: bool,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            measures: Measure::standard(),
            convention: Convention::TrecEval,
            relevance_level: 1,
            complete: false,
        }
    }
}

/// Scores of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunScores {
    /// The measures, in the order of all scores below.
    pub measures: Vec<Measure>,
    /// Means over the queries of [`Self::queries`]; 0 if there is none.
    pub means: Vec<f64>,
    /// Scores by query.
    pub queries: BTreeMap<String, Vec<f64>>,
    /// Judged queries that the run lacks.
    pub missing: usize,
    /// Queries of the run without a judgment, left out.
    pub unjudged: usize,
}

impl RunScores {
    /// Returns the mean of a measure, `None` if it was not evaluated.
    pub fn mean(&self, measure: Measure) -> Option<f64> {
        let column = self.measures.iter().position(|known| *known == measure)?;
        Some(self.means[column])
    }

    /// Returns the scores of a measure by query; empty if it was not evaluated.
    pub fn by_query(&self, measure: Measure) -> BTreeMap<&str, f64> {
        let column = self.measures.iter().position(|known| *known == measure);
        let score = |column: usize| {
            let scores = self.queries.iter();
            scores.map(move |(query, scores)| (query.as_str(), scores[column]))
        };
        column
            .map(|column| score(column).collect())
            .unwrap_or_default()
    }
}

/// Evaluates a run. A query without a relevant document scores 0, as in trec_eval.
pub fn evaluate(run: &Run, judgments: &Judgments, options: &EvaluateOptions) -> RunScores {
    let level = options.relevance_level.max(1);
    let mut queries = BTreeMap::new();
    let mut missing = 0;
    for (query, grades) in judgments
        .queries
        .iter()
        .filter(|(_, grades)| !grades.is_empty())
    {
        let hits: &[Hit] = match run.queries.get(query) {
            Some(hits) => hits,
            None => {
                missing += 1;
                if !options.complete {
                    continue;
                }
                &[]
            }
        };
        let scores = match options.convention {
            Convention::TrecEval => trec::scores(hits, grades, level, &options.measures),
            Convention::SentenceTransformers => {
                binary::scores(hits, grades, level, &options.measures)
            }
        };
        queries.insert(query.clone(), scores);
    }
    let judged = |query: &&String| {
        judgments
            .queries
            .get(*query)
            .is_some_and(|grades| !grades.is_empty())
    };
    let mean = |column: usize| {
        let sum: f64 = queries
            .values()
            .map(|scores: &Vec<f64>| scores[column])
            .sum();
        if queries.is_empty() {
            0.0
        } else {
            sum / queries.len() as f64
        }
    };
    RunScores {
        measures: options.measures.clone(),
        means: (0..options.measures.len()).map(mean).collect(),
        missing,
        unjudged: run.queries.keys().filter(|query| !judged(query)).count(),
        queries,
    }
}

/// Returns `true` for the sets in which MTEB leaves out hits whose id equals the query's. `name` is the name of a BEIR folder, in any
/// spelling (`arguana`, `ArguAna`, `fiqa`, `FiQA2018`).
pub fn mteb_ignores_identical_ids(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_lowercase();
    [
        "arguana",
        "fever",
        "fiqa",
        "fiqa2018",
        "msmarco",
        "quora",
        "quoraretrieval",
    ]
    .contains(&name.as_str())
}
