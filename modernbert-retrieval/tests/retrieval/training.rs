//! Training: cached gradients, resuming, folders that are written.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use modernbert::config::Pooling;
use modernbert::model::ModernBert;
use modernbert::sentences::{MultiVectorSettings, Similarity};
use modernbert::{Encoder, Loader};
use modernbert_retrieval::train::losses::{Definition, Distillation, Loss, Objective};
use modernbert_retrieval::train::{
    ContrastiveBatch, Embedder, Role, StepOptions, TextOptions, TokenizedText, TrainOptions,
    TrainRows, Training, VectorKind, encode, gradients, kind_of_folder,
};
use tempfile::TempDir;
use test_support::{assert_close, wide};

use crate::files::assert_says;

pub(crate) fn single(pooling: Pooling) -> VectorKind {
    VectorKind::Single {
        pooling,
        normalize: true,
        max_length: 32,
        query_prompt: "one ".to_string(),
        document_prompt: String::new(),
    }
}

pub(crate) fn per_token() -> VectorKind {
    VectorKind::PerToken(MultiVectorSettings {
        query_prefix: "[unused0]".to_string(),
        document_prefix: "[unused1]".to_string(),
        query_length: 8,
        document_length: 16,
        attend_to_expansion: true,
        skip_list: vec!["t".to_string()],
        ..MultiVectorSettings::default()
    })
}

/// A folder with an encoder of random weights.
fn encoder() -> TempDir {
    tiny_models::folder(&tiny_models::config(), ModernBert::new)
}

fn loaded(folder: &TempDir, kind: &VectorKind) -> (Embedder, TextOptions) {
    let loader = Loader::new(folder.path()).device("flex");
    let (model, _) = Embedder::load(loader, kind, 5).unwrap();
    let texts = TextOptions::new(tiny_models::tokenizer(), kind.clone(), 64).unwrap();
    (model, texts)
}

const TEXTS: [&str; 8] = [
    "one two",
    "three",
    "two two three one",
    "one",
    "three three two",
    "two one one",
    "three one two one two",
    "one three one three",
];

/// Values of every parameter's gradient, in the module's order.
fn values(model: &Embedder, gradients: &GradientsParams) -> Vec<(String, Vec<f32>)> {
    struct Collect<'a>(&'a GradientsParams, Vec<String>, Vec<(String, Vec<f32>)>);
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.1.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id).unwrap();
            let values = gradient.into_data().try_to_vec().unwrap();
            self.2.push((self.1.join("."), values));
        }
    }
    let mut collect = Collect(gradients, Vec::new(), Vec::new());
    model.visit(&mut collect);
    collect.2
}

/// The gradients of a batch in chunks are those of a single pass, with dropout off and for every kind of model and loss.
#[test]
fn cached_gradients_equal_those_of_a_single_pass() {
    let folder = encoder();
    let teacher: Vec<f32> = (0..6).map(|i| 0.3 * i as f32 - 0.2).collect();
    let in_batch = Loss::in_batch();
    let matryoshka = Loss {
        dimensions: vec![32, 16, 8],
        ..Loss::in_batch()
    };
    let distillation = Loss {
        objective: Objective::Distillation(Distillation {
            definition: Definition::MinMax,
        }),
        ..Loss::in_batch()
    };
    for (kind, loss) in [
        (single(Pooling::Mean), &in_batch),
        (single(Pooling::Cls), &matryoshka),
        (single(Pooling::WeightedMean), &distillation),
        (per_token(), &in_batch),
        (per_token(), &distillation),
    ] {
        let (model, texts) = loaded(&folder, &kind);
        let device = modernbert::device::select(Some("flex")).unwrap().device;
        let model = model.train().fork(&device.autodiff());
        let tokens: Vec<TokenizedText> = TEXTS
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let role = if i < 2 { Role::Query } else { Role::Document };
                texts.tokenize(text, role).unwrap()
            })
            .collect();
        let batch = ContrastiveBatch {
            texts: tokens.iter().collect(),
            rows: 2,
            ways: 3,
            teacher: match loss.needs_scores() {
                true => teacher.clone(),
                false => Vec::new(),
            },
            dropout_key: (1, 2),
        };
        let with = |token_budget, query_chunk| {
            let options = StepOptions {
                token_budget,
                query_chunk,
            };
            let (loss, found) = gradients(&model, &kind, loss, &batch, options, 0.5).unwrap();
            let loss: Vec<f32> = loss.into_data().try_to_vec().unwrap();
            (loss[0], values(&model, &found))
        };
        let (loss, expected) = with(10_000, None);
        assert!(loss.is_finite() && loss > 0.0);
        for (budget, rows) in [(1, Some(1)), (12, Some(1)), (20, None)] {
            let (cached, found) = with(budget, rows);
            assert_close(&[cached], &[f64::from(loss)], 2e-6, "loss");
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let what = format!("{kind:?}: {name}");
                assert_close(found, &wide(expected), 1e-5, &what);
            }
        }
    }
}

