//! Tags of words and spans of texts.

use modernbert::inference::TagScheme;
use modernbert_cli::say;
use modernbert_cli::text::{counted, shown};
use modernbert_train::finetune::metrics::{Matching, SpanScores};
use modernbert_train::finetune::table::{LabelSet, TaggedFile};
use modernbert_train::finetune::{DevScore, FinetuneOptions, TaggedSample, encode_tags};
use modernbert_training_examples::finetuning::{Session, TaskHead};
use serde_json::json;

use super::{Args, say_rows};

pub(super) fn run(args: &Args, session: &Session, options: FinetuneOptions) -> anyhow::Result<()> {
    let (train, dev) = (TaggedFile::read(&args.train)?, TaggedFile::read(&args.dev)?);
    dev.check_scored()?;
    say_rows(train.rows.len(), dev.rows.len());
    let set = train.tag_set()?;
    say(&format!("tags: {}", set.names().join(", ")));
    let lines: Vec<u64> = dev.rows.iter().map(|row| row.line).collect();
    let (train, dev) = (encode(session, &train, &set)?, encode(session, &dev, &set)?);
    let matching = match args.strict {
        true => Matching::Strict,
        false => Matching::Lenient,
    };
    let names = set.names().to_vec();
    let scored = dev.clone();
    let score = move |outputs: &[Vec<f32>]| {
        let total = span_scores(&names, matching, &scored, outputs).total();
        Ok(DevScore {
            main: total.f1(),
            metrics: vec![
                ("f1".to_string(), total.f1()),
                ("precision".to_string(), total.precision()),
                ("recall".to_string(), total.recall()),
            ],
        })
    };
    let names = set.names();
    let head = TaskHead::tags(names).scored_by(format!("{matching:?}"));
    let finetuned = session.train(&head, train, dev.clone(), options, score)?;
    say(&span_scores(names, matching, &dev, &finetuned.outputs).table());
    let rows = lines.iter().zip(dev.iter().zip(&finetuned.outputs));
    session.write_predictions(rows.map(|(line, (sample, outputs))| {
        let (truth, predicted) = tags(names, sample, outputs);
        json!({"line": line, "label": truth, "prediction": predicted})
    }))
}

/// Returns the rows of a file as sequences; prints how many are unusual.
fn encode(
    session: &Session,
    file: &TaggedFile,
    set: &LabelSet,
) -> anyhow::Result<Vec<TaggedSample>> {
    let limit = session.max_length();
    let encoded = encode_tags(&session.tokenizer, file, set, limit)?;
    if encoded.truncated + encoded.inside_tokens > 0 {
        say(&format!(
            "{}: {} of {} truncated to {limit} tokens, {} not ending where tokens end",
            shown(&file.path),
            encoded.truncated,
            counted(encoded.samples.len() as u64, "row", "rows"),
            counted(encoded.inside_tokens as u64, "span", "spans")
        ));
    }
    Ok(encoded.samples)
}

/// The true tags of a row, and its predicted tags.
fn tags<'n>(
    names: &'n [String],
    sample: &TaggedSample,
    outputs: &[f32],
) -> (Vec<&'n str>, Vec<&'n str>) {
    let named = |classes: Vec<u32>| -> Vec<&'n str> {
        let names = classes.iter().map(|&class| names[class as usize].as_str());
        names.collect()
    };
    let predicted = sample.predicted(outputs, names.len());
    (named(sample.truth()), named(predicted))
}

fn span_scores(
    names: &[String],
    matching: Matching,
    dev: &[TaggedSample],
    outputs: &[Vec<f32>],
) -> SpanScores {
    let scheme = TagScheme::of(names);
    let mut scores = SpanScores::default();
    for (sample, outputs) in dev.iter().zip(outputs) {
        let (truth, predicted) = tags(names, sample, outputs);
        scores.add(&scheme, matching, truth, predicted);
    }
    scores
}
