//! Scores on held-out crates, as a table and as JSON.

use std::path::Path;

use modernbert::sentences::Similarity;
use modernbert_cli::text::{counted, human_seconds, shown};
use modernbert_retrieval::bm25::{Analyzer, Bm25, Parameters};
use modernbert_retrieval::data::Dataset;
use modernbert_retrieval::fusion::{RRF_K, reciprocal_rank_fusion};
use modernbert_retrieval::metrics::{EvaluateOptions, Measure, RunScores, evaluate};
use modernbert_retrieval::run::Run;
use modernbert_retrieval::table::aligned;
use modernbert_retrieval::train::{Embedder, EvalSet, VectorKind};
use serde_json::{Value, json};

const MEASURES: [Measure; 2] = [Measure::Ndcg(Some(10)), Measure::Mrr(None)];
/// Documents of a query that are ranked, as many as for models.
const RANKED: usize = 100;
const BM25: &str = "BM25";
const TRAINED: &str = "trained encoder";

/// A system and its scores.
pub(super) struct Row {
    name: String,
    ndcg: f64,
    mrr: f64,
    run: Run,
}

impl Row {
    fn of(name: &str, run: Run, evaluation: &RunScores) -> Self {
        let mean = |measure| evaluation.mean(measure).unwrap_or(0.0);
        Self {
            name: name.to_string(),
            ndcg: mean(MEASURES[0]),
            mrr: mean(MEASURES[1]),
            run,
        }
    }

    /// Scores of two systems combined by reciprocal rank fusion.
    pub(super) fn fused(set: &EvalSet, [a, b]: [&Self; 2]) -> Self {
        let run = reciprocal_rank_fusion(&[(&a.run, 1.0), (&b.run, 1.0)], RRF_K);
        let evaluation = set.score(&run, &MEASURES);
        Self::of(&format!("{} and {}", a.name, b.name), run, &evaluation)
    }

    /// Scores of a model's vectors.
    pub(super) fn of_model(
        name: &str,
        set: &EvalSet,
        model: &Embedder,
        kind: &VectorKind,
    ) -> anyhow::Result<Self> {
        let run = set.run(model, kind, Similarity::Cosine)?;
        let evaluation = set.score(&run, &MEASURES);
        Ok(Self::of(name, run, &evaluation))
    }
}

/// Documents and queries of a set.
pub(super) fn size(set: &Dataset) -> anyhow::Result<(usize, usize)> {
    let mut documents = 0;
    for document in set.documents() {
        document?;
        documents += 1;
    }
    Ok((documents, set.queries.len()))
}

/// BM25 on words, and on words and the parts of identifiers.
pub(super) fn bm25_rows(set: &Dataset) -> anyhow::Result<Vec<Row>> {
    let mut documents = Vec::new();
    for document in set.documents() {
        let document = document?;
        documents.push((document.id.clone(), document.full_text()));
    }
    let options = EvaluateOptions {
        measures: MEASURES.to_vec(),
        ..EvaluateOptions::default()
    };
    let split = |text: &str| format!("{text} {}", parts_of_identifiers(text));
    let mut rows = Vec::new();
    for (name, splits) in [(BM25, false), ("BM25, identifiers split", true)] {
        let text = |text: &str| match splits {
            true => split(text),
            false => text.to_string(),
        };
        let documents: Vec<(String, String)> = documents
            .iter()
            .map(|(id, code)| (id.clone(), text(code)))
            .collect();
        let queries: Vec<(&str, String)> = set
            .queries
            .iter()
            .map(|query| (query.id.as_str(), text(&query.text)))
            .collect();
        let mut bm25 = Bm25::new(Analyzer::English, Parameters::default())?;
        bm25.add(&documents);
        let queries = queries.iter().map(|(id, text)| (*id, text.as_str()));
        let run = bm25.run(queries, RANKED);
        let evaluation = evaluate(&run, &set.judgments, &options);
        rows.push(Row::of(name, run, &evaluation));
    }
    Ok(rows)
}

/// The words that identifiers consist of: `read_line` and `readLine` are `read` and `line`. Words that are whole are left out.
fn parts_of_identifiers(text: &str) -> String {
    let mut parts = String::new();
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    for word in text.split(|c: char| !is_inside(c)) {
        let mut split = String::new();
        let mut before = '_';
        for c in word.chars() {
            if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
                split.push(' ');
            }
            if c != '_' {
                split.push(c);
            }
            before = c;
        }
        if split != word {
            parts.push_str(&split);
            parts.push(' ');
        }
    }
    parts
}

/// Everything that the files of results contain.
pub(super) struct Results {
    /// Documents and queries of held-out crates.
    pub(super) set: (usize, usize),
    /// Crates with pairs that are held out.
    pub(super) held_out_crates: usize,
    /// Crates with pairs that are trained on.
    pub(super) crates: usize,
    pub(super) train_pairs: usize,
    pub(super) steps: u64,
    pub(super) indexed: usize,
    pub(super) functions: usize,
    pub(super) seconds: f64,
    pub(super) rows: Vec<Row>,
}

impl Results {
    pub(super) fn markdown(&self) -> String {
        let mut rows = vec![["system", "nDCG@10", "MRR"].map(str::to_string).to_vec()];
        for row in &self.rows {
            rows.push(vec![
                row.name.clone(),
                format!("{:.4}", row.ndcg),
                format!("{:.4}", row.mrr),
            ]);
        }
        let (documents, queries) = self.set;
        format!(
            "{}\nQueries: {queries} doc comments of {}; documents: {documents} functions of the same crates. Trained on {} of {}, {}; {} of {} \
             functions in the index; {}.\n",
            aligned(&rows),
            counted(
                self.held_out_crates as u64,
                "held-out crate",
                "held-out crates"
            ),
            counted(self.train_pairs as u64, "pair", "pairs"),
            counted(self.crates as u64, "other crate", "other crates"),
            counted(self.steps, "step", "steps"),
            self.indexed,
            self.functions,
            human_seconds(self.seconds),
        )
    }

    pub(super) fn json(&self) -> Value {
        let systems = self.rows.iter();
        let systems: Vec<Value> = systems
            .map(|row| json!({ "system": row.name, "ndcg@10": row.ndcg, "mrr": row.mrr }))
            .collect();
        json!({
            "systems": systems,
            "documents": self.set.0,
            "queries": self.set.1,
            "held_out_crates": self.held_out_crates,
            "train_crates": self.crates,
            "train_pairs": self.train_pairs,
            "steps": self.steps,
            "indexed": self.indexed,
            "functions": self.functions,
            "seconds": self.seconds,
        })
    }

    /// The line that programs read.
    pub(super) fn line(&self, out: &Path) -> String {
        let score = |name: &str| {
            let found = self.rows.iter().find(|row| row.name == name);
            found.map_or(0.0, |row| row.ndcg)
        };
        format!(
            "demo: bm25_ndcg10={:.4} trained_ndcg10={:.4} indexed={} seconds={:.0} out={}",
            score(BM25),
            score(TRAINED),
            self.indexed,
            self.seconds,
            shown(out)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::parts_of_identifiers;

    #[test]
    fn identifiers_are_split_at_underscores_and_capitals() {
        assert_eq!(
            parts_of_identifiers("fn read_line(x: HashMap) -> io::Result")
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["read", "line", "Hash", "Map"]
        );
    }
}
