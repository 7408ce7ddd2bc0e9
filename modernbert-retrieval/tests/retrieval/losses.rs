//! Losses and their gradients: against the libraries that define them, and against formulas in f64.

use burn::tensor::{Device, Tensor, TensorData};
use modernbert_retrieval::maxsim::Masked;
use modernbert_retrieval::train::TextVectors;
use modernbert_retrieval::train::losses::{
    BatchVectors, Definition, Direction, Distillation, Hardness, HardnessMode, InBatch, Loss,
    LossSimilarity, Objective, Partition,
};
use serde_json::Value;
use test_support::{assert_close, normals, wide};

/// Vectors of texts on the host: `[texts][tokens][dimension]`, with a flag for each token.
#[derive(Clone)]
struct Texts {
    dimension: usize,
    values: Vec<f32>,
    offsets: Vec<usize>,
    counts: Option<Vec<bool>>,
}

impl Texts {
    fn single(values: Vec<f32>, dimension: usize) -> Self {
        let texts = values.len() / dimension;
        Self {
            dimension,
            values,
            offsets: (0..=texts).collect(),
            counts: None,
        }
    }

    fn on(&self, device: &Device) -> TextVectors {
        let shape = [self.values.len() / self.dimension, self.dimension];
        let values = Tensor::from_data(TensorData::new(self.values.clone(), shape), device);
        TextVectors {
            values: values.require_grad(),
            offsets: self.offsets.clone(),
            counts: self.counts.clone(),
        }
    }
}

struct Case {
    queries: Texts,
    documents: Texts,
    ways: usize,
    teacher: Vec<f32>,
}

impl Case {
    /// Loss and gradients of queries and documents; the loss of `step` queries at a time.
    fn compute(&self, loss: &Loss, step: usize) -> (f32, Vec<f32>, Vec<f32>) {
        let device = test_support::device().autodiff();
        let (queries, documents) = (self.queries.on(&device), self.documents.on(&device));
        let rows = queries.texts();
        let batch = BatchVectors {
            queries: queries.clone(),
            documents: documents.clone(),
            ways: self.ways,
            teacher: self.teacher.clone(),
        };
        let parts = (0..rows).step_by(step).map(|start| {
            let end = (start + step).min(rows);
            loss.rows(&batch, start..end)
        });
        let total = parts.reduce(|a, b| a + b).unwrap();
        let value: Vec<f32> = total.clone().into_data().try_to_vec().unwrap();
        let gradients = total.backward();
        let read = |texts: &TextVectors| -> Vec<f32> {
            match texts.values.grad(&gradients) {
                Some(gradient) => gradient.into_data().try_to_vec().unwrap(),
                None => vec![0.0; texts.values.dims().iter().product()],
            }
        };
        (value[0], read(&queries), read(&documents))
    }
}

fn in_batch(change: impl FnOnce(&mut InBatch)) -> Loss {
    let mut objective = InBatch::default();
    change(&mut objective);
    Loss {
        objective: Objective::InBatch(objective),
        ..Loss::in_batch()
    }
}

fn objective(objective: Objective, similarity: LossSimilarity) -> Loss {
    Loss {
        objective,
        similarity,
        ..Loss::in_batch()
    }
}

const ALL: [Direction; 4] = [
    Direction::QueryToDocument,
    Direction::QueryToQuery,
    Direction::DocumentToQuery,
    Direction::DocumentToDocument,
];

