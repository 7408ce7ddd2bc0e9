//! Finetunes a classifier on texts and labels of your own, from CSV, TSV or JSONL files.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin finetune -- --model runs/demo \
//!     --train train.csv --dev dev.csv --text review --label stars --out runs/reviews
//! cargo run --release -p modernbert-examples --bin classify -- --model runs/reviews "What a waste of time."
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::{main_with, say};
use modernbert_glue::metrics::classification::accuracy;
use modernbert_glue::metrics::correlation::{pearson, spearman};
use modernbert_train::finetune::table::{Columns, LabelSet, Table, class_texts, score_texts};
use modernbert_train::finetune::{FinetuneOptions, Score, Target, classes, scores};
use modernbert_training_examples::finetuning::{FinetuneArgs, Session};
use std::path::PathBuf;

/// Finetunes a classifier on texts and labels of your own.
#[derive(Parser)]
struct Args {
    /// Rows to train on: .csv, .tsv (both with a header line) or .jsonl.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Rows to score on; their labels must occur in the training file.
    #[arg(long, value_name = "FILE")]
    dev: PathBuf,
    /// Column or field of the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text: String,
    /// Column or field of a second text, for pairs.
    #[arg(long, value_name = "NAME")]
    pair: Option<String>,
    /// Column or field of the label.
    #[arg(long, value_name = "NAME", default_value = "label")]
    label: String,
    /// Labels are numbers to be predicted, not classes.
    #[arg(long)]
    regression: bool,
    #[command(flatten)]
    finetune: FinetuneArgs,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let session = Session::open(&args.finetune)?;
    let columns = Columns {
        text: args.text.clone(),
        pair: args.pair.clone(),
        label: args.label.clone(),
    };
    let train = Table::read(&args.train, &columns)?;
    let dev = Table::read(&args.dev, &columns)?;
    let options = FinetuneOptions {
        patience: Some(3),
        ..FinetuneOptions::default()
    };
    say(&format!(
        "{} rows to train on, {} to score on",
        train.rows.len(),
        dev.rows.len()
    ));

    if args.regression {
        let (train, dev) = (score_texts(&train)?, score_texts(&dev)?);
        let truth: Vec<f64> = dev.iter().map(|text| number(text.target)).collect();
        let (train, dev) = (session.encode(&train)?, session.encode(&dev)?);
        let score = move |outputs: &[Vec<f32>]| {
            let predicted = scores(outputs);
            let spearman = spearman(&truth, &predicted);
            Ok(Score {
                main: spearman,
                metrics: vec![
                    ("spearman".to_string(), spearman),
                    ("pearson".to_string(), pearson(&truth, &predicted)),
                ],
            })
        };
        session.finetune(&[], train, dev, options, score)?;
        return Ok(());
    }
    let labels = LabelSet::of(&train)?;
    say(&format!("labels: {}", labels.names().join(", ")));
    let dev_texts = class_texts(&dev, &labels)?;
    let truth: Vec<usize> = dev_texts
        .iter()
        .map(|text| number(text.target) as usize)
        .collect();
    let train = session.encode(&class_texts(&train, &labels)?)?;
    let dev = session.encode(&dev_texts)?;
    let score = move |outputs: &[Vec<f32>]| {
        let accuracy = accuracy(&truth, &classes(outputs)).ok_or("no predictions")?;
        Ok(Score::of("accuracy", accuracy))
    };
    session.finetune(labels.names(), train, dev, options, score)?;
    Ok(())
}

fn number(target: Target) -> f64 {
    match target {
        Target::Class(class) => f64::from(class),
        Target::Score(score) => f64::from(score),
    }
}
