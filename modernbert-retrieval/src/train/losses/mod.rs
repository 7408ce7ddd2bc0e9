//! Losses of retrieval, from the vectors of a batch.
//!
//! A batch has `rows` queries and `ways` documents for each, column by column: the first document of every query, then the second of
//! every query, and so on. Each loss is a sum over the queries, so that [`Loss::rows`] computes it for some of them at a time and the
//! matrix of similarities is never in memory as a whole.
//!
//! | loss | formula for query `i`; `s` are similarities, document 0 is the positive | definition |
//! |---|---|---|
//! | [`InBatch`] | `log Σ exp(logits) - logit(i, 0)` over the documents of the batch, and more [directions](Direction) | sentence-transformers' MultipleNegativesRankingLoss; with scale 1 and a vector per token PyLate's Contrastive |
//! | [`Distillation`] | `KL(softmax(teacher) ‖ softmax(s))` over its own documents | PyLate's with [`Definition::MinMax`], sentence-transformers' with [`Definition::Temperature`] |
//! | [`Objective::Mse`] | mean of `(s - teacher)²` over its own documents | sentence-transformers' CosineSimilarityLoss |
//! | [`Objective::MarginMse`] | mean of `((s₀ - sₖ) - (teacher₀ - teacherₖ))²` over `k ≥ 1` | sentence-transformers' MarginMSELoss |
//!
//! Matryoshka is the sum of a loss over several leading parts of the vectors, each normalized again.

mod in_batch;

pub use in_batch::{Direction, Hardness, HardnessMode, InBatch, Partition};

use burn::tensor::{Tensor, TensorData, activation::log_softmax};
use modernbert::ops::sum::sum;
use modernbert::sentences;
use std::ops::Range;

use super::vectors::{TextVectors, own_similarities};
use crate::maxsim::Masked;

/// Objective of the training.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// Softmax over the documents of the batch.
    InBatch(InBatch),
    /// A teacher's distribution over the documents of a query.
    Distillation(Distillation),
    /// A teacher's similarities.
    Mse,
    /// A teacher's differences of similarities.
    MarginMse,
}

/// Distillation of a teacher's distribution over the documents of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// Conversion of similarities to a distribution.
    pub definition: Definition,
}

/// Conversion of similarities to a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Definition {
    /// PyLate's: `(s - min) / (max - min + 1e-8)` over the documents of a query; the teacher's scores as they are.
    MinMax,
    /// sentence-transformers': both divided by their temperature; the loss times the square of the student's.
    Temperature {
        /// The student's temperature.
        student: f64,
        /// The teacher's temperature.
        teacher: f64,
    },
}

/// Similarity of two vectors in a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossSimilarity {
    /// The cosine.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
}

impl From<LossSimilarity> for sentences::Similarity {
    fn from(similarity: LossSimilarity) -> Self {
        match similarity {
            LossSimilarity::Cosine => Self::Cosine,
            LossSimilarity::Dot => Self::Dot,
        }
    }
}

/// A loss and its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The objective.
    pub objective: Objective,
    /// Similarity of two vectors. Vectors of tokens are normalized in either case.
    pub similarity: LossSimilarity,
    /// Leading components of each part for Matryoshka; empty for the whole vectors alone.
    pub dimensions: Vec<usize>,
    /// Treatment of document tokens that do not count, in models with a vector per token.
    pub masked: Masked,
}

/// Vectors of a batch, and the teacher's scores.
#[derive(Clone, Debug)]
pub struct BatchVectors {
    /// Queries, `rows` texts.
    pub queries: TextVectors,
    /// Documents, `rows · ways` texts, column by column.
    pub documents: TextVectors,
    /// Documents of a query.
    pub ways: usize,
    /// The teacher's scores, `rows · ways`, row by row; empty where the objective needs none.
    pub teacher: Vec<f32>,
}

impl BatchVectors {
    /// Number of queries.
    pub fn rows(&self) -> usize {
        self.queries.texts()
    }

    fn map(&self, of: impl Fn(&TextVectors) -> TextVectors) -> Self {
        Self {
            queries: of(&self.queries),
            documents: of(&self.documents),
            ways: self.ways,
            teacher: self.teacher.clone(),
        }
    }

    /// The documents of some queries, query by query.
    fn own_documents(&self, rows: &Range<usize>) -> TextVectors {
        let count = self.rows();
        let of_row = |row: usize| (0..self.ways).map(move |way| way * count + row);
        let texts: Vec<usize> = rows.clone().flat_map(of_row).collect();
        self.documents.select(&texts)
    }
}

impl TextVectors {
    /// Joins texts in order.
    ///
    /// # Panics
    /// Without a single part.
    pub fn cat(parts: Vec<Self>) -> Self {
        let mut offsets = vec![0];
        let mut counts = Vec::new();
        for part in &parts {
            let before = *offsets.last().unwrap_or(&0);
            offsets.extend(part.offsets[1..].iter().map(|offset| before + offset));
            counts.extend(part.counts.clone());
        }
        Self {
            values: Tensor::cat(parts.into_iter().map(|part| part.values).collect(), 0),
            offsets,
            counts: (!counts.is_empty()).then(|| counts.concat()),
        }
    }
}

