#![allow(clippy::unwrap_used)]

use burn::optim::{GradientsAccumulator, GradientsParams};
use modernbert::batch::{PackedBatch, SequenceLayout};
use modernbert::model::{MaskedLm, MaskedTokens, initialize};
use std::sync::Arc;

use super::mlm::gradients;
use crate::loader::{LoaderOptions, MlmItem, TrainStream};
use crate::mask::Masker;
use crate::optim::{GradientSquares, NamedOptimizer, StableAdamWConfig};
use crate::shard::{Shard, ShardWriter, TokenizerHash};
use crate::snapshot::tests::small_config;

/// Two packed and masked rows with different numbers of tokens.
fn rows() -> Vec<MlmItem> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.tokens");
    let mut writer = ShardWriter::create(&path, 64, TokenizerHash([0; 32])).unwrap();
    for (i, length) in [20, 30, 9, 12, 17].into_iter().enumerate() {
        let sample: Vec<u32> = (0..length).map(|j| 10 + (i * 7 + j) as u32 % 50).collect();
        writer.push(&sample).unwrap();
    }
    writer.finish().unwrap();
    let options = LoaderOptions {
        row_length: 48,
        micro_batches: 2,
        pad_id: 3,
        seed: 5,
        sequences: None,
    };
    let masker = Masker::from_ids(0.3, 4, 3, 64, vec![]).unwrap();
    let shard = Arc::new(Shard::open(&path).unwrap());
    let stream = TrainStream::new(shard, masker, options).unwrap();
    stream.steps().unwrap().next_step().unwrap()
}

fn model() -> MaskedLm {
    let config = small_config(64);
    let device = test_support::autodiff_device();
    initialize(MaskedLm::new(&config, &device).unwrap(), &config, 5)
}

fn squares(model: &MaskedLm, grads: &GradientsParams) -> Vec<f32> {
    let squares = GradientSquares::of(model, grads);
    squares.sums.unwrap().to_data().try_to_vec().unwrap()
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
    let in_pieces = squares(&model, &accumulator.grads());

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
    let at_once = squares(&model, &grads);
    for (a, b) in in_pieces.iter().zip(&at_once) {
        assert!(
            (a.sqrt() - b.sqrt()).abs() <= 1e-5 * b.sqrt().max(1.0),
            "{a} {b}"
        );
    }
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
