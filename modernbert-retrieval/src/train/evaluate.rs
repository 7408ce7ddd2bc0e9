//! Evaluation of a model on a data set.

use modernbert::sentences::Similarity;
use sha2::{Digest, Sha256};

use super::embedder::{Embedder, VectorKind};
use super::encode::{EncodedTexts, encode};
use super::error::TrainError;
use super::texts::{Role, TextOptions, TokenizedText};
use crate::data::{Dataset, Judgments};
use crate::index::{NamedVectors, rank_vectors};
use crate::maxsim::{Masked, TokenVectors, maxsim};
use crate::metrics::{
    EvaluateOptions, Measure, RunScores, evaluate, mteb_ignores_identical_ids, rank,
};
use crate::run::{Hit, Run};

/// Documents of a query that are ranked.
const RANKED: usize = 100;

/// A data set whose texts are tokens.
#[derive(Clone, Debug)]
pub struct EvalSet {
    /// Its name.
    pub name: String,
    document_ids: Vec<String>,
    documents: Vec<TokenizedText>,
    query_ids: Vec<String>,
    queries: Vec<TokenizedText>,
    judgments: Judgments,
    drops_identical_ids: bool,
}

impl EvalSet {
    /// Reads the corpus of an open data set, and encodes its documents and queries.
    ///
    /// # Errors
    /// As [`Dataset::documents`]; a text that can't be encoded.
    pub fn new(set: Dataset, texts: &TextOptions) -> Result<Self, TrainError> {
        let (mut ids, mut documents) = (Vec::new(), Vec::new());
        for document in set.documents() {
            let document = document?;
            documents.push(document.full_text());
            ids.push(document.id);
        }
        let queries: Vec<&str> = set
            .queries
            .iter()
            .map(|query| query.text.as_str())
            .collect();
        Ok(Self {
            drops_identical_ids: mteb_ignores_identical_ids(&set.name),
            document_ids: ids,
            documents: texts.tokenize_all(&documents, Role::Document)?,
            query_ids: set.queries.iter().map(|query| query.id.clone()).collect(),
            queries: texts.tokenize_all(&queries, Role::Query)?,
            judgments: set.judgments,
            name: set.name,
        })
    }

    /// A data set in memory: documents and queries with their ids, and the judgments.
    ///
    /// # Errors
    /// A text that can't be encoded.
    pub fn of(
        name: &str,
        documents: &[(String, String)],
        queries: &[(String, String)],
        judgments: Judgments,
        texts: &TextOptions,
    ) -> Result<Self, TrainError> {
        let split = |pairs: &[(String, String)], role| -> Result<_, TrainError> {
            let (ids, of): (Vec<String>, Vec<String>) = pairs.iter().cloned().unzip();
            Ok((ids, texts.tokenize_all(&of, role)?))
        };
        let (document_ids, documents) = split(documents, Role::Document)?;
        let (query_ids, queries) = split(queries, Role::Query)?;
        Ok(Self {
            name: name.to_string(),
            document_ids,
            documents,
            query_ids,
            queries,
            judgments,
            drops_identical_ids: false,
        })
    }

    /// Adds everything to a hash that decides the score of a model: the name, ids, tokens and judgments.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        let number = |hash: &mut Sha256, value: usize| hash.update((value as u64).to_le_bytes());
        let text = |hash: &mut Sha256, text: &str| {
            number(hash, text.len());
            hash.update(text);
        };
        text(hash, &self.name);
        for (ids, texts) in [
            (&self.document_ids, &self.documents),
            (&self.query_ids, &self.queries),
        ] {
            number(hash, ids.len());
            for (id, tokens) in ids.iter().zip(texts) {
                text(hash, id);
                tokens.hash_into(hash);
            }
        }
        number(hash, self.judgments.queries.len());
        for (query, grades) in &self.judgments.queries {
            text(hash, query);
            number(hash, grades.len());
            for (document, grade) in grades {
                text(hash, document);
                hash.update(grade.to_le_bytes());
            }
        }
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.documents.len() + self.queries.len()
    }

    /// Ranks the documents for each query: the best 100.
    ///
    /// # Errors
    /// A device that can't be read; a vector that is not finite, or is zero under the cosine.
    pub fn run(
        &self,
        model: &Embedder,
        kind: &VectorKind,
        similarity: Similarity,
    ) -> Result<Run, TrainError> {
        let documents = encode(model, kind, &self.documents)?;
        let queries = encode(model, kind, &self.queries)?;
        let queries = if kind.is_per_token() {
            let ranked = (0..self.query_ids.len()).map(|i| self.late(&queries, i, &documents));
            let ranked: Result<Vec<Vec<Hit>>, TrainError> = ranked.collect();
            self.query_ids.iter().cloned().zip(ranked?).collect()
        } else {
            rank_vectors(
                NamedVectors {
                    ids: &self.document_ids,
                    values: &documents.values,
                },
                NamedVectors {
                    ids: &self.query_ids,
                    values: &queries.values,
                },
                documents.dimension,
                similarity,
                RANKED,
            )?
        };
        let mut run = Run {
            name: "model".to_string(),
            queries,
        };
        if self.drops_identical_ids {
            run.drop_identical_ids();
        }
        Ok(run)
    }

    /// Scores a run by the measures of MTEB.
    pub fn score(&self, run: &Run, measures: &[Measure]) -> RunScores {
        let options = EvaluateOptions {
            measures: measures.to_vec(),
            ..EvaluateOptions::default()
        };
        evaluate(run, &self.judgments, &options)
    }

    /// The documents of one query by MaxSim.
    fn late(
        &self,
        queries: &EncodedTexts,
        query: usize,
        documents: &EncodedTexts,
    ) -> Result<Vec<Hit>, TrainError> {
        let dimension = queries.dimension;
        let own = queries.offsets[query]..queries.offsets[query + 1];
        let offsets = [0, own.len()];
        let query = TokenVectors {
            values: &queries.values[own.start * dimension..own.end * dimension],
            dimension,
            offsets: &offsets,
            mask: None,
        };
        let documents = TokenVectors {
            values: &documents.values,
            dimension,
            offsets: &documents.offsets,
            mask: None,
        };
        let scores = maxsim(query, documents, Masked::NeverWins)?;
        let hits: Vec<Hit> = self
            .document_ids
            .iter()
            .zip(scores)
            .map(|(id, found)| Hit {
                id: id.clone(),
                score: f64::from(found.score),
            })
            .collect();
        Ok(rank(&hits).into_iter().take(RANKED).cloned().collect())
    }
}