impl Loss {
    /// An in-batch softmax with the defaults of sentence-transformers.
    pub fn in_batch() -> Self {
        Self {
            objective: Objective::InBatch(InBatch::default()),
            similarity: LossSimilarity::Cosine,
            dimensions: Vec::new(),
            masked: Masked::NeverWins,
        }
    }

    /// True if the objective needs the teacher's scores.
    pub fn needs_scores(&self) -> bool {
        !matches!(self.objective, Objective::InBatch(_))
    }

    /// Documents that a row has at least.
    pub fn least_ways(&self) -> usize {
        match self.objective {
            Objective::InBatch(_) | Objective::Mse => 1,
            // A softmax over one document is constant.
            Objective::Distillation(_) | Objective::MarginMse => 2,
        }
    }

    /// Numbers of the largest matrix for one query, from which the queries of a chunk follow.
    pub fn row_numbers(&self, batch: &BatchVectors) -> usize {
        let texts = match self.objective {
            Objective::InBatch(_) => batch.rows() * (batch.ways + 1),
            _ => batch.ways,
        };
        let tokens = |vectors: &TextVectors| {
            let lengths = vectors.offsets.windows(2).map(|pair| pair[1] - pair[0]);
            lengths.max().unwrap_or(1)
        };
        texts * tokens(&batch.queries) * tokens(&batch.documents)
    }

    /// The share of the queries `rows` in the mean loss of the batch, `[1]`. The shares of all queries add up to the mean.
    ///
    /// # Panics
    /// If an objective with a teacher has no score for each document, or fewer documents than [`Self::least_ways`].
    pub fn rows(&self, batch: &BatchVectors, rows: Range<usize>) -> Tensor<1> {
        let normalizes =
            self.similarity == LossSimilarity::Cosine || batch.documents.counts.is_some();
        let prepared = |vectors: &TextVectors| match normalizes {
            true => vectors.clone().normalized(),
            false => vectors.clone(),
        };
        if self.dimensions.is_empty() {
            return self.objective_of(&batch.map(prepared), rows);
        }
        let parts = self.dimensions.iter().map(|&dimension| {
            let part = batch.map(|vectors| vectors.truncated(dimension).normalized());
            self.objective_of(&part, rows.clone())
        });
        let parts: Vec<Tensor<1>> = parts.collect();
        sum(Tensor::cat(parts, 0))
    }

    fn objective_of(&self, batch: &BatchVectors, rows: Range<usize>) -> Tensor<1> {
        if let Objective::InBatch(in_batch) = &self.objective {
            return in_batch.rows(batch, rows, self.masked);
        }
        let (count, ways) = (batch.rows() as f64, batch.ways);
        assert!(
            ways >= self.least_ways() && batch.teacher.len() == batch.rows() * ways,
            "{} scores for {} queries with {ways} documents each, of which the loss needs {} or more",
            batch.teacher.len(),
            batch.rows(),
            self.least_ways()
        );
        let own = batch.own_documents(&rows);
        let found = own_similarities(&batch.queries.slice(rows.clone()), &own, ways, self.masked);
        let teacher = batch.teacher[rows.start * ways..rows.end * ways].to_vec();
        let teacher: Tensor<2> = Tensor::from_data(
            TensorData::new(teacher, [rows.len(), ways]),
            &found.device(),
        );
        match &self.objective {
            Objective::Distillation(distillation) => {
                distillation.divergence(found, teacher) / count
            }
            Objective::Mse => {
                let squares = (found - teacher).powf_scalar(2.0);
                sum(squares) / (count * ways as f64)
            }
            Objective::MarginMse => {
                let margins = |scores: Tensor<2>| {
                    let first = scores.clone().narrow(1, 0, 1);
                    first - scores.narrow(1, 1, ways - 1)
                };
                let squares = (margins(found) - margins(teacher)).powf_scalar(2.0);
                sum(squares) / (count * (ways - 1) as f64)
            }
            Objective::InBatch(in_batch) => in_batch.rows(batch, rows, self.masked),
        }
    }
}

impl Distillation {
    /// Sum over the queries of the divergence of the student's distribution from the teacher's, `[1]`; both `[queries, ways]`.
    fn divergence(self, found: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        let (student, teacher, factor) = match self.definition {
            Definition::MinMax => {
                let (most, least) = (found.clone().max_dim(1), found.clone().min_dim(1));
                let scaled = (found - least.clone()) / (most - least + 1e-8);
                (scaled, teacher, 1.0)
            }
            Definition::Temperature {
                student: own,
                teacher: other,
            } => (found / own, teacher / other, own * own),
        };
        let (student, teacher) = (log_softmax(student, 1), log_softmax(teacher, 1));
        let terms = teacher.clone().exp() * (teacher - student);
        sum(terms) * factor
    }
}
