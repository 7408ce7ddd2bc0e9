#![allow(clippy::unwrap_used)]

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use modernbert::batch::{PackedBatch, SequenceLayout, int_tensor};
use modernbert::model::{MaskedLm, MaskedTokens, initialize};
use modernbert::ops::row_moves;
use std::sync::Arc;

use super::mlm::{MlmTask, gradients};
use crate::engine::Task;
use crate::loader::{LoaderOptions, MlmItem, TrainLoader, TrainStream};
use crate::mask::{Masker, label_cap};
use crate::optim::{GradientSquares, NamedOptimizer, StableAdamWConfig};
use crate::recipe::Recipe;
use crate::run_dir::RunDir;
use crate::schedule::TokenSpan;
use crate::shard::{Shard, ShardWriter, TokenizerHash};
use crate::snapshot::tests::small_config;

/// Two packed and masked rows with different numbers of tokens.
fn rows() -> Vec<MlmItem> {
    stream().steps().unwrap().next_step().unwrap()
}

fn stream() -> TrainStream {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.tokens");
    let mut writer = ShardWriter::create(&path, 64, TokenizerHash([0; 32])).unwrap();
    for (i, length) in [20, 30, 9, 12, 17].into_iter().enumerate() {
        let sample: Vec<u32> = (0..length).map(|j| 10 + (i * 7 + j) as u32 % 50).collect();
        writer.push(&sample).unwrap();
    }
    writer.commit().unwrap();
    let options = LoaderOptions {
        row_length: 48,
        micro_batches: 2,
        pad_id: 3,
        seed: 5,
        sequences: None,
        length_warmup: None,
    };
    let masker = Masker::from_ids(0.3, 4, 3, 64, vec![]).unwrap();
    let shard = Arc::new(Shard::open(&path).unwrap());
    TrainStream::new(shard, masker, options).unwrap()
}

fn model() -> MaskedLm {
    let config = small_config(64);
    let device = test_support::autodiff_device();
    initialize(MaskedLm::new(&config, &device).unwrap(), &config, 5)
}

/// Gradient of each parameter, in the module's order.
fn values(model: &MaskedLm, grads: &GradientsParams) -> Vec<Vec<f32>> {
    struct Collect<'a>(&'a GradientsParams, Vec<Vec<f32>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self.0.get::<D>(param.id).unwrap();
            self.1.push(grad.into_data().try_to_vec().unwrap());
        }
    }
    let mut collect = Collect(grads, Vec::new());
    model.visit(&mut collect);
    collect.1
}

#[test]
fn micro_batches_add_up_to_the_token_exact_mean() {
    let (rows, model) = (rows(), model());
    let counts: Vec<usize> = rows.iter().map(|row| row.labelled).collect();
    assert_ne!(
        counts[0], counts[1],
        "rows of equal counts would prove nothing"
    );
    let mut accumulator = GradientsAccumulator::new();
    for row in &rows {
        assert_eq!(row.step_labelled, counts[0] + counts[1]);
        let (_, grads) = gradients(&model, row);
        accumulator.accumulate(&model, grads);
    }
    let in_pieces = values(&model, &accumulator.grads());

    // The same sequences in one row, and the mean over all of its labelled tokens.
    let device = model.model.device();
    let ids: Vec<u32> = rows.iter().flat_map(|row| row.input_ids.clone()).collect();
    let mut bounds = vec![0];
    let (mut positions, mut labels) = (Vec::new(), Vec::new());
    for (i, row) in rows.iter().enumerate() {
        let start = 48 * i as u32;
        for length in row.layout.lengths() {
            bounds.push(bounds.last().unwrap() + length as u32);
        }
        let real = row.labels.positions.iter().zip(&row.labels.labels);
        for (position, label) in real.take(row.labelled) {
            positions.push(start + position);
            labels.push(*label);
        }
    }
    let layout = SequenceLayout::from_cu_seqlens(bounds).unwrap();
    let batch = PackedBatch::new(&ids, layout, &device);
    let weights = vec![1.0; labels.len()];
    let masked = MaskedTokens::new(&positions, &labels, &weights, &device);
    let loss = model.forward(&batch, &masked).loss_sum / labels.len() as f64;
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let at_once = values(&model, &grads);
    assert!(at_once.len() > 20);
    let names = GradientSquares::of(&model, &grads).names;
    for ((a, b), name) in in_pieces.iter().zip(&at_once).zip(names.iter()) {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let whole = norm(&mut b.iter().map(|&x| f64::from(x)));
        let off = norm(&mut a.iter().zip(b).map(|(&x, &y)| f64::from(x) - f64::from(y)));
        assert!(
            whole > 0.0 && off <= 1e-5 * whole,
            "{name}: {off} of {whole}"
        );
    }
}

