//! Arguments and output that several commands share.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use modernbert_files::output::named_twice;
use modernbert_retrieval::bm25::{Analyzer, Bm25, Parameters};
use modernbert_retrieval::data::{CorpusSummary, Dataset, DatasetOptions};
use modernbert_retrieval::index::Similarity;
use modernbert_retrieval::metrics::{
    Convention, EvaluateOptions, Measure, mteb_ignores_identical_ids,
};
use modernbert_retrieval::run::{Duplicates, Run};

/// The similarity of vectors: the one given, else that of the model's folder, else the cosine.
pub(crate) fn similarity_or(
    given: Option<Similarity>,
    model: Option<&Path>,
) -> anyhow::Result<Similarity> {
    if let Some(similarity) = given {
        return Ok(similarity);
    }
    let of_model = model.map(Similarity::of_folder).transpose()?;
    Ok(of_model.flatten().unwrap_or_default())
}

/// Choice of the data set.
#[derive(Args, Clone, Debug)]
pub(crate) struct SetArgs {
    /// Reads one set of a folder with several: a NanoBEIR set, a language of CoIR or MLDR, a forum of CQADupStack; `all` reads each of them.
    #[arg(long, value_name = "NAME")]
    pub(crate) subset: Option<String>,
    /// Uses the judgments of this split: test, dev or train [default: test].
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Accepts judgments of absent documents and queries; the set is then marked as partial.
    #[arg(long)]
    pub(crate) partial: bool,
}

impl SetArgs {
    /// Refuses choices of a data set where none is read, and a folder that is named twice by `option`.
    pub(crate) fn check(&self, option: &str, folders: &[PathBuf]) -> anyhow::Result<()> {
        if let Some(folder) = named_twice(folders) {
            bail!(
                "{option} {} is given twice, so that it would count twice; leave one of them out",
                folder.display()
            );
        }
        let given = [
            ("--subset", self.subset.is_some()),
            ("--split", self.split.is_some()),
            ("--partial", self.partial),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((choice, _)) if folders.is_empty() => {
                bail!(
                    "{choice} is for a data set, and none is read; give {option}, or leave it out"
                )
            }
            _ => Ok(()),
        }
    }

    /// The split whose judgments are used.
    pub(crate) fn split(&self) -> &str {
        self.split.as_deref().unwrap_or("test")
    }

    /// Opens the sets of a folder: one, or with `--subset all` each of them.
    pub(crate) fn open(&self, folder: &Path) -> anyhow::Result<Vec<Dataset>> {
        let subsets = match self.subset.as_deref() {
            Some("all") => {
                let found = Dataset::subsets(folder)?;
                if found.is_empty() {
                    bail!(
                        "{}: contains one set only; leave --subset out",
                        folder.display()
                    );
                }
                found.into_iter().map(Some).collect()
            }
            other => vec![other.map(str::to_string)],
        };
        let open = |subset: Option<String>| {
            let options = DatasetOptions {
                split: self.split().to_string(),
                subset,
                partial: self.partial,
            };
            Ok(Dataset::open(folder, &options)?)
        };
        subsets.into_iter().map(open).collect()
    }
}

/// Definitions of the measures, by the name of the benchmark or library that uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConventionName {
    /// trec_eval's measures; hits with the query's own id are left out in the sets in which MTEB leaves them out.
    Mteb,
    /// trec_eval's measures; hits with the query's own id are left out in every set.
    Beir,
    /// trec_eval's measures on all hits.
    Trec,
    /// Measures of sentence-transformers' evaluator: grades of 1 or more count alike, ties by ascending document id.
    SentenceTransformers,
}

/// Choice of the measures.
#[derive(Args, Clone, Debug)]
pub(crate) struct MeasureArgs {
    /// Computes these measures, separated by commas: ndcg, map, mrr, also with a cutoff (ndcg@10); recall@K, p@K, success@K.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = Measure::standard())]
    pub(crate) measures: Vec<Measure>,
    /// Takes the measures' definitions from: mteb, beir, trec or sentence-transformers.
    #[arg(long, value_enum, default_value = "mteb", hide_possible_values = true)]
    pub(crate) convention: ConventionName,
    /// Counts judged queries that a run lacks as 0 instead of leaving them out.
    #[arg(long)]
    pub(crate) complete: bool,
    /// Counts grades from here on as relevant; nDCG uses the grades themselves.
    #[arg(long, value_name = "GRADE", default_value_t = 1)]
    pub(crate) relevance_level: i32,
    /// Keeps the better score where a run file ranks a document twice for one query.
    #[arg(long)]
    pub(crate) keep_best: bool,
}

