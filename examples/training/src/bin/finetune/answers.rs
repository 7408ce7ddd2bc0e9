//! Answers to questions in contexts.

use modernbert::inference::{AnswerOptions, Answers};
use modernbert_cli::say;
use modernbert_cli::text::{counted, shown};
use modernbert_train::finetune::metrics::{answer_f1, exact_match};
use modernbert_train::finetune::table::{QuestionFile, QuestionRow};
use modernbert_train::finetune::{DevScore, EncodedQuestions, FinetuneOptions, encode_questions};
use modernbert_training_examples::finetuning::{Session, TaskHead};
use serde_json::json;

use super::{Args, say_rows};

pub(super) fn run(args: &Args, session: &Session, options: FinetuneOptions) -> anyhow::Result<()> {
    let (train, dev) = (
        QuestionFile::read(&args.train)?,
        QuestionFile::read(&args.dev)?,
    );
    dev.check_ids()?;
    say_rows(train.rows.len(), dev.rows.len());
    let train = encode(args, session, &train)?.samples;
    let encoded = encode(args, session, &dev)?;
    let found = AnswerOptions {
        max_answer: args.max_answer(),
        stride: args.stride(),
        ..AnswerOptions::default()
    };
    let (scored, file, limits) = (encoded.clone(), dev.clone(), found.clone());
    let score = move |outputs: &[Vec<f32>]| {
        let answers = scored.answers(&file, outputs, &limits);
        let may_be_none = file.rows.iter().any(|row| row.answers.is_empty());
        let (mut f1, mut exact) = (0.0, 0.0);
        for (row, answers) in file.rows.iter().zip(&answers) {
            let (predicted, right) = (text(answers, may_be_none), right(row));
            f1 += answer_f1(predicted, &right);
            exact += exact_match(predicted, &right);
        }
        let questions = file.rows.len() as f64;
        Ok(DevScore {
            main: Some(f1 / questions),
            metrics: vec![
                ("f1".to_string(), Some(f1 / questions)),
                ("exact_match".to_string(), Some(exact / questions)),
            ],
        })
    };
    let samples = encoded.samples.clone();
    let head = TaskHead::answers().scored_by(format!("{found:?}"));
    let finetuned = session.train(&head, train, samples, options, score)?;
    let answers = encoded.answers(&dev, &finetuned.outputs, &found);
    let may_be_none = dev.rows.iter().any(|row| row.answers.is_empty());
    let rows = dev.rows.iter().zip(&answers);
    session.write_predictions(rows.map(|(row, answers)| {
        json!({
            "line": row.line,
            "id": row.id,
            "label": right(row),
            "prediction": text(answers, may_be_none),
            "score": answers.best.first().map(|best| best.score),
            "none_score": answers.none_score,
        })
    }))
}

/// Returns the questions of a file in windows; prints how many are unusual.
fn encode(args: &Args, session: &Session, file: &QuestionFile) -> anyhow::Result<EncodedQuestions> {
    let limit = session.max_length();
    let encoded = encode_questions(&session.tokenizer, file, limit, args.stride())?;
    say(&format!(
        "{}: {} in {} of up to {limit} tokens, {} not ending where tokens end",
        shown(&file.path),
        counted(encoded.questions.len() as u64, "question", "questions"),
        counted(encoded.samples.len() as u64, "window", "windows"),
        counted(encoded.inside_tokens as u64, "answer", "answers")
    ));
    Ok(encoded)
}

/// Returns the answer's text; empty where the context has none, or where "no answer" has the higher score and is allowed.
fn text(answers: &Answers, may_be_none: bool) -> &str {
    match answers.best.first() {
        Some(best) if !may_be_none || best.score >= answers.none_score => &best.text,
        _ => "",
    }
}

fn right(row: &QuestionRow) -> Vec<&str> {
    row.answers.iter().map(|answer| &answer.text[..]).collect()
}
