//! Labels tokens or words: names of people and places, parts of speech.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin tag -- --model runs/ner "Ada Lovelace lived in London."
//! cargo run --release -p modernbert-examples --bin tag -- --model runs/ner --input words.jsonl --words-field tokens --json
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::inference::{Tagged, TaggedWords, Tagger};
use modernbert::wording::printable;
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::{InputArgs, InputRecord};
use modernbert_examples::output::{Lines, check_lines_out};
use modernbert_examples::progress::Meter;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Labels tokens or words: names of people and places, parts of speech.
#[derive(Parser)]
#[command(version, mut_arg("pair_field", |option| option.hide(true)))]
struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Splits each text into words at white space, and labels every word.
    #[arg(long)]
    words: bool,
    /// Reads a list of words from this field of a JSON line, and labels every word.
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["words", "text_field"])]
    words_field: Option<String>,
    /// Tokenizes each word, or each text, as if it began with a space: true or false; by default true for words and false for texts.
    #[arg(long, value_name = "BOOL")]
    add_prefix_space: Option<bool>,
    /// Prints every token with its label in addition to the entities.
    #[arg(long)]
    tokens: bool,
    /// Writes JSON lines to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints JSON lines.
    #[arg(long)]
    json: bool,
}

/// Texts per window; enough to fill batches.
const WINDOW: usize = 1024;

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    check_lines_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.input.as_deref(),
    )?;
    let by_word = args.words || args.words_field.is_some();
    for (option, is_given, why) in [
        (
            "--tokens",
            args.tokens && by_word,
            "words are labelled as wholes",
        ),
        (
            "--pair-field",
            args.input.pair_field.is_some(),
            "texts are labelled one by one",
        ),
    ] {
        anyhow::ensure!(
            !is_given,
            "{option} has no effect, since {why}; leave it out"
        );
    }
    let mut input = args.input.clone();
    input.singles = true;
    if let Some(field) = &args.words_field {
        anyhow::ensure!(
            input.input.is_some(),
            "--words-field is for the rows of a file; pass --input, or --words for arguments"
        );
        input.text_field = Some(field.clone());
        input.lists = true;
    }
    let windows = input.windows(WINDOW)?;
    if args.out.is_some() {
        input.check()?;
    }
    let words = args.words || args.words_field.is_some();
    let (loader, device) = args.model.loader()?;
    let tagger = Tagger::load(loader)?.with_prefix_space(args.add_prefix_space.unwrap_or(words));
    let mut lines = Lines::new(args.out.as_deref())?;
    let mut meter = Meter::new("tag");
    let mut index = 0;
    for window in windows {
        let window = window?;
        let before = meter.now();
        let mut truncated = Vec::new();
        let report = &mut |now| meter.update(before.then(now));
        let found = if words {
            let sentences: Vec<Vec<String>> = window.iter().map(|r| words_of(r, args)).collect();
            let tagged = tagger
                .tag_words_with(&sentences, report)
                .map_err(|error| error.after(before.done))?;
            let line = |(words, tagged): (&Vec<String>, &TaggedWords)| {
                words_line(args, &tagger, words, tagged)
            };
            truncated.extend(tagged.iter().map(|t| t.truncated));
            sentences.iter().zip(&tagged).map(line).collect::<Vec<_>>()
        } else {
            let texts: Vec<&str> = window.iter().map(|r| r.input.text.as_ref()).collect();
            let tagged = tagger
                .tag_with(&texts, report)
                .map_err(|error| error.after(before.done))?;
            let line = |(text, tagged): (&&str, &Tagged)| text_line(args, &tagger, text, tagged);
            truncated.extend(tagged.iter().map(|t| t.truncated));
            texts.iter().zip(&tagged).map(line).collect()
        };
        for truncated in truncated {
            meter.count_truncated(truncated);
        }
        for (line, record) in found.into_iter().zip(window) {
            match line {
                Line::Json(mut object) => {
                    object["index"] = index.into();
                    if let Some(id) = record.id {
                        object["id"] = id;
                    }
                    lines.line(&object.to_string())?;
                }
                Line::People(text) => lines.line(&text)?,
            }
            index += 1;
        }
        lines.flush()?;
    }
    lines.commit()?;
    meter.finish(&args.model.ran_on(&device), tagger.max_length());
    Ok(())
}

enum Line {
    Json(Value),
    People(String),
}

/// Returns the words of a record: its list, or else its text split at white space.
fn words_of(record: &InputRecord, args: &Args) -> Vec<String> {
    if args.words_field.is_some() {
        return record.list.clone();
    }
    let words = record.input.text.split_whitespace();
    words.map(str::to_string).collect()
}

fn wants_json(args: &Args) -> bool {
    args.json || args.out.is_some()
}

fn slice(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}

fn text_line(args: &Args, tagger: &Tagger, text: &str, tagged: &Tagged) -> Line {
    let entities = tagger.entities(&tagged.tags);
    let names = tagger.labels();
    if !wants_json(args) {
        let mut all = vec![format!("{text:?}")];
        if args.tokens {
            let token = |t: &modernbert::inference::Tag| {
                format!(
                    "  {:>4}..{:<4} {:<12} {:.4}  {:?}",
                    t.start,
                    t.end,
                    names[t.label],
                    t.score,
                    slice(text, t.start, t.end)
                )
            };
            all.extend(tagged.tags.iter().map(token));
        }
        all.extend(entities.iter().map(|e| {
            format!(
                "  {} {:.4}  {}..{}  {:?}",
                e.label,
                e.score,
                e.start,
                e.end,
                slice(text, e.start, e.end)
            )
        }));
        return Line::People(all.join("\n"));
    }
    let entities: Vec<Value> = entities
        .iter()
        .map(|e| json!({"label": e.label, "score": e.score, "start": e.start, "end": e.end, "text": slice(text, e.start, e.end)}))
        .collect();
    let mut object =
        json!({"tokens": tagged.tokens, "truncated": tagged.truncated, "entities": entities});
    if args.tokens {
        let tags = tagged.tags.iter();
        object["tags"] = tags
            .map(|t| json!({"label": names[t.label], "score": t.score, "start": t.start, "end": t.end}))
            .collect();
    }
    Line::Json(object)
}

fn words_line(args: &Args, tagger: &Tagger, words: &[String], tagged: &TaggedWords) -> Line {
    let names = tagger.labels();
    let name =
        |tag: &Option<modernbert::inference::Tag>| tag.as_ref().map(|tag| names[tag.label].clone());
    if !wants_json(args) {
        let shown = words.iter().zip(&tagged.tags);
        let shown = shown.map(|(word, tag)| {
            format!(
                "{}/{}",
                printable(word),
                name(tag).unwrap_or_else(|| "-".into())
            )
        });
        return Line::People(shown.collect::<Vec<_>>().join(" "));
    }
    let labels: Vec<Option<String>> = tagged.tags.iter().map(name).collect();
    let scores: Vec<Option<f32>> = tagged
        .tags
        .iter()
        .map(|tag| tag.as_ref().map(|t| t.score))
        .collect();
    Line::Json(
        json!({"tokens": tagged.tokens, "truncated": tagged.truncated, "labels": labels, "scores": scores}),
    )
}
