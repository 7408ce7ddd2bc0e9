//! Embeds texts: one vector for each.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin embed -- --model runs/demo "pub fn len(&self)" "impl Drop for Guard"
//! cargo run --release -p modernbert-examples --bin embed -- --model runs/demo --input texts.jsonl --out vectors.safetensors
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::config::Pooling;
use modernbert::inference::{BatchOptions, Input};
use modernbert::{Embedding, Encoder};
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::InputArgs;
use modernbert_examples::output::{Lines, MatrixFile, check_out, check_space};
use modernbert_examples::progress::Meter;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Embeds texts: one vector for each.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Pools token vectors to a text vector by the first token (cls), the mean over all tokens (mean), the maximum of each component (max), or
    /// the mean with weights 1, 2, 3, … by position (weightedmean); by default as in the model's files for sentence-transformers, else by
    /// the mean.
    #[arg(long, value_name = "NAME")]
    pooling: Option<Pooling>,
    /// Keeps the length of vectors; by default they are scaled to length 1, unless the model's files for sentence-transformers don't do so.
    #[arg(long)]
    no_normalize: bool,
    /// Prefixes every text with this prompt, such as `query: `; by default with the prompt of the model's files.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Writes the vectors to this file: .safetensors (tensor `embeddings`, one row per text) or .jsonl.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints JSON lines with complete vectors.
    #[arg(long)]
    json: bool,
}

/// Least number of bytes of a value in JSON lines: most have a sign, a point and eight digits or more.
const DIGITS: u64 = 10;

enum Output {
    Matrix(MatrixFile),
    Json(Lines),
    People(Lines),
}

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let kind = args.out.as_deref().map(|path| {
        path.extension()
            .and_then(|e| e.to_str())
            .map(str::to_lowercase)
    });
    let kind = kind.as_ref().map(Option::as_deref);
    anyhow::ensure!(
        matches!(kind, None | Some(Some("safetensors" | "jsonl"))),
        "--out takes a file that ends in .safetensors or .jsonl"
    );
    anyhow::ensure!(
        !(args.json && kind.flatten() == Some("safetensors")),
        "--json has no effect on a safetensors file; leave it out, or name a .jsonl file"
    );
    check_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.input.as_deref(),
    )?;
    let windows = args.input.windows(BatchOptions::default().window)?;
    let count = match args.out {
        Some(_) => args.input.check()?,
        None => None,
    };
    let (loader, device) = args.model.loader()?;
    let mut encoder = Encoder::load(loader)?;
    if let Some(pooling) = args.pooling {
        encoder = encoder.with_pooling(pooling);
    }
    if args.no_normalize {
        encoder = encoder.with_normalize(false);
    }
    if args.prompt.is_some() {
        encoder = encoder.with_prompt(args.prompt.clone());
    }
    let is_matrix = kind.flatten() == Some("safetensors");
    if let (Some(out), Some(count)) = (&args.out, count) {
        let bytes = if is_matrix { 4 } else { DIGITS };
        check_space(out, count * encoder.width() as u64 * bytes)?;
    }
    let mut output = match &args.out {
        Some(path) if is_matrix => {
            let metadata = json!({
                "model": args.model.model.to_string_lossy(),
                "pooling": encoder.options().pooling.name(),
                "normalized": encoder.options().normalize.to_string(),
            });
            Output::Matrix(MatrixFile::create(path, encoder.width(), metadata)?)
        }
        Some(path) => Output::Json(Lines::new(Some(path))?),
        None if args.json => Output::Json(Lines::new(None)?),
        None => Output::People(Lines::new(None)?),
    };

    let mut meter = Meter::new("embed");
    let mut index = 0;
    for window in windows {
        let (ids, inputs): (Vec<Option<Value>>, Vec<Input>) =
            window?.into_iter().map(|r| (r.id, r.input)).unzip();
        let before = meter.now();
        let vectors = encoder
            .encode_with(&inputs, &mut |now| meter.update(before.then(now)))
            .map_err(|error| error.after(before.done))?;
        for (vector, id) in vectors.iter().zip(ids) {
            meter.count_truncated(vector.truncated);
            match &mut output {
                Output::Matrix(file) => file.push(&vector.values)?,
                Output::Json(lines) => lines.line(&as_json(index, id, vector).to_string())?,
                Output::People(lines) => lines.line(&for_people(index, vector))?,
            }
            index += 1;
        }
        match &mut output {
            Output::Matrix(_) => {}
            Output::Json(lines) | Output::People(lines) => lines.flush()?,
        }
    }
    match output {
        Output::Matrix(file) => file.commit()?,
        Output::Json(lines) | Output::People(lines) => lines.commit()?,
    }
    meter.finish(&args.model.ran_on(&device), encoder.max_length());
    Ok(())
}

fn as_json(index: usize, id: Option<Value>, vector: &Embedding) -> Value {
    let mut object = json!({
        "index": index,
        "tokens": vector.tokens,
        "truncated": vector.truncated,
        "embedding": vector.values,
    });
    if let Some(id) = id {
        object["id"] = id;
    }
    object
}

fn for_people(index: usize, vector: &Embedding) -> String {
    let first: Vec<String> = vector
        .values
        .iter()
        .take(4)
        .map(|x| format!("{x:+.4}"))
        .collect();
    let cut = if vector.truncated { ", cut" } else { "" };
    format!(
        "text {}  {} tokens{cut}  {} numbers: {} …",
        index + 1,
        vector.tokens,
        vector.values.len(),
        first.join(" ")
    )
}
