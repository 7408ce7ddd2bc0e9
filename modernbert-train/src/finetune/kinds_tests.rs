//! Every kind of finetuning: its loss, its shares of a step, its sequences, resuming.
#![allow(clippy::unwrap_used)]
use super::table::{ChoiceFile, LabelSet, QuestionFile, TaggedFile};
use super::task::{FinetuneTask, TaskHistory, dev_loss};
use super::*;
use crate::engine::{Progress, Task};
use crate::saving::Saving;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::model::{
    Architecture, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier, initialize,
};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn config() -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(1, 16, 24, 2);
    config.vocab_size = 384;
    config.pad_token_id = None;
    config.initializer_range = 0.2;
    config
}

fn tokenizer() -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 320,
        ..TrainOptions::default()
    };
    train(["one two three one two one two three"], &options).unwrap()
}

fn file(name: &str, content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn ids(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32)
        .map(|i| (7 * seed + 3 * i) % 300)
        .collect()
}

fn tagged() -> Vec<TaggedSample> {
    (0..12)
        .map(|i| {
            let length = 2 + i as usize * 5 % 7;
            let tag = |at: usize| (at > 0 && at % 3 != 2).then_some((i + at as u32) % 3);
            TaggedSample {
                ids: ids(i, length),
                tags: (0..length).map(tag).collect(),
                cut: Vec::new(),
            }
        })
        .collect()
}

fn spans() -> Vec<SpanSample> {
    let sample = |i: u32| SpanSample {
        ids: ids(i, 4 + i as usize % 5),
        second: 9,
        start: i % 3,
        end: i % 3 + i % 2,
    };
    (0..12).map(sample).collect()
}

fn choices() -> Vec<ChoiceSample> {
    let sample = |i: u32| ChoiceSample {
        sequences: (0..3)
            .map(|c| ids(i + c, 2 + (i + c) as usize % 4))
            .collect(),
        seconds: vec![9; 3],
        label: i % 3,
    };
    (0..12).map(sample).collect()
}

fn several() -> Vec<Sample> {
    let sample = |i: u32| Sample {
        ids: ids(i, 2 + i as usize % 5),
        second: 9,
        target: Target::Labels((0..3).filter(|label| (i >> label) & 1 == 1).collect()),
    };
    (0..12).map(sample).collect()
}

/// The device's loss of all examples is the one computed in f64 from the outputs; a batch in micro-batches has the gradients of the whole.
fn holds<E: Example>(build: impl Fn(&ModernBertConfig, &Device) -> E::Model, examples: Vec<E>) {
    let device = test_support::autodiff_device();
    let model = initialize(build(&config(), &device), &config(), 3);
    let rows: Vec<&[u32]> = examples.iter().flat_map(E::sequences).collect();
    let batch = PackedBatch::from_sequences(&rows, &device).unwrap();
    let loss = E::loss(&model, &batch, &examples);
    let found = f64::from(loss.clone().into_scalar::<f32>());
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let valid = model.clone().valid();
    let outputs = predict_examples(&valid, &examples).unwrap();
    for (example, outputs) in examples.iter().zip(&outputs) {
        assert_eq!(outputs.len(), example.width(E::outputs(&valid)));
        assert_eq!(
            example.mismatch_reason(&examples[0], E::outputs(&valid)),
            None
        );
    }
    let expected = dev_loss(&examples, &outputs).unwrap();
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");

    let count = examples.len();
    let mut cut = Batches::new(examples.clone(), count, 3, 1);
    let mut task = FinetuneTask {
        batches: Batches::new(examples.clone(), count, 3, 1),
        rates: modernbert::batch::DropoutRates::default(),
        config: model.encoder().config().clone(),
        dev: examples,
        score: Box::new(|_| Ok(DevScore::default())),
        clock: None,
        folder: None,
        history: TaskHistory::default(),
        latest: Vec::new(),
    };
    let parts = cut.after(0);
    assert_eq!(parts.len(), 3);
    let step = task.next_step(&Default::default(), 0).unwrap().unwrap();
    let (sums, micro) = task.step(&model, step);
    let sum: f64 = sums
        .into_iter()
        .map(|sum| f64::from(sum.loss.into_scalar::<f32>()))
        .sum();
    assert!((sum - expected).abs() < 1e-5, "{sum} {expected}");
    let (whole, micro) = (values(&model, &gradients), values(&model, &micro));
    let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    assert!(largest > 1e-3 && whole.len() == micro.len());
    for (a, b) in whole.iter().zip(&micro) {
        assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
    }
}

