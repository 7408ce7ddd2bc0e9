//! Finds the span of a text that answers a question.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin answer -- --model runs/squad --question "Who wrote it?" --context book.txt
//! ```

#![recursion_limit = "256"]

use anyhow::{bail, ensure};
use clap::Parser;
use modernbert::inference::{AnswerOptions, Answerer, Answers};
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::{FormatArg, InputArgs, InputRecord, whole_text};
use modernbert_examples::output::{Lines, check_lines_out};
use modernbert_examples::progress::Meter;
use modernbert_examples::windows::Windows;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Finds the span of a text that answers a question.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Answers this question.
    #[arg(long, requires = "context", conflicts_with = "input")]
    question: Option<String>,
    /// Searches the text of this file; `-` for standard input.
    #[arg(
        long,
        value_name = "FILE",
        requires = "question",
        conflicts_with = "input"
    )]
    context: Option<OsString>,
    /// Reads rows with the fields or columns `question` and `context` from this file: .jsonl, .csv or .tsv, each also as .gz; `-` for JSON
    /// lines on standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<OsString>,
    /// Reads the file in this format; by default the one of its ending, and jsonl for standard input.
    // The conflicts are needed too: clap requires nothing that conflicts with what is given.
    #[arg(long, value_enum, requires = "input", conflicts_with_all = ["question", "context"])]
    format: Option<FormatArg>,
    #[command(flatten)]
    model: ModelArgs,
    /// Prints this many answers per question, best first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    n_best: usize,
    /// Limits answers to this many tokens.
    #[arg(long, value_name = "N", default_value_t = 30)]
    max_answer: usize,
    /// Overlaps neighboring windows of a long text by this many tokens.
    #[arg(long, value_name = "N", default_value_t = 128)]
    stride: usize,
    /// Writes JSON lines to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints JSON lines.
    #[arg(long)]
    json: bool,
}

/// Questions per window of rows; few, because contexts are long.
const WINDOW: usize = 64;

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    check_lines_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.as_deref().or(args.context.as_deref()),
    )?;
    anyhow::ensure!(
        args.n_best > 0,
        "--n-best is 0; ask for at least one answer"
    );
    anyhow::ensure!(
        args.max_answer > 0,
        "--max-answer is 0; allow at least one token"
    );
    let windows = questions(args)?;
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
    for window in windows {
        let window = window?;
        let inputs = window.iter().map(|record| &record.input);
        let pairs: Vec<(&str, &str)> = inputs
            .map(|input| (&*input.text, input.pair.as_deref().unwrap_or_default()))
            .collect();
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
        lines.flush()?;
    }
    lines.commit()?;
    meter.finish(&args.model.ran_on(&device), 0);
    Ok(())
}

fn questions(args: &Args) -> anyhow::Result<Windows> {
    if let (Some(question), Some(context)) = (&args.question, &args.context) {
        let text = whole_text(context)?;
        ensure!(
            !question.trim().is_empty(),
            "--question is empty; write the question"
        );
        ensure!(
            !text.trim().is_empty(),
            "{}: the text is blank; give a text that may contain the answer",
            context.display()
        );
        return Ok(Windows::of_one(InputRecord::without_id((
            question.clone(),
            text,
        ))));
    }
    let Some(input) = &args.input else {
        bail!("no question; pass --question and --context, or a file of both with --input");
    };
    let input = InputArgs {
        format: args.format.or((input == "-").then_some(FormatArg::Jsonl)),
        input: Some(input.clone()),
        text_field: Some("question".into()),
        pair_field: Some("context".into()),
        pairs: true,
        ..InputArgs::default()
    };
    if args.out.is_some() {
        input.check()?;
    }
    input.windows(WINDOW)
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
