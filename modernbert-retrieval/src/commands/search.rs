//! `modernbert-retrieval search`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use modernbert_files::output::OutputCheck;
use modernbert_retrieval::index::VectorIndex;
use modernbert_retrieval::run::{Hit, Run};
use modernbert_retrieval::vectors::Vectors;
use serde_json::{Value, json};

use super::common::print;
use super::index::model_id;

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// Searches the index in this folder.
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Reads query vectors from this file, as `embed --out` writes it: .safetensors, or .jsonl.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Takes query ids from the JSONL file that was embedded (fields `_id` or `id`), row by row.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Returns this many vectors per query.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,
    /// Finds only vectors whose metadata has this value; can be repeated, and all must agree.
    #[arg(long, value_name = "FIELD=VALUE")]
    filter: Vec<String>,
    /// Names the folder of the queries' model; another model than the index's is refused.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Writes a TREC run file instead of printing JSON lines.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &SearchArgs) -> anyhow::Result<()> {
    if args.top == 0 {
        bail!("--top is 0; it is 1 or more");
    }
    let conditions = args
        .filter
        .iter()
        .map(|text| condition(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(out) = &args.out {
        let inputs = [Some(&args.index), Some(&args.queries), args.texts.as_ref()];
        OutputCheck::file(out)
            .inputs(inputs.into_iter().flatten())
            .check()?;
    }
    let index = VectorIndex::open(&args.index)?;
    index.check_model(&model_id(args.model.as_deref())?)?;
    let queries = Vectors::read(&args.queries, args.texts.as_deref(), &[])?;
    let expected = index.info().options.dimension;
    if queries.dimension != expected {
        bail!(
            "{}: vectors of {} components, the index has {expected}; encode the queries with the index's model",
            args.queries.display(),
            queries.dimension
        );
    }
    let matches = |_: &str, metadata: &str| {
        let fields: Value = serde_json::from_str(metadata).unwrap_or_default();
        conditions.iter().all(|(field, value)| {
            let found = match &fields[field.as_str()] {
                Value::Null => return false,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            found == *value
        })
    };
    let filter = (!conditions.is_empty()).then_some(&matches as _);
    let found = index.search(&queries.values, args.top, filter)?;
    let Some(out) = &args.out else {
        for (query, hits) in queries.ids.iter().zip(found) {
            for (i, hit) in hits.into_iter().enumerate() {
                let mut line =
                    json!({ "query": query, "rank": i + 1, "id": hit.id, "score": hit.score });
                if !hit.metadata.is_empty() {
                    line["metadata"] =
                        serde_json::from_str(hit.metadata).context("metadata that is not JSON")?;
                }
                print(&line.to_string());
            }
        }
        return Ok(());
    };
    let mut run = Run {
        name: "vectors".to_string(),
        ..Run::default()
    };
    for (query, hits) in queries.ids.iter().zip(found) {
        let hit = |hit: modernbert_retrieval::index::VectorHit<'_>| Hit {
            id: hit.id.to_string(),
            score: f64::from(hit.score),
        };
        if run
            .queries
            .insert(query.clone(), hits.into_iter().map(hit).collect())
            .is_some()
        {
            bail!("the query id '{query}' occurs twice; rename one of them");
        }
    }
    run.write(out)?;
    print(&format!(
        "written: {} ({} queries)",
        out.display(),
        run.queries.len()
    ));
    Ok(())
}

fn condition(text: &str) -> anyhow::Result<(String, String)> {
    let parts = text.split_once('=').filter(|(field, _)| !field.is_empty());
    let (field, value) = parts.with_context(|| format!("--filter {text}: expected FIELD=VALUE"))?;
    Ok((field.to_string(), value.to_string()))
}
