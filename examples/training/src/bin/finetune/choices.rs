//! One of several choices.

use modernbert_cli::say;
use modernbert_cli::text::counted;
use modernbert_glue::metrics::classification::accuracy;
use modernbert_train::finetune::table::ChoiceFile;
use modernbert_train::finetune::{ChoiceSample, FinetuneOptions, Score, classes, encode_choices};
use modernbert_training_examples::finetuning::{Head, Session};
use serde_json::json;

use super::{Args, say_rows};

pub(super) fn run(args: &Args, session: &Session, options: FinetuneOptions) -> anyhow::Result<()> {
    let (train, dev) = (ChoiceFile::read(&args.train)?, ChoiceFile::read(&args.dev)?);
    say_rows(train.rows.len(), dev.rows.len());
    let (choices, others) = (train.rows[0].choices.len(), dev.rows[0].choices.len());
    anyhow::ensure!(
        choices == others,
        "{}: {others} choices a row, {} has {choices}; give each question as many choices",
        args.dev.display(),
        args.train.display()
    );
    let train = encode(session, &train)?;
    let truth: Vec<usize> = dev.rows.iter().map(|row| row.label as usize).collect();
    let score = move |outputs: &[Vec<f32>]| {
        let accuracy = accuracy(&truth, &classes(outputs)).ok_or("no predictions")?;
        Ok(Score::of("accuracy", accuracy))
    };
    let samples = encode(session, &dev)?;
    let finetuned = session.train(&Head::choices(), train, samples, options, score)?;
    let predicted = classes(&finetuned.outputs);
    let rows = dev.rows.iter().zip(&finetuned.outputs).zip(predicted);
    session.write_predictions(rows.map(|((row, outputs), choice)| {
        json!({"line": row.line, "label": row.label, "prediction": choice, "outputs": outputs})
    }))
}

/// The questions of a file with their choices; says how many were truncated.
fn encode(session: &Session, file: &ChoiceFile) -> anyhow::Result<Vec<ChoiceSample>> {
    let limit = session.max_length();
    let encoded = encode_choices(&session.tokenizer, file, limit)?;
    if encoded.truncated > 0 {
        say(&format!(
            "{}: {} of {} truncated to {limit} tokens",
            file.path.display(),
            encoded.truncated,
            counted(encoded.samples.len() as u64, "question", "questions")
        ));
    }
    Ok(encoded.samples)
}