/// The loss by its name in the fixtures.
fn named(name: &str) -> Loss {
    let hard = |mode| {
        in_batch(|loss| {
            loss.hardness = Some(Hardness {
                mode,
                strength: 9.0,
            });
        })
    };
    match name {
        "in_batch" | "in_batch pairs" => Loss::in_batch(),
        "in_batch scale 1 dot" => Loss {
            similarity: LossSimilarity::Dot,
            ..in_batch(|loss| loss.scale = 1.0)
        },
        "in_batch all directions" => in_batch(|loss| loss.directions = ALL.to_vec()),
        "in_batch symmetric" => in_batch(|loss| {
            loss.directions = vec![Direction::QueryToDocument, Direction::DocumentToQuery];
            loss.partition = Partition::PerDirection;
        }),
        "in_batch in_batch_negatives" => hard(HardnessMode::InBatchNegatives),
        "in_batch hard_negatives" => hard(HardnessMode::HardNegatives),
        "in_batch all_negatives" => hard(HardnessMode::AllNegatives),
        "margin_mse" => objective(Objective::MarginMse, LossSimilarity::Dot),
        "mse" => objective(Objective::Mse, LossSimilarity::Cosine),
        "matryoshka" => Loss {
            dimensions: vec![8, 4, 2],
            ..Loss::in_batch()
        },
        "contrastive" => in_batch(|loss| loss.scale = 1.0),
        "pylate contrastive" => Loss {
            masked: Masked::CountsAsZero,
            ..in_batch(|loss| loss.scale = 1.0)
        },
        "distillation" => distillation(Definition::Temperature {
            student: 2.0,
            teacher: 0.5,
        }),
        "pylate distillation" => Loss {
            masked: Masked::CountsAsZero,
            ..distillation(Definition::MinMax)
        },
        other => panic!("no loss {other}"),
    }
}

fn distillation(definition: Definition) -> Loss {
    objective(
        Objective::Distillation(Distillation { definition }),
        LossSimilarity::Cosine,
    )
}

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../fixtures/losses.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn narrow(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|x| x as f32).collect()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

