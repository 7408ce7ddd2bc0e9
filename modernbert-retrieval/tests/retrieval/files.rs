//! Small data sets on disk.

use std::io::Write;
use std::path::{Path, PathBuf};

use modernbert_retrieval::data::{CorpusDocument, Dataset, DatasetOptions, RetrievalDataError};

/// A folder that disappears at the end of the test.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The sets of this test: documents 1 to 4, queries a to c, judgments of a and b.
    pub(crate) fn beir() -> Self {
        let place = Self::new();
        place.write(
            "corpus.jsonl",
            concat!(
                "{\"_id\":\"d1\",\"title\":\"Cats\",\"text\":\"Cats chase mice.\"}\n",
                "{\"_id\":\"d2\",\"title\":\"\",\"text\":\"Dogs chase cats and cats run.\"}\n",
                "{\"_id\":\"d3\",\"title\":null,\"text\":\"Mice eat cheese.\"}\n",
                "{\"_id\":\"d4\",\"title\":\"\",\"text\":\"\"}\n",
            ),
        );
        place.write(
            "queries.jsonl",
            concat!(
                "{\"_id\":\"a\",\"text\":\"chasing cats\"}\n",
                "{\"_id\":\"b\",\"text\":\"cheese\"}\n",
                "{\"_id\":\"c\",\"text\":\"of another split\"}\n",
            ),
        );
        place.write(
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\na\td1\t2\na\td2\t1\nb\td3\t1\nb\td1\t0\n",
        );
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        self.write_bytes(name, text.as_bytes())
    }

    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn write_gz(&self, name: &str, text: &str) -> PathBuf {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        self.write_bytes(name, &encoder.finish().unwrap())
    }
}

pub(crate) fn open(folder: &Path) -> Result<Dataset, RetrievalDataError> {
    Dataset::open(folder, &DatasetOptions::default())
}

pub(crate) fn open_subset(folder: &Path, subset: &str) -> Result<Dataset, RetrievalDataError> {
    let options = DatasetOptions {
        subset: Some(subset.to_string()),
        ..DatasetOptions::default()
    };
    Dataset::open(folder, &options)
}

pub(crate) fn documents(set: &Dataset) -> Result<Vec<CorpusDocument>, RetrievalDataError> {
    set.documents().collect()
}

pub(crate) fn query_ids(set: &Dataset) -> Vec<&str> {
    set.queries.iter().map(|query| query.id.as_str()).collect()
}

/// The first error of opening a set and reading all of it.
pub(crate) fn refusal(folder: &Path) -> String {
    match open(folder) {
        Err(error) => error.to_string(),
        Ok(set) => documents(&set).unwrap_err().to_string(),
    }
}

pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

/// Reproducible numbers between -1 and 1.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}
