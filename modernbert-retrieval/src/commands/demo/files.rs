//! The files of the demo's folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use modernbert_files::atomic::{PendingFile, write_new};
use modernbert_files::output::OutputError;
use modernbert_retrieval::functions::{Functions, Pairs};
use modernbert_train::corpus::Corpus;
use serde_json::{Value, json};

use crate::commands::common::make_folder;

/// The demo's folder.
pub(super) struct Files<'a> {
    out: &'a Path,
}

impl<'a> Files<'a> {
    pub(super) fn new(out: &'a Path) -> Self {
        Self { out }
    }

    /// Makes the folder.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        make_folder(self.out)
    }

    /// Pairs to train on.
    pub(super) fn pairs(&self) -> PathBuf {
        self.out.join("pairs.jsonl")
    }

    /// The data set of held-out crates, in BEIR's layout.
    pub(super) fn set(&self) -> PathBuf {
        self.out.join("held-out")
    }

    /// Text for pretraining.
    pub(super) fn text(&self) -> PathBuf {
        self.out.join("text.jsonl")
    }

    /// The run of pretraining.
    pub(super) fn pretrained(&self) -> PathBuf {
        self.out.join("pretrained")
    }

    /// The trained model; `search` finds it under this name.
    pub(super) fn model(&self) -> PathBuf {
        self.out.join("model")
    }

    /// The index; `search` finds it under this name.
    pub(super) fn index(&self) -> PathBuf {
        self.out.join("index")
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.out.join(name);
        Ok(write_new(&path, content).map_err(OutputError::write(path))?)
    }

    pub(super) fn write_pairs(&self, functions: &Functions, pairs: &Pairs) -> anyhow::Result<()> {
        let rows = pairs.train.iter().map(|&index| {
            let function = &functions.functions[index];
            json!({ "query": function.doc, "positive": function.code, "function": function.path })
        });
        write_rows(&self.pairs(), rows)
    }

    /// Writes the data set: the documents of all pairs of held-out crates, and at most `queries` of their doc comments.
    pub(super) fn write_set(
        &self,
        functions: &Functions,
        pairs: &Pairs,
        queries: usize,
    ) -> anyhow::Result<()> {
        let set = self.set();
        make_folder(&set.join("qrels"))?;
        let held_out: Vec<_> = pairs
            .held_out
            .iter()
            .map(|&index| &functions.functions[index])
            .collect();
        let documents = held_out
            .iter()
            .map(|function| json!({ "_id": function.path, "title": "", "text": function.code }));
        write_rows(&set.join("corpus.jsonl"), documents)?;
        // Every so many of them: pairs of a crate follow each other.
        let every = held_out.len().div_ceil(queries).max(1);
        let asked = || held_out.iter().step_by(every);
        let queries = asked().map(|function| json!({ "_id": function.path, "text": function.doc }));
        write_rows(&set.join("queries.jsonl"), queries)?;
        let mut judgments = "query-id\tcorpus-id\tscore\n".to_string();
        for function in asked() {
            judgments.push_str(&format!("{}\t{}\t1\n", function.path, function.path));
        }
        self.write("held-out/qrels/test.tsv", judgments.as_bytes())
    }

    pub(super) fn write_text(&self, corpus: &Corpus) -> anyhow::Result<()> {
        let rows = corpus.documents.iter();
        let rows = rows.map(|document| json!({ "id": document.name, "text": document.text }));
        write_rows(&self.text(), rows)
    }
}

fn write_rows(path: &Path, rows: impl Iterator<Item = Value>) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = PendingFile::create(path)?;
        for row in rows {
            file.write_all(format!("{row}\n").as_bytes())?;
        }
        file.commit_new()
    };
    Ok(write().map_err(OutputError::write(path))?)
}