#[test]
fn losses_of_vectors_equal_sentence_transformers() {
    let fixtures = &fixtures()["single"];
    let dimension = size(&fixtures["dimension"]);
    let columns: Vec<Vec<f32>> = fixtures["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(narrow)
        .collect();
    for case in fixtures["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let ways = match name {
            "in_batch pairs" => 1,
            _ => size(&fixtures["ways"]),
        };
        let own = Case {
            queries: Texts::single(columns[0].clone(), dimension),
            documents: Texts::single(columns[1..=ways].concat(), dimension),
            ways,
            teacher: narrow(&fixtures["teacher"]),
        };
        let gradients: Vec<Vec<f64>> = case["gradients"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .collect();
        for step in [usize::MAX / 2, 1, 2] {
            let (loss, queries, documents) = own.compute(&named(name), step);
            assert_close(&[loss], &[case["loss"].as_f64().unwrap()], 2e-6, name);
            assert_close(&queries, &gradients[0], 1e-5, name);
            assert_close(&documents, &gradients[1..=ways].concat(), 1e-5, name);
        }
    }
}

#[test]
fn losses_of_token_vectors_equal_pylate_and_sentence_transformers() {
    let fixtures = &fixtures()["tokens"];
    let [dimension, rows, ways, longest, query_tokens] =
        ["dimension", "rows", "ways", "longest", "query_tokens"].map(|key| size(&fixtures[key]));
    let all: Vec<Vec<f32>> = fixtures["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(narrow)
        .collect();
    let mut documents = Texts {
        dimension,
        values: Vec::new(),
        offsets: vec![0],
        counts: Some(Vec::new()),
    };
    // The same tokens of a gradient in the fixtures' padded form.
    let mut kept = Vec::new();
    for way in 0..ways {
        for row in 0..rows {
            let length = size(&fixtures["lengths"][way][row]);
            for token in 0..length {
                let at = (row * longest + token) * dimension;
                documents.values.extend(&all[way][at..at + dimension]);
                let skipped = fixtures["skipped"][way][row][token].as_bool().unwrap();
                documents.counts.as_mut().unwrap().push(!skipped);
                kept.extend((at..at + dimension).map(|i| (way, i)));
            }
            documents
                .offsets
                .push(documents.counts.as_ref().unwrap().len());
        }
    }
    let own = Case {
        queries: Texts {
            dimension,
            values: narrow(&fixtures["queries"]),
            offsets: (0..=rows).map(|row| row * query_tokens).collect(),
            counts: Some(vec![true; rows * query_tokens]),
        },
        documents,
        ways,
        teacher: narrow(&fixtures["teacher"]),
    };
    for case in fixtures["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let gradients: Vec<Vec<f64>> = case["gradients"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .collect();
        let expected: Vec<f64> = kept.iter().map(|&(way, i)| gradients[1 + way][i]).collect();
        for step in [rows, 1, 3] {
            let (loss, queries, documents) = own.compute(&named(name), step);
            assert_close(&[loss], &[case["loss"].as_f64().unwrap()], 2e-6, name);
            assert_close(&queries, &gradients[0], 1e-5, name);
            assert_close(&documents, &expected, 1e-5, name);
        }
    }
}

/// Loss of vectors in f64, from its formula.
fn reference(loss: &Loss, case: &Case, queries: &[f64], documents: &[f64]) -> f64 {
    let dimension = case.queries.dimension;
    let parts: Vec<usize> = match loss.dimensions[..] {
        [] => vec![dimension],
        _ => loss.dimensions.clone(),
    };
    let part = |size: usize| -> f64 {
        let vectors = |values: &[f64]| -> Vec<Vec<f64>> {
            let rows = values.chunks(dimension).map(|row| {
                let norm = match loss.similarity {
                    LossSimilarity::Cosine => row[..size].iter().map(|x| x * x).sum::<f64>().sqrt(),
                    LossSimilarity::Dot => 1.0,
                };
                row[..size].iter().map(|x| x / norm).collect()
            });
            rows.collect()
        };
        of_vectors(loss, case, &vectors(queries), &vectors(documents))
    };
    parts.into_iter().map(part).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|x| x.exp()).sum();
    scores.iter().map(|x| x.exp() / sum).collect()
}

fn of_vectors(loss: &Loss, case: &Case, queries: &[Vec<f64>], documents: &[Vec<f64>]) -> f64 {
    let (rows, ways) = (queries.len(), case.ways);
    let teacher = |row: usize| -> Vec<f64> { wide(&case.teacher[row * ways..(row + 1) * ways]) };
    let own = |row: usize| -> Vec<f64> {
        let scores = (0..ways).map(|way| dot(&queries[row], &documents[way * rows + row]));
        scores.collect()
    };
    let of_row = |row: usize| -> f64 {
        match &loss.objective {
            Objective::InBatch(settings) => {
                let direction = |direction: &Direction| -> Vec<f64> {
                    let positive = &documents[row];
                    let other = |i: &usize| i % rows != row;
                    match direction {
                        Direction::QueryToDocument => {
                            documents.iter().map(|d| dot(&queries[row], d)).collect()
                        }
                        Direction::QueryToQuery => (0..rows)
                            .filter(other)
                            .map(|i| dot(&queries[row], &queries[i]))
                            .collect(),
                        Direction::DocumentToQuery => {
                            queries.iter().map(|q| dot(q, positive)).collect()
                        }
                        Direction::DocumentToDocument => (0..documents.len())
                            .filter(other)
                            .map(|i| dot(&documents[i], positive))
                            .collect(),
                    }
                };
                let sums = settings.directions.iter().map(|d| -> f64 {
                    direction(d)
                        .iter()
                        .map(|x| (settings.scale * x).exp())
                        .sum()
                });
                let sums: Vec<f64> = sums.collect();
                let positive = settings.scale * dot(&queries[row], &documents[row]);
                match settings.partition {
                    Partition::Joint => sums.iter().sum::<f64>().ln() - positive,
                    Partition::PerDirection => {
                        sums.iter().map(|sum| sum.ln()).sum::<f64>() / sums.len() as f64 - positive
                    }
                }
            }
            Objective::Distillation(Distillation { definition }) => {
                let scores = own(row);
                let (student, teacher, factor) = match *definition {
                    Definition::MinMax => {
                        let most = scores.iter().copied().fold(f64::MIN, f64::max);
                        let least = scores.iter().copied().fold(f64::MAX, f64::min);
                        let scale = |x: &f64| (x - least) / (most - least + 1e-8);
                        (scores.iter().map(scale).collect(), teacher(row), 1.0)
                    }
                    Definition::Temperature {
                        student,
                        teacher: t,
                    } => {
                        let divided: Vec<f64> = teacher(row).iter().map(|x| x / t).collect();
                        let own: Vec<f64> = scores.iter().map(|x| x / student).collect();
                        (own, divided, student * student)
                    }
                };
                let (p, q) = (softmax(&teacher), softmax(&student));
                factor * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
            }
            Objective::Mse => {
                let squares = own(row)
                    .iter()
                    .zip(teacher(row))
                    .map(|(a, b)| (a - b).powi(2))
                    .sum::<f64>();
                squares / ways as f64
            }
            Objective::MarginMse => {
                let (own, teacher) = (own(row), teacher(row));
                let margin = |k: usize| (own[0] - own[k]) - (teacher[0] - teacher[k]);
                (1..ways).map(|k| margin(k).powi(2)).sum::<f64>() / (ways - 1) as f64
            }
        }
    };
    (0..rows).map(of_row).sum::<f64>() / rows as f64
}

#[test]
fn losses_and_gradients_equal_the_formulas_in_f64() {
    let (rows, ways, dimension) = (4, 3, 6);
    let case = Case {
        queries: Texts::single(normals(1, rows * dimension), dimension),
        documents: Texts::single(normals(2, rows * ways * dimension), dimension),
        ways,
        teacher: normals(3, rows * ways),
    };
    for loss in [
        Loss::in_batch(),
        named("in_batch all directions"),
        named("in_batch symmetric"),
        named("in_batch scale 1 dot"),
        named("distillation"),
        distillation(Definition::MinMax),
        named("mse"),
        named("margin_mse"),
        Loss {
            dimensions: vec![6, 3],
            ..Loss::in_batch()
        },
        Loss {
            dimensions: vec![4, 2],
            ..distillation(Definition::MinMax)
        },
    ] {
        let what = format!("{loss:?}");
        let (queries, documents) = (wide(&case.queries.values), wide(&case.documents.values));
        let expected = reference(&loss, &case, &queries, &documents);
        let (found, by_queries, by_documents) = case.compute(&loss, 3);
        assert_close(&[found], &[expected], 2e-6, &what);
        let change = 1e-5;
        let slope = |values: &[f64], at: usize, of: &dyn Fn(&[f64]) -> f64| {
            let moved = |by: f64| {
                let mut values = values.to_vec();
                values[at] += by;
                of(&values)
            };
            (moved(change) - moved(-change)) / (2.0 * change)
        };
        let slopes: Vec<f64> = (0..queries.len())
            .map(|at| slope(&queries, at, &|q| reference(&loss, &case, q, &documents)))
            .collect();
        assert_close(&by_queries, &slopes, 2e-5, &what);
        let slopes: Vec<f64> = (0..documents.len())
            .map(|at| slope(&documents, at, &|d| reference(&loss, &case, &queries, d)))
            .collect();
        assert_close(&by_documents, &slopes, 2e-5, &what);
    }
}

#[test]
fn a_masked_token_never_wins_and_a_zero_vector_has_no_gradient() {
    // Every similarity with a counting token is negative.
    let case = Case {
        queries: Texts {
            dimension: 2,
            values: vec![1.0, 0.0, 1.0, 0.0],
            offsets: vec![0, 1, 2],
            counts: Some(vec![true; 2]),
        },
        documents: Texts {
            dimension: 2,
            values: vec![-1.0, 0.1, 1.0, 0.0, -1.0, -0.1, 0.0, 0.0],
            offsets: vec![0, 2, 4],
            counts: Some(vec![true, false, true, true]),
        },
        ways: 1,
        teacher: Vec::new(),
    };
    let (loss, _, documents) = case.compute(&named("contrastive"), 2);
    assert!(loss.is_finite());
    assert_eq!(documents[2..4], [0.0, 0.0], "the masked token");
    assert!(documents.iter().all(|x| x.is_finite()), "{documents:?}");
}