/// The gradients of all parameters, in the module's order; each parameter has one.
fn values<M: Module>(model: &M, gradients: &GradientsParams) -> Vec<f32> {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id).unwrap();
            self.1
                .extend(gradient.into_data().try_to_vec::<f32>().unwrap());
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    collect.1
}

#[test]
fn losses_and_shares_of_every_kind_hold() {
    holds(|c, d| TokenClassifier::new(c, 3, d).unwrap(), tagged());
    holds(|c, d| QuestionAnswerer::new(c, d).unwrap(), spans());
    holds(|c, d| MultipleChoice::new(c, d).unwrap(), choices());
    holds(|c, d| SequenceClassifier::new(c, 3, d).unwrap(), several());
}

#[test]
fn targets_that_do_not_fit_are_named() {
    let mut tags = tagged();
    assert!(tags[1].mismatch_reason(&tags[0], 2).is_some());
    tags[0].tags.pop();
    assert!(
        tags[0]
            .mismatch_reason(&tags[1], 3)
            .unwrap()
            .contains("1 tags for 2 tokens")
    );
    let span = SpanSample {
        ids: vec![1, 2],
        second: 2,
        start: 1,
        end: 2,
    };
    assert!(
        span.mismatch_reason(&span, 2)
            .unwrap()
            .contains("window of 2 tokens")
    );
    let mut choice = choices().remove(0);
    choice.label = 3;
    assert!(
        choice
            .mismatch_reason(&choices()[0], 1)
            .unwrap()
            .contains("label 3 of 3")
    );
    choice.sequences.pop();
    assert!(
        choice
            .mismatch_reason(&choices()[0], 1)
            .unwrap()
            .contains("2 choices")
    );
    let several = several();
    assert!(
        several[4]
            .mismatch_reason(&several[0], 2)
            .unwrap()
            .contains("label 2")
    );
    let class = Sample {
        ids: vec![1],
        second: 1,
        target: Target::Class(0),
    };
    assert!(class.mismatch_reason(&several[0], 2).is_some());
}

#[test]
fn words_have_the_tag_on_their_first_token() {
    let tokenizer = tokenizer();
    let (_place, path) = file("a.conll", "one B-X\nzebra I-X\n\ntwo O\n");
    let tagged = TaggedFile::read(&path).unwrap();
    let set = tagged.tag_set().unwrap();
    let encoded = encode_tags(&tokenizer, &tagged, &set, 64).unwrap();
    let zebra = tokenizer.encode_plain(" zebra").unwrap().len();
    assert!(zebra > 1);
    let mut tags = vec![None, Some(1), Some(2)];
    tags.resize(3 + zebra, None);
    assert_eq!(encoded.samples[0].tags, tags);
    assert_eq!(encoded.samples[0].targets(), 2);
    // What doesn't fit is no part of the loss, and predicted to be outside.
    let short = encode_tags(&tokenizer, &tagged, &set, 3).unwrap();
    assert_eq!((short.truncated, &short.samples[0].cut[..]), (1, &[2][..]));
    assert_eq!(short.samples[0].truth(), [1, 2]);
    assert_eq!(short.samples[0].predicted(&[0.0, 9.0, 0.0], 3), [1, 0]);
    // A row whose last word loses only later tokens is truncated too.
    let part = encode_tags(&tokenizer, &tagged, &set, 4).unwrap();
    assert_eq!((part.truncated, part.samples[0].cut.len()), (1, 0));
    // A tag of the dev file that the training file doesn't have.
    let (_other, path) = file("d.conll", "one O\ntwo B-Y\n");
    let dev = TaggedFile::read(&path).unwrap();
    let message = encode_tags(&tokenizer, &dev, &set, 64)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("d.conll:1") && message.contains("B-Y"),
        "{message}"
    );
}

