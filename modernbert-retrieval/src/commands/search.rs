//! `modernbert-retrieval search`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use modernbert::sentences::SentenceSettings;
use modernbert::{Encoder, Loader};
use modernbert_cli::text::{counted, shown};
use modernbert_cli::{DeviceArgs, check_stdout, tell};
use modernbert_files::atomic::write_new;
use modernbert_files::output::{OutputCheck, OutputError};
use modernbert_retrieval::index::VectorIndex;
use modernbert_retrieval::run::{Hit, Run};
use modernbert_retrieval::vectors::Vectors;
use serde_json::{Map, Value, json};

use super::common::print;
use super::index::{has_field, model_id};

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// Searches the index in this folder, or in its subfolder `index`, as in the folder of `demo`.
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Searches for this text, with the model of --model, or of a subfolder `model`; prints score, id and metadata.
    #[arg(
        value_name = "TEXT",
        conflicts_with = "queries",
        required_unless_present = "queries"
    )]
    text: Option<String>,
    /// Reads query vectors from this file, as `embed --out` writes it: .safetensors, or .jsonl.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Takes query ids from the JSONL file that was embedded (fields `_id` or `id`), row by row.
    // The conflict is needed too: clap requires nothing that conflicts with what is given.
    #[arg(
        long,
        value_name = "FILE",
        requires = "queries",
        conflicts_with = "text"
    )]
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
    #[arg(
        long,
        value_name = "FILE",
        requires = "queries",
        conflicts_with = "text"
    )]
    out: Option<PathBuf>,
    /// The device argument, which all programs share.
    #[command(flatten)]
    device: DeviceArgs,
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
        let inputs = [
            Some(&args.index),
            args.queries.as_ref(),
            args.texts.as_ref(),
            args.model.as_ref(),
        ];
        OutputCheck::file(out)
            .trec_run()
            .inputs(inputs.into_iter().flatten())
            .check()?;
    } else {
        check_stdout()?;
    }
    // A folder can contain both an index and its model.
    let folder = args.index.join("index");
    let (folder, beside) = match folder.is_dir() {
        true => (folder, Some(args.index.join("model"))),
        false => (args.index.clone(), None),
    };
    let model = args.model.clone().or(beside.filter(|model| model.is_dir()));
    let index = VectorIndex::open(&folder)?;
    index.check_model(&model_id(model.as_deref())?)?;
    for (field, _) in &conditions {
        if !index.is_empty()
            && !index
                .entries()
                .any(|(_, metadata)| has_field(metadata, field))
        {
            bail!(
                "--filter {field}: no vector of {} has this field; correct the name, or build the index with --metadata {field}",
                folder.display()
            );
        }
    }
    let queries = match (&args.queries, &args.text) {
        (Some(file), _) => {
            let queries = Vectors::read(file, args.texts.as_deref(), &[])?;
            let mut seen = HashSet::new();
            if let Some(at) = queries.ids.iter().position(|id| !seen.insert(id.as_str())) {
                let place = args.texts.as_ref().unwrap_or(file);
                bail!(
                    "{}:{}: the query id {:?} occurs a second time; rename one of them",
                    place.display(),
                    queries.id_lines[at],
                    queries.ids[at]
                );
            }
            queries
        }
        (None, Some(text)) if text.trim().is_empty() => {
            bail!("TEXT is empty; give the text whose nearest vectors are searched")
        }
        (None, Some(text)) => {
            let model = model
                .context("give --model, the folder of the index's model, which encodes TEXT")?;
            encoded(args, &model, text)?
        }
        (None, None) => bail!("give TEXT or --queries"),
    };
    let name = args
        .queries
        .as_ref()
        .map_or("TEXT".into(), |file| file.display().to_string());
    let expected = index.info().options.dimension;
    if queries.dimension != expected {
        bail!(
            "{}: vectors of {} components, the index has {expected}; encode the queries with the index's model",
            name,
            queries.dimension
        );
    }
    if let Some(file) = &args.queries {
        for (i, (_, query, _)) in queries.iter().enumerate() {
            let place = || queries.place(file, i);
            index.check_query(query).with_context(place)?;
        }
    }
    let matches = |_: &str, metadata: &str| {
        let fields: Value = serde_json::from_str(metadata).unwrap_or_default();
        conditions
            .iter()
            .all(|(field, value)| is_value(&fields[field.as_str()], value))
    };
    let filter = (!conditions.is_empty()).then_some(&matches as _);
    let found = index.search(&queries.values, args.top, filter)?;
    if filter.is_some() && !index.is_empty() && found.iter().all(Vec::is_empty) {
        tell(&format!(
            "note: no vector of {} has {}",
            shown(&folder),
            args.filter.join(" and ")
        ));
    }
    if index.is_empty() {
        tell(&format!(
            "note: {} has no vector that can be found; add some with `index add`",
            shown(&folder)
        ));
    }
    let Some(out) = &args.out else {
        for (query, hits) in queries.ids.iter().zip(found) {
            for (i, hit) in hits.into_iter().enumerate() {
                if args.text.is_some() {
                    print(&text_line(hit.score, hit.id, hit.metadata));
                    continue;
                }
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
        run.queries
            .insert(query.clone(), hits.into_iter().map(hit).collect());
    }
    write_new(out, &run.text(out)?).map_err(OutputError::write(out))?;
    print(&format!(
        "written: {} ({})",
        shown(out),
        counted(run.queries.len(), "query", "queries")
    ));
    Ok(())
}

/// A hit for a person: score, id, and the fields of the metadata but those that repeat the id.
pub(crate) fn text_line(score: f32, id: &str, metadata: &str) -> String {
    let mut line = format!("{score:.4}  {id}");
    let fields: Map<String, Value> = serde_json::from_str(metadata).unwrap_or_default();
    for (field, value) in fields {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if value != id {
            line.push_str(&format!("  {field}={value}"));
        }
    }
    line
}

/// The vector of a text, by the settings of the model's folder.
fn encoded(args: &SearchArgs, model: &Path, text: &str) -> anyhow::Result<Vectors> {
    let settings = SentenceSettings::read(model)?;
    let device = args.device.select()?;
    let encoder = Encoder::load(Loader::new(model).device(&device.device))?
        .with_prompt(settings.query_prompt().map(str::to_string));
    let vectors = encoder.encode(&[text])?;
    let values: Vec<f32> = vectors
        .into_iter()
        .flat_map(|vector| vector.values)
        .collect();
    Ok(Vectors {
        dimension: values.len(),
        values,
        ids: vec![text.to_string()],
        id_lines: vec![1],
        lines: vec![1],
        metadata: vec![String::new()],
    })
}

/// Returns true if a field has the value of a filter. A number has it in any spelling: `1.0` is `1`.
fn is_value(found: &Value, value: &str) -> bool {
    // Beyond this, two integers may be one number in f64.
    const EXACT: f64 = (1u64 << 53) as f64;
    match found {
        Value::Null => false,
        Value::String(text) => text == value,
        Value::Number(number) => {
            let (found, asked) = (number.as_f64(), value.parse::<f64>().ok());
            number.to_string() == value || found == asked && found.is_some_and(|x| x.abs() < EXACT)
        }
        other => {
            let text = other.to_string();
            text == value
        }
    }
}

fn condition(text: &str) -> anyhow::Result<(String, String)> {
    let parts = text.split_once('=').filter(|(field, _)| !field.is_empty());
    let (field, value) = parts.with_context(|| format!("--filter {text}: expected FIELD=VALUE"))?;
    Ok((field.to_string(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_value_in_any_spelling() {
        for (found, value, expected) in [
            (json!(1), "1", true),
            (json!(1), "1.0", true),
            (json!(1.0), "1", true),
            (json!(0.5), "5e-1", true),
            (json!(1), "2", false),
            (json!(1), "one", false),
            (json!(9_007_199_254_740_993_u64), "9007199254740993", true),
            (json!(9_007_199_254_740_993_u64), "9007199254740992", false),
            (json!("1"), "1.0", false),
            (json!("1"), "1", true),
            (json!(true), "true", true),
            (json!(null), "null", false),
        ] {
            assert_eq!(is_value(&found, value), expected, "{found} {value}");
        }
    }
}