#[test]
fn a_saved_model_has_the_same_vectors_when_it_is_read() {
    let folder = encoder();
    for pooling in [
        Pooling::Cls,
        Pooling::Mean,
        Pooling::Max,
        Pooling::WeightedMean,
    ] {
        let kind = single(pooling);
        let (model, texts) = loaded(&folder, &kind);
        let saved = tempfile::tempdir().unwrap();
        let config = model.model.config().clone();
        let tokenizer = tiny_models::tokenizer();
        model
            .save(saved.path(), &config, &tokenizer, &kind, Similarity::Cosine)
            .unwrap();
        assert_eq!(
            kind_of_folder(saved.path(), 64).unwrap(),
            Some(kind.clone())
        );
        let tokens = texts.tokenize_all(&TEXTS, Role::Document).unwrap();
        let found = encode(&model, &kind, &tokens).unwrap();
        // `embed` uses this encoder.
        let encoder = Encoder::load(Loader::new(saved.path()).device("flex")).unwrap();
        let expected = encoder.encode(&TEXTS).unwrap();
        assert_eq!(found.offsets.len(), TEXTS.len() + 1);
        for (row, expected) in found.values.chunks(found.dimension).zip(expected) {
            assert_close(row, &wide(&expected.values), 1e-6, "vector");
        }
    }
}

#[test]
fn a_saved_model_with_a_vector_per_token_is_read_back() {
    let folder = encoder();
    let kind = per_token();
    let (model, texts) = loaded(&folder, &kind);
    let saved = tempfile::tempdir().unwrap();
    let config = model.model.config().clone();
    let tokenizer = tiny_models::tokenizer();
    model
        .save(saved.path(), &config, &tokenizer, &kind, Similarity::Cosine)
        .unwrap();
    assert_eq!(
        kind_of_folder(saved.path(), 64).unwrap(),
        Some(kind.clone())
    );
    let loader = Loader::new(saved.path()).device("flex");
    // Another seed: nothing may be initialized.
    let (again, fresh) = Embedder::load(loader, &kind, 99).unwrap();
    assert!(!fresh);
    let tokens = texts.tokenize_all(&TEXTS, Role::Document).unwrap();
    let vectors = encode(&model, &kind, &tokens).unwrap();
    assert_eq!(vectors.dimension, 128);
    assert_eq!(encode(&again, &kind, &tokens).unwrap(), vectors);
    for token in vectors.values.chunks(128) {
        let norm: f64 = wide(token).iter().map(|x| x * x).sum::<f64>();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
}

#[test]
fn queries_are_expanded_and_tokens_of_the_skip_list_do_not_count() {
    let (_, texts) = loaded(&encoder(), &per_token());
    let tokenizer = tiny_models::tokenizer();
    let [query, document] = ["[unused0]", "[unused1]"].map(|name| tokenizer.id(name).unwrap());
    let special = tokenizer.special();
    let found = texts.tokenize("one", Role::Query).unwrap();
    assert_eq!(found.ids.len(), 8);
    assert_eq!(found.ids[..2], [special.cls, query]);
    assert_eq!(found.ids[7], special.mask);
    assert!(found.counts.iter().all(|&counts| counts));
    let t = tokenizer.id("t").unwrap();
    let found = texts.tokenize("t one t", Role::Document).unwrap();
    assert_eq!(found.ids[1], document);
    for (id, counts) in found.ids.iter().zip(&found.counts) {
        assert_eq!(*counts, *id != t);
    }
    assert!(found.counts.iter().any(|&counts| !counts));
    let long = "one ".repeat(100);
    for (role, length) in [(Role::Query, 8), (Role::Document, 16)] {
        let found = texts.tokenize(&long, role).unwrap();
        assert_eq!(found.ids.len(), length);
        assert!(found.truncated);
    }
    let refused = |settings: MultiVectorSettings| {
        let kind = VectorKind::PerToken(settings);
        let error = TextOptions::new(tokenizer.clone(), kind, 64).unwrap_err();
        error.to_string()
    };
    let VectorKind::PerToken(settings) = per_token() else {
        panic!("a vector per token")
    };
    let long = MultiVectorSettings {
        document_length: 180,
        ..settings
    };
    assert_says(
        &refused(long),
        &["the longest document is 180 tokens", "64"],
    );
    assert_says(
        &refused(MultiVectorSettings::default()),
        &["\"[Q] \"", "[unused0]"],
    );
}

/// The start of a run: a model of random weights that is loaded without its projection.
#[test]
fn a_new_projection_depends_on_the_seed_alone() {
    let folder = encoder();
    let load = |seed| {
        let loader = Loader::new(folder.path()).device("flex");
        let (model, fresh) = Embedder::load(loader, &per_token(), seed).unwrap();
        assert!(fresh);
        let weight = model.dense.unwrap().weight.val();
        let values: Vec<f32> = weight.into_data().try_to_vec().unwrap();
        values
    };
    let values = load(1);
    assert_eq!(values, load(1));
    assert_ne!(values, load(2));
    let bound = 1.0 / (32f32).sqrt();
    assert!(values.iter().all(|x| x.abs() <= bound));
}

#[test]
fn rows_that_the_loss_cannot_learn_from_are_an_error() {
    let folder = encoder();
    let kind = single(Pooling::Mean);
    let refused = |rows: TrainRows, objective: Objective| {
        let (model, texts) = loaded(&folder, &kind);
        let options = TrainOptions {
            loss: Loss {
                objective,
                ..Loss::in_batch()
            },
            batch: 1,
            ..TrainOptions::default()
        };
        let training = Training::new(rows, Vec::new(), options);
        training.run(model, &texts).unwrap_err().to_string()
    };
    let pairs = TrainRows::of([("one", vec!["two"]), ("three", vec!["two two"])]);
    assert_says(
        &refused(pairs.clone(), Objective::Mse),
        &["the training data", "no scores"],
    );
    let mut scored = pairs;
    for row in &mut scored.rows {
        row.scores = vec![1.0];
    }
    assert_says(
        &refused(scored, Objective::MarginMse),
        &["1 document", "at least 2 documents"],
    );
    let none = refused(TrainRows::default(), Objective::Mse);
    assert_says(&none, &["no rows"]);
}
