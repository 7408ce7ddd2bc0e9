//! `modernbert-retrieval evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use modernbert_cli::plot::{Bar, Group, PlotError, plot_groups};
use modernbert_cli::text::{counted, shown};
use modernbert_files::output::{OutputCheck, named_twice};
use modernbert_retrieval::data::Dataset;
use modernbert_retrieval::fusion::{RRF_K, reciprocal_rank_fusion};
use modernbert_retrieval::metrics::{Measure, RunScores, evaluate};
use modernbert_retrieval::run::Run;
use modernbert_retrieval::table::paper::PAPER_SYSTEMS;
use modernbert_retrieval::table::{Column, SetSize, aligned, columns, markdown};
use serde_json::{Map, Value, json};

use super::common::{Bm25Args, MeasureArgs, SetArgs, file_name, print, read_corpus, run_file};
use super::dense::{DenseArgs, HYBRID, VECTORS};
use super::report_folder::{PendingRun, ReportFolder, is_own_report};

#[derive(Args)]
pub(crate) struct EvaluateArgs {
    /// Reads the data set in this folder (BEIR, NanoBEIR, MLDR or CoIR); can be repeated.
    #[arg(long, required = true, value_name = "FOLDER")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    /// Scores this TREC run file, or a folder with one file SET.run per data set; can be repeated.
    #[arg(long, value_name = "FILE|FOLDER")]
    run: Vec<PathBuf>,
    /// Leaves the row of BM25 out.
    #[arg(long)]
    no_bm25: bool,
    #[command(flatten)]
    bm25: Bm25Args,
    /// Searches this many documents per query [default: 1000].
    #[arg(long, value_name = "COUNT")]
    top: Option<usize>,
    #[command(flatten)]
    dense: DenseArgs,
    #[command(flatten)]
    measures: MeasureArgs,
    /// Writes evaluation.json, evaluation.md, scores.png and the run files of BM25 and of the vectors into this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const BM25: &str = "bm25";
/// Default number of documents per query.
const TOP: usize = 1000;

/// Scores of all systems on one set.
struct SetResult {
    size: SetSize,
    notes: Vec<String>,
    systems: Vec<(String, RunScores)>,
}

pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    if args.no_bm25 && args.run.is_empty() && !args.dense.is_given() {
        bail!("nothing to evaluate; give --run or --vectors, or leave --no-bm25 out");
    }
    if args.no_bm25
        && let Some(option) = args.bm25.given()
    {
        bail!("{option} has no effect, since --no-bm25 is given; leave one of them out");
    }
    if args.no_bm25 && !args.dense.is_given() && args.top.is_some() {
        bail!("--top has no effect, since only run files are scored; leave it out");
    }
    let top = args.top.unwrap_or(TOP);
    if top == 0 {
        bail!("--top is 0; it is 1 or more");
    }
    let names = system_names(&args.run)?;
    let mut sets = Vec::new();
    for folder in &args.data {
        sets.extend(args.set.open(folder)?);
    }
    let file = args.run.iter().find(|path| !path.is_dir());
    if let Some(file) = file.filter(|_| sets.len() > 1) {
        bail!(
            "{} is one run file for {} data sets; give a folder with one file SET.run per set",
            file.display(),
            sets.len()
        );
    }
    for folder in args.run.iter().filter(|path| path.is_dir()) {
        if !sets.iter().any(|set| run_file(folder, &set.name).is_some()) {
            bail!(
                "--run {}: the folder has no file {}; give a run file, or a folder with one file SET.run per set",
                folder.display(),
                file_name(
                    &sets
                        .first()
                        .map_or_else(String::new, |set| set.name.clone())
                )
            );
        }
    }
    if args.dense.is_given() && sets.len() > 1 {
        bail!(
            "--vectors is one file for {} data sets; evaluate them one by one",
            sets.len()
        );
    }
    for (i, set) in sets.iter().enumerate() {
        if sets[..i].iter().any(|other| other.name == set.name) {
            bail!(
                "--data has two sets with the name {}; leave one out, or rename its folder",
                set.name
            );
        }
    }
    if let Some(out) = &args.out {
        OutputCheck::folder(out)
            .inputs(args.data.iter().chain(&args.run))
            .inputs(args.dense.files())
            .replaces(is_own_report)
            .check()?;
    } else {
        modernbert_cli::check_stdout()?;
    }
    let mut results = Vec::new();
    let mut pending = Vec::new();
    for set in &sets {
        let result = one_set(args, set, &names, &mut pending)?;
        print(&set_text(&result, args));
        results.push(result);
    }
    let mut systems: Vec<String> = Vec::new();
    if !args.no_bm25 {
        systems.push(BM25.to_string());
    }
    if args.dense.is_given() {
        systems.push(VECTORS.to_string());
        if !args.no_bm25 {
            systems.push(HYBRID.to_string());
        }
    }
    systems.extend(names);
    let summary = summary(&results);
    if let Some(columns) = &summary {
        print(&markdown(columns, &systems));
    }
    if let Some(out) = &args.out {
        write(out, pending, args, &results, summary.as_deref(), &systems)?;
    }
    Ok(())
}