/// Each word is encoded with a space before it, the first one too: without the space its first id is another.
#[test]
fn words_are_encoded_with_a_space_before_them() {
    let tokenizer = tokenizer();
    let (_place, path) = file("a.conll", "one B-X\ntwo O\n");
    let tagged = TaggedFile::read(&path).unwrap();
    let set = tagged.tag_set().unwrap();
    let encoded = encode_tags(&tokenizer, &tagged, &set, 64).unwrap();
    let special = tokenizer.special();
    let with_spaces = ["", " one", " two"].map(|word| tokenizer.encode_plain(word).unwrap());
    let expected = [&[special.cls][..], &with_spaces.concat(), &[special.sep]].concat();
    assert_eq!(encoded.samples[0].ids, expected);
    let without = tokenizer.encode_plain("one").unwrap();
    assert_ne!(expected[1], without[0]);
}

#[test]
fn texts_have_a_tag_on_every_token_of_a_span() {
    let tokenizer = tokenizer();
    let row = "{\"text\":\"né one two. three\",\"spans\":[{\"start\":3,\"end\":10,\"label\":\"X\"},{\"start\":13,\"end\":15,\"label\":\"Y\"}]}\n";
    let (_place, path) = file("a.jsonl", row);
    let tagged = TaggedFile::read(&path).unwrap();
    let set = tagged.tag_set().unwrap();
    assert_eq!(set.names(), ["O", "B-X", "B-Y", "I-X", "I-Y"]);
    let encoded = encode_tags(&tokenizer, &tagged, &set, 64).unwrap();
    let sample = &encoded.samples[0];
    assert_eq!(sample.targets(), sample.ids.len() - 2);
    let names: Vec<&str> = sample
        .truth()
        .iter()
        .map(|&tag| set.names()[tag as usize].as_str())
        .collect();
    let text = |tag: &str| -> String {
        let found = sample.ids[1..].iter().zip(&names);
        found
            .filter(|(_, name)| name.ends_with(tag))
            .map(|(&id, _)| tokenizer.token(id).unwrap())
            .collect()
    };
    assert_eq!(text("-X").trim(), "one two");
    assert_eq!(names.iter().filter(|name| **name == "B-X").count(), 1);
    // Only " three" as a whole is a token: the span inside of it takes all of it, and is counted.
    assert_eq!((text("-Y").trim(), encoded.inside_tokens), ("three", 1));
}

#[test]
fn windows_point_to_the_answer_or_to_none() {
    let tokenizer = tokenizer();
    let context = "one ".repeat(20) + "né two three. " + &"one ".repeat(20);
    let start = context.chars().position(|c| c == 'w').unwrap() - 1;
    let row = format!(
        "{{\"question\":\"two\",\"context\":{context:?},\"answers\":[{{\"text\":\"two three\",\"answer_start\":{start}}}]}}\n{{\"question\":\"two\",\"context\":\"one\",\"answers\":[]}}\n"
    );
    let (_place, path) = file("a.jsonl", &row);
    let questions = QuestionFile::read(&path).unwrap();
    let encoded = encode_questions(&tokenizer, &questions, 24, 8).unwrap();
    assert_eq!(encoded.inside_tokens, 0);
    let windows = encoded.questions[0].windows();
    assert!(windows.len() > 3);
    let mut found = 0;
    for (window, sample) in windows.iter().zip(&encoded.samples) {
        assert!(sample.ids.len() <= 24);
        if sample.start > 0 {
            found += 1;
            assert!(sample.start as usize >= window.first);
            let ids = &sample.ids[sample.start as usize..=sample.end as usize];
            assert_eq!(tokenizer.decode(ids).unwrap().trim(), "two three");
        } else {
            assert_eq!(sample.end, 0);
        }
    }
    assert!(found >= 1 && found < windows.len());
    assert_eq!(
        encoded.samples.last().map(|s| (s.start, s.end)),
        Some((0, 0))
    );

    // Perfect scores give the answer back; those of `[CLS]` win where no window holds it.
    let outputs: Vec<Vec<f32>> = encoded
        .samples
        .iter()
        .map(|sample| {
            let mut values = vec![0.0; 2 * sample.ids.len()];
            values[sample.start as usize] = 9.0;
            values[sample.ids.len() + sample.end as usize] = 9.0;
            values
        })
        .collect();
    let answers = encoded.answers(&questions, &outputs, &Default::default());
    assert_eq!(answers[0].best[0].text, "two three");
    assert_eq!(answers[0].best[0].start, start);
    assert!(answers[0].best[0].score > answers[0].none_score);
    assert!(answers[1].none_score > answers[1].best[0].score);
    let message = encode_questions(&tokenizer, &questions, 5, 2).unwrap_err();
    assert!(message.to_string().contains("a.jsonl:1"), "{message}");
}

