//! Finetunes any head on the user's data: classes of texts, numbers, several labels, tags of words, answers in contexts, choices.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin finetune -- --model runs/demo \
//!     --train train.csv --dev dev.csv --text review --label stars --out runs/reviews
//! cargo run --release -p modernbert-examples --bin classify -- --model runs/reviews "What a waste of time."
//! ```

#![recursion_limit = "256"]

mod answers;
mod choices;
mod tags;
mod texts;

use clap::{Parser, ValueEnum};
use modernbert::output::named_twice;
use modernbert_cli::text::counted;
use modernbert_cli::{main_with, say};
use modernbert_train::finetune::FinetuneOptions;
use modernbert_train::finetune::table::Columns;
use modernbert_training_examples::finetuning::{FinetuneArgs, Session};
use std::path::PathBuf;

/// Finetunes a classifier, tagger, answerer or chooser on your own data.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Trains this kind of head; the value's description names the scores and the program that runs the model.
    #[arg(long, value_enum, default_value_t = Task::Classify)]
    task: Task,
    /// Trains on the rows of this file: .csv, .tsv (both with a header line), .jsonl or .parquet; for `tag` .jsonl or a CoNLL file, for
    /// `answer` .jsonl.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Scores on the rows of this file, whose labels must occur in the training file.
    #[arg(long, value_name = "FILE")]
    dev: PathBuf,
    /// Reads the text from this column or field (tasks on texts) [default: text].
    #[arg(long, value_name = "NAME")]
    text: Option<String>,
    /// Reads the second text of a pair from this column or field.
    #[arg(long, value_name = "NAME")]
    pair: Option<String>,
    /// Reads the label, or the list of labels, from this column or field [default: label].
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// Splits labels that are not a list at this text (`multi-label`) [default: ,].
    #[arg(long, value_name = "TEXT")]
    separator: Option<String>,
    /// Trains a regression, as with `--task regression`.
    #[arg(long)]
    regression: bool,
    /// Scores only well-formed spans, as seqeval's strict mode (`tag`).
    #[arg(long)]
    strict: bool,
    /// Overlaps neighboring windows of a long context by this many tokens (`answer`) [default: 128].
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Limits answers to this many tokens (`answer`) [default: 30].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u16).range(1..))]
    max_answer: Option<u16>,
    #[command(flatten)]
    finetune: FinetuneArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// One class for a text or a pair of texts: accuracy, program `classify`.
    Classify,
    /// A number for a text or a pair of texts: correlations, program `classify`.
    Regression,
    /// Any number of labels for a text or a pair of texts: micro and macro F1, program `classify`.
    MultiLabel,
    /// A tag for each word, or spans of a text: F1 of spans, program `tag`.
    Tag,
    /// The span of a context that answers a question: F1 and exact match, program `answer`.
    Answer,
    /// One of several choices: accuracy, program `choose`.
    Choose,
}

impl Args {
    fn columns(&self) -> Columns {
        Columns {
            text: self.text.clone().unwrap_or_else(|| "text".to_owned()),
            pair: self.pair.clone(),
            label: self.label.clone().unwrap_or_else(|| "label".to_owned()),
        }
    }

    fn separator(&self) -> &str {
        self.separator.as_deref().unwrap_or(",")
    }

    fn stride(&self) -> usize {
        self.stride.unwrap_or(128)
    }

    fn max_answer(&self) -> usize {
        self.max_answer.unwrap_or(30).into()
    }

    /// Refuses options of other tasks, which would have no effect.
    fn check_options(&self) -> anyhow::Result<()> {
        let texts = matches!(
            self.task,
            Task::Classify | Task::Regression | Task::MultiLabel
        );
        for (option, is_given, is_used) in [
            ("--text", self.text.is_some(), texts),
            ("--pair", self.pair.is_some(), texts),
            ("--label", self.label.is_some(), texts),
            (
                "--separator",
                self.separator.is_some(),
                self.task == Task::MultiLabel,
            ),
            ("--strict", self.strict, self.task == Task::Tag),
            ("--stride", self.stride.is_some(), self.task == Task::Answer),
            (
                "--max-answer",
                self.max_answer.is_some(),
                self.task == Task::Answer,
            ),
        ] {
            let task = self.task.to_possible_value();
            anyhow::ensure!(
                !is_given || is_used,
                "{option} has no effect with --task {}; leave it out",
                task.as_ref().map_or("", |value| value.get_name())
            );
        }
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&modernbert_cli::parse::<Args>()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.regression || matches!(args.task, Task::Classify | Task::Regression),
        "--regression and --task name two kinds of heads; leave one of them out"
    );
    args.check_options()?;
    if named_twice(&[&args.train, &args.dev]).is_some() {
        say("--train and --dev are one file: the scores are those of the rows that are trained on");
    }
    let session = Session::open(&args.finetune, &[&args.train, &args.dev])?;
    let options = FinetuneOptions {
        patience: Some(3),
        ..FinetuneOptions::default()
    };
    match args.task {
        _ if args.regression => texts::regression(args, &session, options),
        Task::Classify => texts::classify(args, &session, options),
        Task::Regression => texts::regression(args, &session, options),
        Task::MultiLabel => texts::several(args, &session, options),
        Task::Tag => tags::run(args, &session, options),
        Task::Answer => answers::run(args, &session.with_max_length(WINDOW), options),
        Task::Choose => choices::run(args, &session, options),
    }
}

/// Default number of tokens of a window of a context.
const WINDOW: usize = 384;

/// Prints the number of rows.
fn say_rows(train: usize, dev: usize) {
    let train = counted(train as u64, "row", "rows");
    say(&format!("{train} to train on, {dev} to score on"));
}