/// Names of the given runs: of a file its stem, of a folder its last part; made unique by the paths themselves where they collide.
fn system_names(runs: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    if let Some(run) = named_twice(runs) {
        bail!(
            "--run {} is given twice; leave one of them out",
            run.display()
        );
    }
    let short = |path: &PathBuf| {
        let name = if path.is_dir() {
            path.file_name()
        } else {
            path.file_stem()
        };
        name.map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let names: Vec<String> = runs.iter().map(short).collect();
    let is_unique = |name: &String| {
        ![BM25, VECTORS, HYBRID].contains(&name.as_str())
            && names.iter().filter(|other| *other == name).count() == 1
    };
    let unique = names.iter().zip(runs).map(|(name, path)| {
        if is_unique(name) {
            name.clone()
        } else {
            path.display().to_string()
        }
    });
    let unique: Vec<String> = unique.collect();
    for (i, name) in unique.iter().enumerate() {
        if unique[..i].contains(name) {
            bail!("--run {name} is given twice; leave one of them out");
        }
    }
    Ok(unique)
}

fn one_set(
    args: &EvaluateArgs,
    set: &Dataset,
    names: &[String],
    pending: &mut Vec<PendingRun>,
) -> anyhow::Result<SetResult> {
    let corpus = read_corpus(set, (!args.no_bm25).then_some(&args.bm25))?;
    let mut notes = set.notes.clone();
    notes.extend(corpus.summary.notes());
    let options = args.measures.options()?;
    let top = args.top.unwrap_or(TOP);
    let mut runs: Vec<(String, Run)> = Vec::new();
    if let Some(index) = &corpus.bm25 {
        let queries = set
            .queries
            .iter()
            .map(|query| (query.id.as_str(), query.text.as_str()));
        // One more than needed, because the query's own document may be left out.
        let count = top.saturating_add(1);
        runs.push((BM25.to_string(), index.run(queries, count)));
    }
    if let Some(run) = args.dense.search(set, top.saturating_add(1))? {
        runs.push((VECTORS.to_string(), run));
    }
    for (name, run) in &mut runs {
        if args.measures.drops_identical_ids(&set.name) {
            run.drop_identical_ids();
        }
        run.truncate(top);
        if let Some(out) = &args.out {
            pending.push(PendingRun::new(
                out,
                &out.join(name).join(file_name(&set.name)),
                run,
            )?);
        }
    }
    if let [(_, bm25), (_, vectors)] = &runs[..] {
        let mut fused = reciprocal_rank_fusion(&[(bm25, 1.0), (vectors, 1.0)], RRF_K);
        fused.truncate(top);
        runs.push((HYBRID.to_string(), fused));
    }
    for (path, name) in args.run.iter().zip(names) {
        match run_file(path, &set.name) {
            Some(file) => runs.push((name.clone(), args.measures.read(&file, &set.name)?)),
            None => notes.push(format!("{}: no file {}", shown(path), file_name(&set.name))),
        }
    }
    let mut systems = Vec::new();
    for (name, run) in runs {
        let unknown = run.unknown_documents(&corpus.ids);
        if unknown > 0 {
            notes.push(format!(
                "{name}: {unknown} of its documents {} not in the corpus; is it a run on this set?",
                if unknown == 1 { "is" } else { "are" }
            ));
        }
        let evaluation = evaluate(&run, &set.judgments, &options);
        if evaluation.queries.is_empty() {
            bail!(
                "{name}: none of its queries is judged in {}; it is a run on another set or split",
                set.name
            );
        }
        if evaluation.missing > 0 {
            let one = evaluation.missing == 1;
            let fate = match (options.complete, one) {
                (true, true) => "counts as 0",
                (true, false) => "count as 0",
                (false, true) => "is left out of the means (--complete counts it as 0)",
                (false, false) => "are left out of the means (--complete counts them as 0)",
            };
            notes.push(format!(
                "{name}: lacks {} of the judged queries, which {fate}",
                evaluation.missing
            ));
        }
        if evaluation.unjudged > 0 {
            notes.push(format!(
                "{name}: {} of its queries {} no judgment and {} left out",
                evaluation.unjudged,
                if evaluation.unjudged == 1 {
                    "has"
                } else {
                    "have"
                },
                if evaluation.unjudged == 1 {
                    "is"
                } else {
                    "are"
                }
            ));
        }
        systems.push((name, evaluation));
    }
    Ok(SetResult {
        size: SetSize {
            name: set.name.clone(),
            documents: corpus.summary.documents,
            queries: set.judgments.queries.len(),
            incomplete: set.is_missing_queries() || corpus.summary.missing > 0,
        },
        notes,
        systems,
    })
}

fn set_text(result: &SetResult, args: &EvaluateArgs) -> String {
    let size = &result.size;
    let mut text = format!(
        "{} ({}): {}, {}{}\n",
        size.name,
        args.set.split(),
        counted(size.documents, "document", "documents"),
        counted(size.queries, "judged query", "judged queries"),
        if size.is_partial() { ", partial" } else { "" }
    );
    for note in &result.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    let header = ["system".to_string()].into_iter();
    let header = header.chain(args.measures.measures.iter().map(ToString::to_string));
    let mut rows = vec![header.chain(["queries".to_string()]).collect::<Vec<_>>()];
    for (name, evaluation) in &result.systems {
        let scores = evaluation.means.iter().map(|mean| format!("{mean:.4}"));
        let count = evaluation.queries.len().to_string();
        rows.push(
            std::iter::once(name.clone())
                .chain(scores)
                .chain([count])
                .collect(),
        );
    }
    text.push_str(&aligned(&rows));
    text
}

/// Columns of nDCG@10, `None` if it was not evaluated.
fn summary(results: &[SetResult]) -> Option<Vec<Column>> {
    let of_set = |result: &SetResult| {
        let score = |(name, evaluation): &(String, RunScores)| {
            Some((name.clone(), evaluation.mean(Measure::Ndcg(Some(10)))?))
        };
        let scores: Option<BTreeMap<String, f64>> = result.systems.iter().map(score).collect();
        Some((result.size.clone(), scores?))
    };
    let sets: Option<Vec<_>> = results.iter().map(of_set).collect();
    Some(columns(&sets?))
}

/// Writes the folder: run files, plot and page, then the report, which lists them. After an error nothing that is new is left.
fn write(
    out: &Path,
    pending: Vec<PendingRun>,
    args: &EvaluateArgs,
    results: &[SetResult],
    summary: Option<&[Column]>,
    systems: &[String],
) -> anyhow::Result<()> {
    // The work may have taken hours: the present content of the folder decides.
    let mut folder = ReportFolder::open(out)?;
    let written = write_all(&mut folder, pending, args, results, summary, systems);
    if written.is_err() {
        folder.undo();
    }
    written?;
    let files = folder.finish()?;
    let shown: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    print(&format!("written: {}", shown.join(" ")));
    Ok(())
}

fn write_all(
    folder: &mut ReportFolder<'_>,
    pending: Vec<PendingRun>,
    args: &EvaluateArgs,
    results: &[SetResult],
    summary: Option<&[Column]>,
    systems: &[String],
) -> anyhow::Result<()> {
    for run in pending {
        folder.commit(run)?;
    }
    let mut page: String = results
        .iter()
        .map(|result| set_text(result, args) + "\n")
        .collect();
    if let Some(columns) = summary {
        page.push_str(&markdown(columns, systems));
        folder.draw("scores.png", |picture| draw(picture, columns, systems))?;
    }
    folder.write("evaluation.md", page.as_bytes())?;
    let sets: Vec<Value> = results.iter().map(|result| json_of(result, args)).collect();
    folder.write_report(json!({ "split": args.set.split(), "sets": sets }))
}

fn draw(picture: &Path, columns: &[Column], systems: &[String]) -> Result<(), PlotError> {
    let bar = |value: f64| Bar {
        value,
        spread: None,
        points: Vec::new(),
    };
    let group = |column: &Column| Group {
        name: column.title.clone(),
        bars: systems
            .iter()
            .map(|system| column.scores.get(system).copied().map(bar))
            .collect(),
        reference: column.paper.and_then(|scores| scores[0]),
    };
    let groups: Vec<Group> = columns.iter().map(group).collect();
    plot_groups(
        picture,
        "Retrieval (* partial data)",
        systems,
        &groups,
        PAPER_SYSTEMS[0],
        "nDCG@10, times 100",
    )
}

fn json_of(result: &SetResult, args: &EvaluateArgs) -> Value {
    let named = |scores: &[f64]| -> Map<String, Value> {
        let names = args.measures.measures.iter().map(ToString::to_string);
        names
            .zip(scores.iter().map(|&score| Value::from(score)))
            .collect()
    };
    let system = |(name, evaluation): &(String, RunScores)| {
        let queries = evaluation.queries.iter();
        let by_query: Map<String, Value> = queries
            .map(|(id, scores)| (id.clone(), named(scores).into()))
            .collect();
        let value = json!({
            "means": named(&evaluation.means),
            "missing_queries": evaluation.missing,
            "queries": by_query,
        });
        (name.clone(), value)
    };
    json!({
        "set": result.size,
        "partial": result.size.is_partial(),
        "notes": result.notes,
        "systems": result.systems.iter().map(system).collect::<Map<String, Value>>(),
    })
}