#[test]
fn choices_are_pairs_with_their_question() {
    let tokenizer = tokenizer();
    let row = "{\"prompt\":\"one\",\"choices\":[\"two\",\"three three three\"],\"label\":1}\n";
    let (_place, path) = file("a.jsonl", row);
    let file = ChoiceFile::read(&path).unwrap();
    let encoded = encode_choices(&tokenizer, &file, 64).unwrap();
    let pair = tokenizer.encode_pair("one", "two").unwrap();
    assert_eq!(
        (encoded.samples[0].sequences[0].clone(), encoded.truncated),
        (pair, 0)
    );
    assert_eq!(encode_choices(&tokenizer, &file, 5).unwrap().truncated, 1);
}

/// A run of tagging, saved every third step; `stop_at` interrupts it in that evaluation.
fn tagging(folder: &Path, resume: bool, stop_at: Option<usize>) -> Finetuned<TokenClassifier> {
    let interrupter = burn::train::Interrupter::new();
    let (stop, mut calls) = (interrupter.clone(), 0);
    let score = move |outputs: &[Vec<f32>]| {
        calls += 1;
        if Some(calls) == stop_at {
            stop.stop(None);
        }
        Ok(DevScore::of("first", f64::from(outputs[0][0])))
    };
    let options = FinetuneOptions {
        epochs: 4,
        batch_size: 3,
        micro_batches: 2,
        learning_rate: 1e-2,
        evaluate_every: Some(2),
        ..FinetuneOptions::default()
    };
    let mut run = Finetuning::new(tagged(), tagged(), options, score);
    run.progress = Progress::Silent;
    run.interrupter = interrupter;
    run.saving = Some(Saving {
        every_steps: Some(3),
        resume,
        identity: "tags".to_string(),
        ..Saving::new(folder)
    });
    let model = TokenClassifier::new(&config(), 3, &test_support::device()).unwrap();
    run.run(initialize(model, &config(), 1)).unwrap()
}

#[test]
fn an_interrupted_tagger_goes_on_bit_for_bit() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = tagging(one.path(), false, None);
    let half = tagging(two.path(), false, Some(3));
    assert_eq!(half.interrupted.map(|at| at.step), Some(6));
    let end = tagging(two.path(), true, None);
    assert_eq!(
        (end.losses, end.evaluations),
        (whole.losses, whole.evaluations)
    );
    assert_eq!((end.best, end.outputs), (whole.best, whole.outputs));
    let found = crate::tools::diff(one.path(), two.path()).unwrap();
    assert!(
        found.identical() && found.weights > 0,
        "{:?}",
        found.differences
    );
}

#[test]
fn a_set_of_tags_begins_with_outside() {
    let (_place, path) = file("a.conll", "a I-A\nb O\nc B-A\n");
    let set: LabelSet = TaggedFile::read(&path).unwrap().tag_set().unwrap();
    assert_eq!(set.names(), ["O", "B-A", "I-A"]);
}
