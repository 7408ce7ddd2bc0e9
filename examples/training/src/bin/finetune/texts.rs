//! Classes, numbers and several labels for texts and pairs of texts.

use modernbert_cli::say;
use modernbert_glue::metrics::classification::accuracy;
use modernbert_glue::metrics::correlation::{pearson, spearman};
use modernbert_train::finetune::metrics::LabelScores;
use modernbert_train::finetune::table::{
    LabelSet, SeveralTable, Table, class_texts, label_texts, score_texts,
};
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes, scores};
use modernbert_training_examples::finetuning::{Session, TaskHead};
use serde_json::json;

use super::{Args, say_rows};

pub(super) fn classify(
    args: &Args,
    session: &Session,
    options: FinetuneOptions,
) -> anyhow::Result<()> {
    let (train, dev) = tables(args)?;
    let labels = LabelSet::of(&train)?;
    say(&format!("labels: {}", labels.names().join(", ")));
    let truth: Vec<usize> = ids(&dev, &labels)?;
    let (train, dev_samples) = (
        session.encode(&class_texts(&train, &labels)?)?,
        session.encode(&class_texts(&dev, &labels)?)?,
    );
    let score = move |outputs: &[Vec<f32>]| {
        let accuracy = accuracy(&truth, &classes(outputs)).ok_or("no predictions")?;
        Ok(DevScore::of("accuracy", accuracy))
    };
    let names = labels.names();
    let finetuned = session.finetune(names, train, dev_samples, options, score)?;
    let predicted = classes(&finetuned.outputs);
    let rows = dev.rows.iter().zip(&finetuned.outputs).zip(predicted);
    session.write_predictions(rows.map(|((row, outputs), class)| {
        json!({"line": row.line, "label": row.label, "prediction": names[class], "outputs": outputs})
    }))
}

pub(super) fn regression(
    args: &Args,
    session: &Session,
    options: FinetuneOptions,
) -> anyhow::Result<()> {
    let (train, dev) = tables(args)?;
    let (train, dev_samples) = (
        session.encode(&score_texts(&train)?)?,
        session.encode(&score_texts(&dev)?)?,
    );
    let truth: Vec<f64> = dev.scores()?.into_iter().map(f64::from).collect();
    anyhow::ensure!(
        truth.iter().any(|score| *score != truth[0]),
        "{}: all labels are {}, so that correlations are undefined; give a dev set with different labels",
        args.dev.display(),
        truth[0]
    );
    let labels = truth.clone();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = scores(outputs);
        let spearman = spearman(&truth, &predicted);
        Ok(DevScore {
            main: spearman,
            metrics: vec![
                ("spearman".to_string(), spearman),
                ("pearson".to_string(), pearson(&truth, &predicted)),
            ],
        })
    };
    let finetuned = session.finetune(&[], train, dev_samples, options, score)?;
    let rows = dev.rows.iter().zip(labels).zip(scores(&finetuned.outputs));
    session.write_predictions(rows.map(
        |((row, label), prediction)| json!({"line": row.line, "label": label, "prediction": prediction}),
    ))
}

pub(super) fn several(
    args: &Args,
    session: &Session,
    options: FinetuneOptions,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.separator().is_empty(),
        "--separator is empty; give the text between two labels"
    );
    let columns = args.columns();
    let train = SeveralTable::read(&args.train, &columns, args.separator())?;
    let dev = SeveralTable::read(&args.dev, &columns, args.separator())?;
    dev.check_scored()?;
    say_rows(train.rows.len(), dev.rows.len());
    let labels = LabelSet::of_several(&train)?;
    say(&format!("labels: {}", labels.names().join(", ")));
    let truth = dev.label_ids(&labels)?;
    let (train, dev_samples) = (
        session.encode(&label_texts(&train, &labels)?)?,
        session.encode(&label_texts(&dev, &labels)?)?,
    );
    let score = move |outputs: &[Vec<f32>]| {
        let scores = LabelScores::of(&truth, outputs);
        let micro = scores.micro_f1();
        Ok(DevScore {
            main: micro,
            metrics: vec![
                ("micro_f1".to_string(), micro),
                ("macro_f1".to_string(), scores.macro_f1()),
                ("exact_match".to_string(), scores.exact_match()),
            ],
        })
    };
    let names = labels.names();
    let head = TaskHead::several(names);
    let finetuned = session.train(&head, train, dev_samples, options, score)?;
    let rows = dev.rows.iter().zip(&finetuned.outputs);
    session.write_predictions(rows.map(|(row, outputs)| {
        let predicted = names
            .iter()
            .zip(outputs)
            .filter(|(_, output)| **output > 0.0);
        let predicted: Vec<&String> = predicted.map(|(name, _)| name).collect();
        json!({"line": row.line, "label": row.labels, "prediction": predicted, "outputs": outputs})
    }))
}

fn tables(args: &Args) -> anyhow::Result<(Table, Table)> {
    let columns = args.columns();
    let train = Table::read(&args.train, &columns)?;
    let dev = Table::read(&args.dev, &columns)?;
    say_rows(train.rows.len(), dev.rows.len());
    Ok((train, dev))
}

fn ids(table: &Table, labels: &LabelSet) -> anyhow::Result<Vec<usize>> {
    let ids = table.class_ids(labels)?.into_iter();
    Ok(ids.map(|id| id as usize).collect())
}
