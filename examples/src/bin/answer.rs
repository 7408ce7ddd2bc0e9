//! Finds the span of a text that answers a question.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin answer -- --model runs/squad --question "Who wrote it?" --context book.txt
//! ```

#![recursion_limit = "256"]

use anyhow::{Context, bail};
use clap::Parser;
use modernbert::inference::{AnswerOptions, Answerer, Answers};
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::{Format, InputArgs, Record};
use modernbert_examples::output::{Lines, check_out};
use modernbert_examples::progress::Meter;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Finds the span of a text that answers a question.
#[derive(Parser)]
struct Args {
    /// The question.
    #[arg(long, requires = "context", conflicts_with = "input")]
    question: Option<String>,
    /// File with the text to search, `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "question")]
    context: Option<String>,
    /// File of JSON lines with the fields `question` and `context`, `-` for standard input; .gz is unpacked.
    #[arg(long, value_name = "FILE")]
    input: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Answers per question, best first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    n_best: usize,
    /// Tokens of an answer at most.
    #[arg(long, value_name = "N", default_value_t = 30)]
    max_answer: usize,
    /// Tokens that neighboring windows of a long text share.
    #[arg(long, value_name = "N", default_value_t = 128)]
    stride: usize,
    /// Write JSON lines to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

/// Questions that are answered together; contexts are long.
const WINDOW: usize = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    check_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.as_deref(),
    )?;
    anyhow::ensure!(
        args.n_best > 0,
        "--n-best is 0; ask for at least one answer"
    );
    anyhow::ensure!(
        args.max_answer > 0,
        "--max-answer is 0; allow at least one token"
    );
    let mut records = questions(args)?;
    let (loader, device) = args.model.loader()?;
    let options = AnswerOptions {
        n_best: args.n_best,
        max_answer: args.max_answer,
        stride: args.stride,
    };
    let answerer = Answerer::load(loader)?.with_options(options);
    let mut lines = Lines::new(args.out.as_deref())?;
    let mut meter = Meter::new("answer");
    let mut index = 0;
    loop {
        let window: Vec<Record> = records.by_ref().take(WINDOW).collect::<Result<_, _>>()?;
        if window.is_empty() {
            break;
        }
        let pairs: Vec<(&str, &str)> = window.iter().map(pair).collect::<Result<_, _>>()?;
        let before = meter.now();
        let found = answerer
            .answer_with(&pairs, &mut |now| meter.update(before.then(now)))
            .map_err(|error| error.after(index))?;
        for ((answers, (question, _)), record) in found.iter().zip(&pairs).zip(&window) {
            let line = if args.json || args.out.is_some() {
                as_json(index, record.id.as_ref(), answers).to_string()
            } else {
                for_people(question, answers)
            };
            lines.line(&line)?;
            index += 1;
        }
    }
    lines.finish()?;
    meter.finish(&args.model.ran_on(&device), 0);
    Ok(())
}

fn questions(args: &Args) -> anyhow::Result<modernbert_examples::input::Records> {
    if let (Some(question), Some(context)) = (&args.question, &args.context) {
        let text = if context == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(context)
        };
        let text = text.with_context(|| format!("{context} can't be read; check --context"))?;
        let record = Record {
            id: None,
            json: Value::Null,
            input: (question.clone(), text).into(),
        };
        return Ok(Box::new(std::iter::once(Ok(record))));
    }
    let Some(input) = &args.input else {
        bail!("no question; pass --question and --context, or JSON lines with --input");
    };
    InputArgs {
        input: Some(input.clone()),
        format: Some(Format::Jsonl),
        text_field: "question".into(),
        pair_field: "context".into(),
        ..InputArgs::default()
    }
    .records()
}

fn pair(record: &Record) -> anyhow::Result<(&str, &str)> {
    match &record.input.pair {
        Some(context) => Ok((&record.input.text, context)),
        None => bail!(
            "a question without the field \"context\": {:?}",
            record.input.text
        ),
    }
}

fn as_json(index: usize, id: Option<&Value>, answers: &Answers) -> Value {
    let best: Vec<Value> = answers
        .best
        .iter()
        .map(|a| json!({"text": a.text, "start": a.start, "end": a.end, "score": a.score, "probability": a.probability}))
        .collect();
    let mut object = json!({
        "index": index,
        "answers": best,
        "none_score": answers.none_score,
        "windows": answers.windows,
    });
    if let Some(id) = id {
        object["id"] = id.clone();
    }
    object
}

fn for_people(question: &str, answers: &Answers) -> String {
    let mut lines = vec![question.to_string()];
    for a in &answers.best {
        lines.push(format!(
            "  {:.4}  {}..{}  {:?}",
            a.probability, a.start, a.end, a.text
        ));
    }
    lines.push(format!(
        "  no answer has score {:.2}, read in {} {}",
        answers.none_score,
        answers.windows,
        if answers.windows == 1 {
            "window"
        } else {
            "windows"
        }
    ));
    lines.join("\n")
}
