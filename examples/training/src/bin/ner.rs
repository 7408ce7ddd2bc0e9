//! Named entities: trains a tagger on a CoNLL file, prints F1 of each kind of entity on a second one, and tags a sentence. The source is
//! short, to be read and copied; the program `finetune --task tag` adds checkpoints, resuming and a folder of the model.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin ner -- MODEL train.conll dev.conll "Ada Lovelace lived in London ."
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::inference::TagScheme;
use modernbert::model::TokenClassifier;
use modernbert::tokenizer::Tokenizer;
use modernbert::{BatchOptions, HeadStart, Loader, Tagger};
use modernbert_cli::{DeviceArgs, main_with, say};
use modernbert_train::finetune::metrics::{Matching, SpanScores};
use modernbert_train::finetune::table::TaggedFile;
use modernbert_train::finetune::{DevScore, FinetuneOptions, Finetuning, encode_tags};
use std::path::PathBuf;

/// Trains a tagger of named entities on a CoNLL file and scores it on another one.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Starts from this model: a folder, or a name on the Hugging Face Hub.
    model: String,
    /// Trains on the sentences of this file: one word and its tag per line (CoNLL), or JSON lines.
    train: PathBuf,
    /// Scores on the sentences of this file.
    dev: PathBuf,
    /// Tags this sentence after training, its words separated by spaces.
    sentence: Option<String>,
    /// Trains for this many passes over the sentences.
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// Uses this peak learning rate.
    #[arg(long, default_value_t = 1e-4)]
    learning_rate: f64,
    #[command(flatten)]
    device: DeviceArgs,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&modernbert_cli::parse::<Args>()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (train, dev) = (TaggedFile::read(&args.train)?, TaggedFile::read(&args.dev)?);
    dev.check_scored()?;
    let tags = train.tag_set()?;
    let names = tags.names().to_vec();

    let loader = Loader::from(&args.model).device(&args.device.select_for_training()?.device);
    let tokenizer = Tokenizer::from_folder(loader.folder()?)?;
    let start = HeadStart::Fresh;
    let (model, _) = TokenClassifier::load_for_finetuning(loader, names.len(), start, 1618)?;
    let limit = model.model.config().max_position_embeddings.min(256);
    let train = encode_tags(&tokenizer, &train, &tags, limit)?.samples;
    let dev = encode_tags(&tokenizer, &dev, &tags, limit)?.samples;

    // Outputs of the dev sentences to spans, true and predicted ones.
    let scheme = TagScheme::of(&names);
    let (sentences, tags) = (dev.clone(), names.clone());
    let spans = move |outputs: &[Vec<f32>]| {
        let named = |classes: Vec<u32>| classes.into_iter().map(|tag| tags[tag as usize].as_str());
        let mut scores = SpanScores::default();
        for (sentence, outputs) in sentences.iter().zip(outputs) {
            let predicted = sentence.predicted(outputs, tags.len());
            let truth = named(sentence.truth());
            scores.add(&scheme, Matching::Lenient, truth, named(predicted));
        }
        scores
    };
    let score = spans.clone();
    let options = FinetuneOptions {
        epochs: args.epochs,
        learning_rate: args.learning_rate,
        label: "ner".to_string(),
        ..FinetuneOptions::default()
    };
    let finetuned = Finetuning::new(train, dev, options, move |outputs: &[Vec<f32>]| {
        let total = score(outputs).total();
        Ok(DevScore {
            main: total.f1(),
            metrics: vec![("f1".to_string(), total.f1())],
        })
    })
    .run(model)?;
    say(&spans(&finetuned.outputs).table().to_string());

    // A pipeline is made from the model in memory, without saving it.
    let tagger = Tagger::new(finetuned.model, tokenizer, BatchOptions::default())?;
    let tagger = tagger.with_prefix_space(true);
    if let Some(sentence) = &args.sentence {
        let words: Vec<&str> = sentence.split_whitespace().collect();
        let tagged = tagger.tag_words(std::slice::from_ref(&words))?;
        for (word, tag) in words.iter().zip(&tagged[0].tags) {
            let name = tag.as_ref().map_or("-", |tag| names[tag.label].as_str());
            say(&format!("  {word}  {name}"));
        }
    }
    Ok(())
}
