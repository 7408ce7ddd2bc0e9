//! `modernbert-retrieval mine`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use modernbert::checkpoint::read_config;
use modernbert::model::Precision;
use modernbert::output::{OutputCheck, OutputError, named_twice};
use modernbert::tokenizer::Tokenizer;
use modernbert::{Loader, atomic::write_new};
use modernbert_cli::text::{counted, shown};
use modernbert_cli::{DeviceArgs, describe, say};
use modernbert_retrieval::bm25::{Analyzer, Bm25, Parameters};
use modernbert_retrieval::index::{
    NamedVectors, Similarity, VectorHit, VectorIndex, similarity_of,
};
use modernbert_retrieval::mine::{Candidates, MineOptions, Ranked, Sampling, mine};
use modernbert_retrieval::run::Hit;
use modernbert_retrieval::train::{
    Embedder, Role, TextOptions, TrainRows, VectorKind, encode, kind_of_folder,
};
use rayon::prelude::*;
use serde_json::json;

use super::common::SetArgs;

#[derive(Args)]
pub(crate) struct MineArgs {
    /// Finds negatives for the queries of these files: rows with query and positive, as `train` reads them.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    train: Vec<PathBuf>,
    /// Ranks documents with this model, which has one vector per text; without it with BM25.
    #[arg(long, value_name = "FOLDER|NAME")]
    model: Option<String>,
    /// Takes candidates from the corpora of these data sets too; by default the documents of the rows alone.
    #[arg(long, value_name = "FOLDER")]
    corpus: Vec<PathBuf>,
    /// Takes no text of these data sets as a negative: those that a trained model is evaluated on.
    #[arg(long, value_name = "FOLDER")]
    held_out: Vec<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    /// Writes rows with query, positive and negatives into this JSONL file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Chooses this many negatives for a row; rows with fewer that qualify are left out and counted.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    negatives: usize,
    /// Leaves out this many of the best ranked, which may be positives without a label.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    skip: usize,
    /// Takes negatives from this many of the best ranked after --skip.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    depth: usize,
    /// Takes negatives whose score is at least this much below the positive's.
    #[arg(long, value_name = "DIFFERENCE")]
    margin: Option<f64>,
    /// Takes negatives whose score is at most this share of the positive's, such as 0.95.
    #[arg(long, value_name = "SHARE")]
    share: Option<f64>,
    /// Takes negatives whose score is at most this.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    max_score: Option<f64>,
    /// Takes negatives whose score is at least this.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// Chooses the top ranked that qualify, or random ones of them.
    #[arg(long, value_enum, default_value = "top", hide_possible_values = true)]
    sampling: SamplingName,
    /// Uses this seed for --sampling random [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// The device argument, which all programs share.
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SamplingName {
    Top,
    Random,
}

impl MineArgs {
    fn options(&self) -> anyhow::Result<MineOptions> {
        ensure!(
            self.seed.is_none() || matches!(self.sampling, SamplingName::Random),
            "--seed is for --sampling random; leave it out"
        );
        ensure!(self.negatives > 0, "--negatives is 0; it is 1 or more");
        ensure!(
            self.depth >= self.negatives,
            "--depth is {}, below --negatives ({}); give at least as many",
            self.depth,
            self.negatives
        );
        for (option, value) in [
            ("--margin", self.margin),
            ("--share", self.share),
            ("--max-score", self.max_score),
            ("--min-score", self.min_score),
        ] {
            if let Some(value) = value {
                ensure!(
                    value.is_finite(),
                    "{option} is {value}; give a finite number"
                );
            }
        }
        Ok(MineOptions {
            negatives: self.negatives,
            ranks: self.skip..self.skip.saturating_add(self.depth),
            margin: self.margin,
            share: self.share,
            most: self.max_score,
            least: self.min_score,
            sampling: match self.sampling {
                SamplingName::Top => Sampling::Top,
                SamplingName::Random => Sampling::Random,
            },
            seed: self.seed.unwrap_or(0),
        })
    }
}

pub(crate) fn run(args: &MineArgs) -> anyhow::Result<()> {
    let options = args.options()?;
    OutputCheck::file(&args.out)
        .json_lines()
        .inputs(&args.train)
        .inputs(&args.corpus)
        .inputs(&args.held_out)
        .inputs(args.model.iter().map(Path::new))
        .check()?;
    let rows = TrainRows::read(&args.train)?;
    ensure!(
        !rows.has_scores(),
        "{}: the rows have scores, and mined rows have none: every first document would count as relevant; remove the scores, and with them the rows of irrelevant pairs",
        rows.place()
    );
    let replaced = rows.with_negatives();
    if replaced > 0 {
        say(&format!(
            "{} of their own, which are candidates like other documents and are replaced by those that are found",
            counted(replaced as u64, "row has negatives", "rows have negatives")
        ));
    }
    let candidates = candidates(args, &rows)?;
    say(&format!(
        "{}, {}",
        counted(rows.rows.len() as u64, "row", "rows"),
        counted(candidates.texts.len() as u64, "candidate", "candidates")
    ));
    if candidates.texts.is_empty() {
        bail!("no candidate is left; give a --corpus, or fewer --held-out sets");
    }
    // Positives of the query are ranked too, and taken out later.
    let positives = modernbert_retrieval::mine::positives(&rows);
    let most = positives
        .values()
        .map(|known| known.len())
        .max()
        .unwrap_or(0);
    let depth = options.ranks.end.saturating_add(most + 1);
    let depth = depth.min(candidates.texts.len());
    let (ranked, scores) = match &args.model {
        Some(model) => by_vectors(args, model, &rows, &candidates, depth)?,
        None => by_words(&rows, &candidates, depth)?,
    };
    let mined = mine(&rows, &candidates, &ranked, &scores, &options);
    let mut lines = String::new();
    for one in &mined.rows {
        let row = &rows.rows[one.row];
        let negatives: Vec<&String> = one
            .negatives
            .iter()
            .map(|&i| &candidates.texts[i])
            .collect();
        let line = json!({
            "query": rows.texts[row.query as usize],
            "positive": rows.texts[row.documents[0] as usize],
            "negatives": negatives,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    ensure!(
        !mined.rows.is_empty(),
        "no row has {}; loosen --margin, --share and scores, or raise --depth",
        counted(
            options.negatives as u64,
            "negative that qualifies",
            "negatives that qualify"
        )
    );
    write_new(&args.out, lines.as_bytes()).map_err(OutputError::write(&args.out))?;
    say(&format!(
        "written: {} ({}; {} left out with fewer negatives that qualify)",
        shown(&args.out),
        counted(mined.rows.len() as u64, "row", "rows"),
        mined.left_out
    ));
    Ok(())
}

/// The documents of the rows and of the corpora, without those of held-out sets.
fn candidates(args: &MineArgs, rows: &TrainRows) -> anyhow::Result<Candidates> {
    for (option, folders) in [("--corpus", &args.corpus), ("--held-out", &args.held_out)] {
        if let Some(folder) = named_twice(folders) {
            bail!(
                "{option} {} is given twice; leave one of them out",
                folder.display()
            );
        }
    }
    let all = [&args.corpus[..], &args.held_out[..]].concat();
    args.set.check(
        "--corpus or --held-out",
        if all.is_empty() { &[] } else { &all[..1] },
    )?;
    let mut held_out = Vec::new();
    for folder in &args.held_out {
        for set in args.set.open(folder)? {
            for document in set.documents() {
                held_out.push(document?.full_text());
            }
            held_out.extend(set.queries.into_iter().map(|query| query.text));
        }
    }
    let mut candidates = Candidates::without(held_out.iter().map(String::as_str));
    for row in &rows.rows {
        for &document in &row.documents {
            candidates.add(&rows.texts[document as usize]);
        }
    }
    for folder in &args.corpus {
        let (mut documents, mut held) = (0, 0);
        for set in args.set.open(folder)? {
            for document in set.documents() {
                let text = document?.full_text();
                documents += 1;
                held += usize::from(candidates.is_held_out(&text));
                candidates.add(&text);
            }
        }
        if documents > 0 && held == documents {
            bail!(
                "--corpus {}: --held-out has each of its documents, so that none can be a negative; leave one of the two out",
                folder.display()
            );
        }
    }
    Ok(candidates)
}

type Rankings = (Vec<Vec<Ranked>>, Vec<f64>);

/// Rankings by the similarity of a model's vectors.
fn by_vectors(
    args: &MineArgs,
    model: &str,
    rows: &TrainRows,
    candidates: &Candidates,
    depth: usize,
) -> anyhow::Result<Rankings> {
    let device = args.device.select()?;
    say(&describe(&device, Precision::F32.name()));
    let folder = Loader::from(model).folder()?;
    let positions = read_config(&folder)?.max_position_embeddings;
    let kind = match kind_of_folder(&folder, positions)? {
        Some(kind @ VectorKind::Single { .. }) => kind,
        Some(VectorKind::PerToken(_)) => bail!(
            "{}: the model has a vector per token; give one with a vector per text, or leave --model out for BM25",
            folder.display()
        ),
        None => bail!(
            "{}: the folder does not say how it makes vectors (no modules.json); give a model that `train` or sentence-transformers wrote",
            folder.display()
        ),
    };
    let similarity = Similarity::of_folder(&folder)?.unwrap_or_default();
    if args.share.is_some() && matches!(similarity, Similarity::Euclidean | Similarity::Manhattan) {
        bail!(
            "--share is a share of a positive similarity, and {} compares by {} distance, which is negative; give --margin",
            folder.display(),
            similarity.name()
        );
    }
    let texts = TextOptions::new(Tokenizer::from_folder(&folder)?, kind.clone(), positions)?;
    let loader = Loader::new(&folder).device(&device.device);
    let (model, _) = Embedder::load(loader, &kind, 0)?;
    let vectors = |of: &[&str], role| -> anyhow::Result<_> {
        Ok(encode(&model, &kind, &texts.tokenize_all(of, role)?)?)
    };
    let documents: Vec<&str> = candidates.texts.iter().map(String::as_str).collect();
    let documents = vectors(&documents, Role::Document)?;
    let queries: Vec<&str> = rows
        .rows
        .iter()
        .map(|row| rows.texts[row.query as usize].as_str())
        .collect();
    let queries = vectors(&queries, Role::Query)?;
    let positives: Vec<&str> = rows
        .rows
        .iter()
        .map(|row| rows.texts[row.documents[0] as usize].as_str())
        .collect();
    let positives = vectors(&positives, Role::Document)?;
    let dimension = documents.dimension;
    let scores = queries
        .values
        .chunks(dimension)
        .zip(positives.values.chunks(dimension));
    let scores = scores.map(|(query, positive)| similarity_of(similarity, query, positive));
    let scores: Vec<f64> = scores.collect();
    let ids: Vec<String> = (0..candidates.texts.len()).map(|i| i.to_string()).collect();
    let documents = NamedVectors {
        ids: &ids,
        values: &documents.values,
    };
    let index = VectorIndex::in_memory(documents, dimension, similarity)?;
    let mut ranked = Vec::with_capacity(rows.rows.len());
    index.search_each(&queries.values, depth, None, |hits| {
        let number = |hit: VectorHit<'_>| Some((hit.id.parse().ok()?, f64::from(hit.score)));
        ranked.push(hits.into_iter().filter_map(number).collect());
    })?;
    Ok((ranked, scores))
}

/// Rankings by BM25.
fn by_words(rows: &TrainRows, candidates: &Candidates, depth: usize) -> anyhow::Result<Rankings> {
    let mut bm25 = Bm25::new(Analyzer::English, Parameters::default())?;
    let named: Vec<(String, String)> = candidates
        .texts
        .iter()
        .enumerate()
        .map(|(i, text)| (i.to_string(), text.clone()))
        .collect();
    bm25.add(&named);
    let text = |index: u32| rows.texts[index as usize].as_str();
    let ranked = bm25.search_all(rows.rows.iter().map(|row| text(row.query)), depth);
    let number = |hit: Hit| Some((hit.id.parse().ok()?, hit.score));
    let ranked = ranked
        .into_iter()
        .map(|hits| hits.into_iter().filter_map(number).collect());
    // A positive of a held-out set is not a candidate, but is scored.
    let scores = rows.rows.par_iter();
    let scores = scores.map(|row| bm25.score(text(row.query), text(row.documents[0])));
    Ok((ranked.collect(), scores.collect()))
}