impl MeasureArgs {
    pub(crate) fn options(&self) -> anyhow::Result<EvaluateOptions> {
        if self.relevance_level < 1 {
            bail!(
                "--relevance-level is {}; it is 1 or more",
                self.relevance_level
            );
        }
        Ok(EvaluateOptions {
            measures: self.measures.clone(),
            convention: match self.convention {
                ConventionName::SentenceTransformers => Convention::SentenceTransformers,
                _ => Convention::TrecEval,
            },
            relevance_level: self.relevance_level,
            complete: self.complete,
        })
    }

    /// Returns true if hits with the query's own id are left out of this set.
    pub(crate) fn drops_identical_ids(&self, set: &str) -> bool {
        match self.convention {
            ConventionName::Mteb => mteb_ignores_identical_ids(set),
            ConventionName::Beir => true,
            ConventionName::Trec | ConventionName::SentenceTransformers => false,
        }
    }

    /// Reads a run file for a set.
    pub(crate) fn read(&self, path: &Path, set: &str) -> anyhow::Result<Run> {
        let duplicates = if self.keep_best {
            Duplicates::KeepBest
        } else {
            Duplicates::Refuse
        };
        let mut run = Run::read(path, duplicates)?;
        if self.drops_identical_ids(set) {
            run.drop_identical_ids();
        }
        Ok(run)
    }
}

/// Name of an analyzer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnalyzerName {
    /// Lower case, no stop words, Porter's stems.
    English,
    /// Lower case only.
    Words,
}

/// Settings of BM25.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bm25Args {
    /// Sets BM25's saturation of repeated words [default: 0.9].
    #[arg(long)]
    pub(crate) k1: Option<f64>,
    /// Sets BM25's weight of the document length, 0 to 1 [default: 0.4].
    #[arg(long)]
    pub(crate) b: Option<f64>,
    /// Analyzes texts for BM25 as english (stop words, stems) or as words (lower case only) [default: english].
    #[arg(long, value_enum, hide_possible_values = true)]
    pub(crate) analyzer: Option<AnalyzerName>,
}

impl Bm25Args {
    /// The first of its options that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--k1", self.k1.is_some()),
            ("--b", self.b.is_some()),
            ("--analyzer", self.analyzer.is_some()),
        ];
        let given = options.into_iter().find(|(_, given)| *given);
        given.map(|(option, _)| option)
    }
}

/// Result of one pass over a corpus.
pub(crate) struct CorpusPass {
    pub(crate) ids: HashSet<String>,
    pub(crate) bm25: Option<Bm25>,
    pub(crate) summary: CorpusSummary,
}

/// Reads a corpus and builds its BM25 index if there are settings for one.
pub(crate) fn read_corpus(set: &Dataset, bm25: Option<&Bm25Args>) -> anyhow::Result<CorpusPass> {
    const CHUNK: usize = 4096;
    let mut index = match bm25 {
        None => None,
        Some(args) => {
            let analyzer = match args.analyzer {
                None | Some(AnalyzerName::English) => Analyzer::English,
                Some(AnalyzerName::Words) => Analyzer::Words,
            };
            Some(Bm25::new(
                analyzer,
                Parameters {
                    k1: args.k1.unwrap_or(Parameters::default().k1),
                    b: args.b.unwrap_or(Parameters::default().b),
                },
            )?)
        }
    };
    let mut ids = HashSet::new();
    let mut chunk: Vec<(String, String)> = Vec::new();
    let mut documents = set.documents();
    for document in documents.by_ref() {
        let document = document?;
        ids.insert(document.id.clone());
        if let Some(index) = &mut index {
            let text = document.full_text();
            chunk.push((document.id, text));
            if chunk.len() == CHUNK {
                index.add(&chunk);
                chunk.clear();
            }
        }
    }
    if let Some(index) = &mut index {
        index.add(&chunk);
    }
    Ok(CorpusPass {
        ids,
        bm25: index,
        summary: documents.summary().clone(),
    })
}

/// The run file of a set: a file itself, or in a folder of runs the one named after the set. `None` if the folder has none.
pub(crate) fn run_file(path: &Path, set: &str) -> Option<PathBuf> {
    if !path.is_dir() {
        return Some(path.to_path_buf());
    }
    let file = path.join(file_name(set));
    file.is_file().then_some(file)
}

/// Name of a set's run file.
pub(crate) fn file_name(set: &str) -> String {
    format!("{}.run", set.replace(['/', '\\'], "-"))
}

/// Writes to standard output; see [`modernbert_cli::say`].
pub(crate) fn print(text: &str) {
    modernbert_cli::say(text);
}

pub(crate) fn make_folder(path: &Path) -> anyhow::Result<()> {
    modernbert_files::output::make_folder(path)
        .with_context(|| format!("{}: cannot be created", path.display()))
}