/// A training step computes head and decoder at the row's cap of labels: a number that depends on the recipe alone, so that every step has
/// the same shapes. Rows above the number of labels have weight 0.
#[test]
fn a_training_step_computes_the_labels_of_its_row_up_to_the_cap() {
    let (rows, model) = (rows(), model());
    let cap = label_cap(48, 0.3);
    assert!(cap < 48, "a cap of all rows would prove nothing");
    for row in &rows {
        assert!(row.labelled < cap);
        let (_, moves) = row_moves(|| gradients(&model, row));
        assert_eq!(moves.gathered, [48, cap]);
        let counted = row.labels.weights.iter().filter(|&&weight| weight == 1.0);
        assert_eq!(counted.count(), row.labelled);
        let sum: f32 = row.labels.weights.iter().sum();
        assert_eq!(sum, row.labelled as f32);
    }
    // At the micro-batch of the published run the cap is 3 % above the mean.
    let (published, mean) = (label_cap(98_304, 0.3) as f64, 0.3 * 98_304.0);
    assert!((1.02..1.035).contains(&(published / mean)), "{published}");
}

/// Masked accuracy and loss of an evaluation against a count by hand over the logits, on rows with and without padding labels.
#[test]
fn an_evaluation_equals_a_count_by_hand() {
    let (items, model) = (rows(), model().valid());
    let device = model.model.device();
    let (mut hits, mut labelled, mut loss) = (0, 0, 0.0f64);
    for item in &items {
        let batch = PackedBatch::new(&item.input_ids, item.layout.clone(), &device);
        let places = item.labels.positions[..item.labelled].iter();
        let places = int_tensor(places.map(|&place| place as i32), &device);
        let logits: Vec<f32> = model
            .logits(&batch, places)
            .into_data()
            .try_to_vec()
            .unwrap();
        for (row, &label) in logits.chunks(64).zip(&item.labels.labels) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            hits += usize::from(row.iter().position(|&x| x == largest) == Some(label as usize));
            let exps = row.iter().map(|&x| f64::from(x).exp());
            loss += exps.sum::<f64>().ln() - f64::from(row[label as usize]);
            labelled += 1;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::from_str("model.preset = '17m'\nrun.total_tokens = 10", "x").unwrap();
    let dir = RunDir::create(&folder.path().join("run"), &recipe, false).unwrap();
    let counts: Vec<usize> = items.iter().map(|item| item.labelled).collect();
    let rows = TrainLoader::new(stream(), 96).rows();
    let mut task = MlmTask {
        rows,
        batch: recipe.batch_warmup(),
        batch_recipe: recipe.batch.clone(),
        rotary: None,
        model_recipe: recipe.model.clone(),
        held_out: items,
        config: small_config(64),
        dir: &dir,
        ranks: std::sync::Arc::new(ranks::Ranks::single()),
        rule: &recipe.checkpoint,
    };
    let found = task.evaluate(&model, 1).unwrap();
    assert_eq!(found.items, counts.iter().sum::<usize>());
    assert_eq!(labelled, found.items);
    assert_eq!(found.accuracy, Some(hits as f64 / labelled as f64));
    let mean = loss / labelled as f64;
    assert!((found.loss.unwrap() - mean).abs() < 1e-5 * mean);

    // FLOPs are those of the real sequences: padding at the end of a row is no work of the model.
    let padded: usize = task.held_out.iter().map(|item| 48 - item.real_tokens).sum();
    assert!(padded > 0, "a row with padding");
    let counts = task.counts(&task.held_out);
    assert_eq!(counts.tokens, 88);
    let lengths = [20, 30, 9, 12, 17];
    let flops = task.config.train_flops(&lengths, labelled);
    assert_eq!(counts.flops, flops as f64);

    // A phase that is shortened to fit its time limit has its batch-size warmup in percent shortened as well.
    task.batch_recipe.micro_batches = 4;
    task.batch_recipe.warmup_tokens = TokenSpan::Fraction(0.5);
    task.batch = task.batch_recipe.warmup_over(1000);
    assert_eq!(task.batch.size(300), 3);
    task.shortened(200);
    assert_eq!([0, 99, 300].map(|seen| task.batch.size(seen)), [1, 3, 4]);
}

#[test]
fn a_non_finite_weight_is_found_before_any_other_changes() {
    use modernbert::model::{NamedMapper, map_named};
    struct Poison;
    impl NamedMapper for Poison {
        fn map<const D: usize>(
            &mut self,
            name: &str,
            value: burn::tensor::Tensor<D>,
        ) -> burn::tensor::Tensor<D> {
            if name == "head.dense.weight" {
                burn::tensor::Tensor::full(value.shape(), f32::NAN, &value.device())
            } else {
                value
            }
        }
    }
    let row = rows().remove(0);
    let model = map_named(model(), &mut Poison);
    let (_, grads) = gradients(&model, &row);
    let found = GradientSquares::of(&model, &grads);
    let sums: Vec<f32> = found.sums.clone().unwrap().to_data().try_to_vec().unwrap();
    assert!(sums.iter().any(|sum| !sum.is_finite()));
    assert_eq!(found.names.len(), sums.len());
    // The names are in the order of the module, as the optimizer's state is.
    let mut optimizer = NamedOptimizer::new(StableAdamWConfig::new(1e-3));
    let model = optimizer.step(1e-3, model, grads);
    let moments = optimizer.moments(&model).unwrap();
    let names: Vec<String> = found
        .names
        .iter()
        .flat_map(|name| [format!("{name}.moment_1"), format!("{name}.moment_2")])
        .collect();
    assert_eq!(
        moments.iter().map(|m| m.name.clone()).collect::<Vec<_>>(),
        names
    );
}
