//! MaxSim, the score of a multi-vector (ColBERT) model: for each query token the largest dot product with a document token, summed.
//!
//! The matrix of all token pairs is never in memory: scores are computed for 16 document tokens and 6 query tokens at a time.

use rayon::prelude::*;

use crate::kernel::{Comparison, LANES, PackedQueries, pack_panel};

/// Token vectors of one or more texts.
#[derive(Clone, Copy, Debug)]
pub struct TokenVectors<'a> {
    /// Vectors of all tokens, `[tokens, dimension]`.
    pub values: &'a [f32],
    /// Components of a vector.
    pub dimension: usize,
    /// First token of each text, and the number of tokens as the last entry: `[texts + 1]`, ascending from 0.
    pub offsets: &'a [usize],
    /// `false` for tokens that do not count: `[tokens]`. `None` if all count.
    pub mask: Option<&'a [bool]>,
}

/// Treatment of masked document tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masked {
    /// They are never the maximum (sentence-transformers 6).
    #[default]
    NeverWins,
    /// Their similarity is 0, so that one wins where all others are negative (PyLate 1.6); for comparison with its scores.
    CountsAsZero,
}

/// Score of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxSim {
    /// Sum over the query tokens that count. Negative infinity if the query has such a token and the document has none.
    pub score: f32,
    /// For each query token the document token of the maximum, counted from the document's first; the first one where several are
    /// equal. `None` for masked query tokens and where no document token counts.
    pub winners: Vec<Option<u32>>,
}

/// Token vectors whose parts do not fit each other.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MaxSimError {
    /// Query and documents have different dimensions.
    #[error(
        "query tokens have {query} components, document tokens {documents}; both must come from one model"
    )]
    Dimension {
        /// Components of a query token.
        query: usize,
        /// Components of a document token.
        documents: usize,
    },
    /// The number of values, the offsets and the mask disagree.
    #[error(
        "{what}: {values} values of dimension {dimension}, {tokens} tokens by the offsets, {mask} in the mask; they must agree"
    )]
    Shape {
        /// Query or documents.
        what: &'static str,
        /// Number of values.
        values: usize,
        /// Components of a vector.
        dimension: usize,
        /// Tokens by the last offset.
        tokens: usize,
        /// Entries of the mask, or of the values if there is none.
        mask: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "{what}: component {component} of token {token} is {value}; a model with non-finite outputs cannot be searched"
    )]
    NotFinite {
        /// Query or documents.
        what: &'static str,
        /// The token.
        token: usize,
        /// Its component.
        component: usize,
        /// The value.
        value: f32,
    },
}

impl TokenVectors<'_> {
    fn check(&self, what: &'static str) -> Result<(), MaxSimError> {
        let tokens = self.offsets.last().copied().unwrap_or(0);
        let mask = self.mask.map_or(tokens, <[bool]>::len);
        let ascends = self.offsets.first() == Some(&0) && self.offsets.is_sorted();
        let fits = tokens.checked_mul(self.dimension) == Some(self.values.len());
        if !ascends || !fits || mask != tokens || self.dimension == 0 {
            return Err(MaxSimError::Shape {
                what,
                values: self.values.len(),
                dimension: self.dimension,
                tokens,
                mask,
            });
        }
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(place) => Err(MaxSimError::NotFinite {
                what,
                token: place / self.dimension,
                component: place % self.dimension,
                value: self.values[place],
            }),
        }
    }

    fn counts(&self, token: usize) -> bool {
        self.mask.is_none_or(|mask| mask[token])
    }
}

/// Scores each document for one query; `query` contains one text. Documents are scored in parallel; the scores do not depend on the number
/// of threads or on the other documents.
///
/// # Errors
/// Different dimensions, shapes that disagree, values that are not finite.
pub fn maxsim(
    query: TokenVectors<'_>,
    documents: TokenVectors<'_>,
    masked: Masked,
) -> Result<Vec<MaxSim>, MaxSimError> {
    query.check("query")?;
    documents.check("documents")?;
    if query.dimension != documents.dimension {
        return Err(MaxSimError::Dimension {
            query: query.dimension,
            documents: documents.dimension,
        });
    }
    let packed = PackedQueries::new(query.values, query.dimension);
    let spans: Vec<(usize, usize)> = documents
        .offsets
        .windows(2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    let score = |panel: &mut Vec<f32>, span: (usize, usize)| {
        one_document(&query, &packed, &documents, span, masked, panel)
    };
    Ok(spans.into_par_iter().map_init(Vec::new, score).collect())
}

fn one_document(
    query: &TokenVectors<'_>,
    packed: &PackedQueries,
    documents: &TokenVectors<'_>,
    (start, end): (usize, usize),
    masked: Masked,
    panel: &mut Vec<f32>,
) -> MaxSim {
    let dimension = query.dimension;
    let tokens = query.values.len() / dimension;
    let mut best = vec![(f32::NEG_INFINITY, None); tokens];
    for first in (start..end).step_by(LANES) {
        let count = LANES.min(end - first);
        let values = &documents.values[first * dimension..(first + count) * dimension];
        pack_panel(values.chunks_exact(dimension), dimension, panel);
        packed.score(Comparison::Product, panel, |token, _, scores| {
            for (best, scores) in best[token..].iter_mut().zip(scores) {
                for (lane, &similarity) in scores[..count].iter().enumerate() {
                    let document_token = first + lane;
                    let similarity = match masked {
                        _ if documents.counts(document_token) => similarity,
                        Masked::NeverWins => continue,
                        Masked::CountsAsZero => 0.0,
                    };
                    if similarity > best.0 {
                        *best = (similarity, Some((document_token - start) as u32));
                    }
                }
            }
        });
    }
    let mut score = 0.0;
    let mut winners = Vec::with_capacity(tokens);
    for (token, (similarity, winner)) in best.into_iter().enumerate() {
        if query.counts(token) {
            score += similarity;
            winners.push(winner);
        } else {
            winners.push(None);
        }
    }
    MaxSim { score, winners }
}
