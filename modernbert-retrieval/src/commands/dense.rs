//! Vectors of documents and queries as a row of the table.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use modernbert_retrieval::data::Dataset;
use modernbert_retrieval::index::{NamedVectors, Similarity, rank_vectors};
use modernbert_retrieval::run::Run;
use modernbert_retrieval::vectors::Vectors;

use super::common::similarity_or;

/// Name of the row of vectors.
pub(crate) const VECTORS: &str = "vectors";

/// Name of the row that combines BM25 and vectors.
pub(crate) const HYBRID: &str = "bm25+vectors";

/// Files of vectors.
#[derive(Args, Clone, Debug)]
pub(crate) struct DenseArgs {
    /// Reads the documents' vectors from this file, as `embed --out` writes it; adds the rows `vectors` and `bm25+vectors`.
    #[arg(long, value_name = "FILE", requires = "query_vectors")]
    vectors: Option<PathBuf>,
    /// Takes the documents' ids from this JSONL file, row by row; by default from the corpus, or for .jsonl from the vectors' file.
    #[arg(long, value_name = "FILE", requires = "vectors")]
    texts: Option<PathBuf>,
    /// Reads the queries' vectors from this file.
    #[arg(long, value_name = "FILE", requires = "vectors")]
    query_vectors: Option<PathBuf>,
    /// Takes the queries' ids from this JSONL file, row by row; by default from the set, or for .jsonl from the vectors' file.
    #[arg(long, value_name = "FILE", requires = "vectors")]
    query_texts: Option<PathBuf>,
    /// Compares vectors by cosine, dot (product), euclidean or manhattan (distance). Default: as the folder of --model says, else cosine.
    #[arg(long, value_name = "NAME", requires = "vectors")]
    similarity: Option<Similarity>,
    /// Names the folder of the vectors' model, which says how they are compared.
    #[arg(long, value_name = "FOLDER", requires = "vectors")]
    model: Option<PathBuf>,
}

impl DenseArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.vectors.is_some()
    }

    /// Files and folders that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [
            &self.vectors,
            &self.texts,
            &self.query_vectors,
            &self.query_texts,
            &self.model,
        ]
        .into_iter()
        .flatten()
    }

    /// Searches the documents' vectors, in f32, for the judged queries. `None` without vectors.
    pub(crate) fn search(&self, set: &Dataset, count: usize) -> anyhow::Result<Option<Run>> {
        let (Some(vectors), Some(query_vectors)) = (&self.vectors, &self.query_vectors) else {
            return Ok(None);
        };
        let documents = read(vectors, self.texts.as_deref(), set.corpus_files())?;
        let queries = read(
            query_vectors,
            self.query_texts.as_deref(),
            set.query_files(),
        )?;
        if documents.dimension != queries.dimension {
            bail!(
                "{}: vectors of {} components, those of the documents have {}; encode both with one model",
                query_vectors.display(),
                queries.dimension,
                documents.dimension
            );
        }
        let judged = |id: &str| set.judgments.queries.contains_key(id);
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for (id, vector, _) in queries.iter().filter(|(id, ..)| judged(id)) {
            if !seen.insert(id) {
                bail!(
                    "{}: the query id '{id}' occurs twice; leave one of them out",
                    query_vectors.display()
                );
            }
            ids.push(id.to_string());
            values.extend_from_slice(vector);
        }
        let similarity = similarity_or(self.similarity, self.model.as_deref())?;
        let queries = rank_vectors(
            NamedVectors {
                ids: &documents.ids,
                values: &documents.values,
            },
            NamedVectors {
                ids: &ids,
                values: &values,
            },
            documents.dimension,
            similarity,
            count,
        )?;
        Ok(Some(Run {
            name: VECTORS.to_string(),
            queries,
        }))
    }
}

/// Reads vectors with ids from `texts`, from the file itself for JSONL, or from the one file of the set.
fn read(path: &Path, texts: Option<&Path>, of_set: &[PathBuf]) -> anyhow::Result<Vectors> {
    let has_ids = path
        .extension()
        .is_none_or(|extension| extension != "safetensors");
    let texts = match (texts, of_set) {
        (Some(texts), _) => Some(texts),
        (None, [only]) if !has_ids => Some(only.as_path()),
        (None, _) => None,
    };
    Ok(Vectors::read(path, texts, &[])?)
}
