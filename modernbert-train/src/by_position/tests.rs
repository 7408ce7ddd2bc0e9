#![allow(clippy::unwrap_used)]

use modernbert::config::ModernBertConfig;
use modernbert::model::initialize;
use std::sync::Arc;

use super::*;
use crate::loader::{LoaderOptions, evaluation_items};
use crate::mask::Masker;
use crate::shard::{Shard, ShardWriter, TokenizerHash};

/// Three samples in rows of 200: each token counts in the bucket of its place in its own sequence, and all buckets together are the
/// evaluation's loss.
#[test]
fn buckets_add_up_to_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eval.tokens");
    let mut writer = ShardWriter::create(&path, 64, TokenizerHash([0; 32])).unwrap();
    for length in [120u32, 60, 150] {
        writer
            .push(&(0..length).map(|i| 5 + (i * i) % 50).collect::<Vec<_>>())
            .unwrap();
    }
    writer.commit().unwrap();
    let shard = Arc::new(Shard::open(&path).unwrap());
    let masker = Masker::from_ids(0.3, 4, 3, 64, vec![]).unwrap();
    let options = LoaderOptions {
        row_length: 200,
        micro_batches: 1,
        pad_id: 3,
        seed: 5,
        sequences: None,
        length_warmup: None,
    };
    let items = evaluation_items(&shard, &masker, &options, 1000).unwrap();
    assert_eq!(items.len(), 2);

    let device = test_support::device();
    let mut config = ModernBertConfig::of_shape(1, 16, 24, 2);
    config.vocab_size = 64;
    config.pad_token_id = None;
    let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 3);
    let edges = [0, 50, 100, 149, 200];
    let found = scores_by_position(&model, &items, &edges, 0).unwrap();

    let mut counts = [0usize; 4];
    for item in &items {
        for &position in &item.labels.positions[..item.labelled] {
            let range = item
                .layout
                .ranges()
                .find(|range| range.contains(&(position as usize)))
                .unwrap();
            counts[edges
                .iter()
                .rposition(|&edge| edge <= position as usize - range.start)
                .unwrap()] += 1;
        }
    }
    assert_eq!(
        found.iter().map(|bucket| bucket.tokens).collect::<Vec<_>>(),
        counts
    );
    assert!(counts[..3].iter().all(|&count| count > 5));
    // Only one position is in the last bucket, and is labelled or not.
    assert!(counts[3] <= 1 && (counts[3] == 1 || found[3].loss.is_nan()));

    // The sample of 60 tokens left out: each bucket has the tokens of the two others alone.
    let long = scores_by_position(&model, &items, &edges, 100).unwrap();
    let of_long = |from: usize, to: usize| {
        let labelled = items.iter().map(|item| {
            let ranges: Vec<_> = item
                .layout
                .ranges()
                .take(2)
                .filter(|r| r.len() >= 120)
                .collect();
            let of = |p: &&u32| {
                ranges
                    .iter()
                    .any(|r| (r.start + from..(r.start + to).min(r.end)).contains(&(**p as usize)))
            };
            item.labels.positions[..item.labelled]
                .iter()
                .filter(of)
                .count()
        });
        labelled.sum::<usize>()
    };
    for (bucket, pair) in long.iter().zip(edges.windows(2)) {
        assert_eq!(bucket.tokens, of_long(pair[0], pair[1]));
    }
    assert!(long[0].tokens < found[0].tokens && long[2].tokens == found[2].tokens);

    let (mut loss, mut labelled) = (0.0, 0usize);
    for item in &items {
        let batch = PackedBatch::new(&item.input_ids, item.layout.clone(), &device);
        let labels = &item.labels;
        let masked = MaskedTokens::new(&labels.positions, &labels.labels, &labels.weights, &device);
        let sum: Vec<f32> = model
            .forward(&batch, &masked)
            .loss_sum
            .into_data()
            .try_to_vec()
            .unwrap();
        loss += f64::from(sum[0]);
        labelled += item.labelled;
    }
    let summed: f64 = found
        .iter()
        .filter(|bucket| bucket.tokens > 0)
        .map(|bucket| bucket.loss * bucket.tokens as f64)
        .sum();
    assert_eq!(counts.iter().sum::<usize>(), labelled);
    assert!((summed - loss).abs() < 1e-4 * loss, "{summed} and {loss}");

    for edges in [&[0][..], &[0, 5, 5], &[9, 3]] {
        assert!(matches!(
            scores_by_position(&model, &items, edges, 0),
            Err(PositionError::Edges(_))
        ));
    }
}
