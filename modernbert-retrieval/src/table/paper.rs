//! Published results of ModernBERT (arXiv:2412.13663, tables 1, 7 and 8) and the sizes of the sets they are measured on.

/// A set of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaperSet {
    /// Name of its folder: letters and digits in lower case.
    pub key: &'static str,
    /// Column title.
    pub title: &'static str,
    /// Documents of the whole corpus. `None` where the set consists of several corpora.
    pub documents: Option<usize>,
    /// Judged queries of the evaluated split.
    pub queries: usize,
    /// Number of sets whose mean is published as one number.
    pub parts: usize,
    /// nDCG@10 times 100, one per [`PAPER_SYSTEMS`].
    pub scores: [Option<f64>; 4],
}

/// Rows of the paper. On MLDR the single-vector models are those trained on MS MARCO only.
pub const PAPER_SYSTEMS: [&str; 4] = [
    "paper: single vector, base",
    "paper: single vector, large",
    "paper: ColBERT, base",
    "paper: ColBERT, large",
];

const fn beir(
    key: &'static str,
    title: &'static str,
    documents: usize,
    queries: usize,
    scores: [f64; 4],
) -> PaperSet {
    PaperSet {
        key,
        title,
        documents: Some(documents),
        queries,
        parts: 1,
        scores: [
            Some(scores[0]),
            Some(scores[1]),
            Some(scores[2]),
            Some(scores[3]),
        ],
    }
}

/// All sets of the paper. MS MARCO is evaluated on its dev split.
pub const PAPER_SETS: [PaperSet; 18] = [
    beir("nfcorpus", "NFCorpus", 3_633, 323, [23.7, 26.2, 35.2, 36.0]),
    beir("scifact", "SciFact", 5_183, 300, [57.0, 60.4, 73.0, 73.2]),
    beir(
        "treccovid",
        "TREC-COVID",
        171_332,
        50,
        [72.1, 74.1, 80.5, 81.3],
    ),
    beir("fiqa", "FiQA", 57_638, 648, [28.8, 33.1, 38.0, 40.3]),
    beir("arguana", "ArguAna", 8_674, 1_406, [35.7, 38.2, 49.1, 50.3]),
    beir(
        "climatefever",
        "Climate-FEVER",
        5_416_593,
        1_535,
        [23.6, 20.5, 22.2, 22.3],
    ),
    beir(
        "dbpediaentity",
        "DBPedia",
        4_635_922,
        400,
        [23.8, 25.1, 42.0, 44.1],
    ),
    beir("fever", "FEVER", 5_416_568, 6_666, [59.9, 62.7, 85.8, 85.8]),
    beir(
        "hotpotqa",
        "HotpotQA",
        5_233_329,
        7_405,
        [46.1, 49.2, 70.4, 72.5],
    ),
    beir(
        "msmarco",
        "MS MARCO",
        8_841_823,
        6_980,
        [61.6, 64.9, 45.4, 46.0],
    ),
    beir("nq", "NQ", 2_681_468, 3_452, [39.5, 45.5, 57.1, 59.9]),
    beir("quora", "Quora", 522_931, 10_000, [85.9, 86.5, 86.3, 86.1]),
    beir(
        "scidocs",
        "SCIDOCS",
        25_657,
        1_000,
        [12.5, 13.8, 16.0, 16.9],
    ),
    beir(
        "webistouche2020",
        "Touché-2020",
        382_545,
        49,
        [20.8, 23.1, 33.9, 34.6],
    ),
    PaperSet {
        key: "cqadupstack",
        title: "CQADupStack",
        documents: None,
        queries: 13_145,
        parts: 12,
        scores: [Some(33.1), Some(36.5), Some(35.1), Some(35.9)],
    },
    PaperSet {
        key: "mldrv10en",
        title: "MLDR",
        documents: Some(200_000),
        queries: 800,
        parts: 1,
        scores: [Some(27.4), Some(34.3), Some(80.2), Some(80.4)],
    },
    PaperSet {
        key: "codesearchnet",
        title: "CodeSearchNet",
        documents: None,
        queries: 52_561,
        parts: 6,
        scores: [Some(56.4), Some(59.5), None, None],
    },
    PaperSet {
        key: "stackoverflowqa",
        title: "StackOverflow-QA",
        documents: Some(19_931),
        queries: 1_994,
        parts: 1,
        scores: [Some(73.6), Some(83.9), None, None],
    },
];

/// Returns the paper's set of a folder's name, ignoring case and punctuation. Parts of a set (`cqadupstack/android`) are not a set.
pub fn paper_set(name: &str) -> Option<&'static PaperSet> {
    let release = name.strip_prefix("MLDR/").unwrap_or(name);
    if release.contains('/') {
        return None;
    }
    let key: String = release
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let key = key.to_lowercase();
    let key = match key.as_str() {
        "fiqa2018" => "fiqa",
        "dbpedia" => "dbpediaentity",
        "touche2020" => "webistouche2020",
        other => other,
    };
    PAPER_SETS.iter().find(|set| set.key == key)
}
