//! Texts to classes.

use modernbert::Loader;
use modernbert::checkpoint::save;
use modernbert::config::ProblemType;
use modernbert::inference::{BatchOptions, InferenceError, Input, TextClassifier};
use modernbert::model::{ModernBert, SequenceClassifier};

use crate::model::{TEXTS, config, randomize, tokenizer};
use test_support::{assert_close, device, read, wide};

fn inputs() -> Vec<Input<'static>> {
    TEXTS.iter().map(|&text| text.into()).collect()
}

#[test]
fn a_saved_classifier_gives_its_labels_and_probabilities_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.id2label = Some(vec!["bad".into(), "good".into(), "odd".into()]);
    config.num_labels = Some(3);
    let model = randomize(SequenceClassifier::new(&config, 3, &device()).unwrap());
    save(&model, &config, folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    let load = |batch_tokens| {
        let loader = Loader::new(folder.path()).device(device());
        TextClassifier::load(loader.batch_tokens(batch_tokens)).unwrap()
    };
    let classifier = load(8192);
    assert_eq!(classifier.labels(), ["bad", "good", "odd"]);
    assert_eq!(classifier.problem_type(), ProblemType::SingleLabel);
    let found = classifier.classify(&inputs()).unwrap();
    for (found, text) in found.iter().zip(TEXTS) {
        let ids = tokenizer().encode(text).unwrap();
        let batch = modernbert::batch::PackedBatch::from_sequences(&[ids], &device()).unwrap();
        let logits = wide(&read(model.logits(&batch)));
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let expected: Vec<f64> = logits.iter().map(|x| x.exp() / sum).collect();
        assert_close(&found.scores, &expected, 1e-5, text);
        let ranking = found.ranking();
        assert!(
            ranking
                .windows(2)
                .all(|w| found.scores[w[0]] >= found.scores[w[1]])
        );
    }
    let other = load(9).classify(&inputs()).unwrap();
    for (found, expected) in other.iter().zip(&found) {
        assert_close(
            &found.scores,
            &wide(&expected.scores),
            1e-5,
            "another batch size",
        );
    }
    let stream = classifier.stream(inputs().into_iter().map(Ok::<_, InferenceError>), |_| {});
    let streamed: Vec<_> = stream.map(Result::unwrap).collect();
    assert_eq!(streamed, found);
}

/// A pair's scores are those of the head on `[CLS] A [SEP] B [SEP]`, in the order of the two texts.
#[test]
fn a_pair_is_scored_as_one_sequence_of_both_texts() {
    let model = randomize(SequenceClassifier::new(&config(), 3, &device()).unwrap());
    let classifier =
        TextClassifier::new(model.clone(), tokenizer(), BatchOptions::default()).unwrap();
    let pairs = [("one two", "three"), ("three", "one two"), ("two", "")];
    let found = classifier.classify(&pairs).unwrap();
    for (found, (first, second)) in found.iter().zip(pairs) {
        let special = tokenizer().special();
        let plain = |text: &str| tokenizer().encode_plain(text).unwrap();
        let ids = [
            &[special.cls][..],
            &plain(first),
            &[special.sep],
            &plain(second),
            &[special.sep],
        ]
        .concat();
        assert_eq!(ids, tokenizer().encode_pair(first, second).unwrap());
        let batch = modernbert::batch::PackedBatch::from_sequences(&[ids], &device()).unwrap();
        let logits = wide(&read(model.logits(&batch)));
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let expected: Vec<f64> = logits.iter().map(|x| x.exp() / sum).collect();
        assert_close(&found.scores, &expected, 1e-5, first);
    }
    assert_ne!(found[0].scores, found[1].scores);
    let alone = classifier.classify(&["one two"]).unwrap();
    assert_ne!(found[0].scores, alone[0].scores);
}

#[test]
fn one_output_is_a_score_and_unnamed_labels_are_numbered() {
    let build = |outputs: usize, problem| {
        let mut config = config();
        config.problem_type = problem;
        let model = SequenceClassifier::new(&config, outputs, &device()).unwrap();
        TextClassifier::new(randomize(model), tokenizer(), BatchOptions::default()).unwrap()
    };
    assert_eq!(build(1, None).problem_type(), ProblemType::Regression);
    // One class can't exclude others: a softmax over it would always be 1.
    let single = build(1, Some(ProblemType::SingleLabel));
    let scores = &single.classify(&["one", "two"]).unwrap();
    assert!(
        scores
            .iter()
            .all(|p| p.scores[0] > 0.0 && p.scores[0] < 1.0)
    );
    assert_ne!(scores[0].scores, scores[1].scores);
    let multi = build(2, Some(ProblemType::MultiLabel));
    assert_eq!(multi.labels(), ["LABEL_0", "LABEL_1"]);
    let scores = &multi.classify(&["one"]).unwrap()[0].scores;
    assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "{scores:?}");
}

#[test]
fn a_model_without_classifier_and_too_few_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = ModernBert::new(&config(), &device()).unwrap();
    save(&encoder, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    let load = || {
        let loader = Loader::new(folder.path()).device(device());
        TextClassifier::load(loader).unwrap_err().to_string()
    };
    assert!(
        load().contains("`classifier.weight` is missing"),
        "{}",
        load()
    );

    let mut config = config();
    config.id2label = Some(vec!["a".into(), "b".into()]);
    let model = SequenceClassifier::new(&config, 3, &device()).unwrap();
    save(&model, &config, folder.path()).unwrap();
    assert!(
        load().contains("`classifier.weight` has 3 outputs and config.json 2 labels"),
        "{}",
        load()
    );
}
