//! One of several choices.

use modernbert_glue::metrics::classification::accuracy;
use modernbert_train::finetune::table::ChoiceFile;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{Session, TaskHead};
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
    let train = session.encode_choices(&train)?;
    let truth: Vec<usize> = dev.rows.iter().map(|row| row.label as usize).collect();
    let score = move |outputs: &[Vec<f32>]| {
        let accuracy = accuracy(&truth, &classes(outputs)).ok_or("no predictions")?;
        Ok(DevScore::of("accuracy", accuracy))
    };
    let samples = session.encode_choices(&dev)?;
    let finetuned = session.train(&TaskHead::choices(), train, samples, options, score)?;
    let predicted = classes(&finetuned.outputs);
    let rows = dev.rows.iter().zip(&finetuned.outputs).zip(predicted);
    session.write_predictions(rows.map(|((row, outputs), choice)| {
        json!({"line": row.line, "label": row.label, "prediction": choice, "outputs": outputs})
    }))
}
