use super::*;
use crate::mask::Masker;
use crate::shard::{Shard, ShardWriter, TokenizerHash};

const PAD: u32 = 3;

fn shard(folder: &std::path::Path, lengths: &[usize]) -> Arc<Shard> {
    let path = folder.join("train.tokens");
    let mut writer = ShardWriter::create(&path, 100, TokenizerHash([0; 32])).unwrap();
    for (i, &length) in lengths.iter().enumerate() {
        let sample: Vec<u32> = (0..length)
            .map(|j| 10 + ((i * 7 + j) % 80) as u32)
            .collect();
        writer.push(&sample).unwrap();
    }
    writer.finish().unwrap();
    Arc::new(Shard::open(&path).unwrap())
}

fn masker(prob: f64) -> Masker {
    Masker::from_ids(prob, 4, PAD, 100, vec![]).unwrap()
}

fn options(micro_batches: usize) -> LoaderOptions {
    LoaderOptions {
        row_length: 64,
        micro_batches,
        pad_id: PAD,
        seed: 5,
    }
}

#[test]
fn the_same_settings_give_the_same_steps() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 30, 9, 12, 40, 33, 8, 25]);
    let stream = TrainStream::new(shard, masker(0.3), options(2)).unwrap();
    let (mut a, mut b) = (stream.steps().unwrap(), stream.steps().unwrap());
    for _ in 0..20 {
        let (a, b) = (a.next_step().unwrap(), b.next_step().unwrap());
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a.input_ids, b.input_ids);
            assert_eq!(a.layout, b.layout);
            assert_eq!(a.labels.labels, b.labels.labels);
        }
    }
}

#[test]
fn the_loader_hands_out_the_rows_of_the_stream_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 30, 9, 12, 40]);
    let stream = TrainStream::new(shard, masker(0.3), options(2)).unwrap();
    let mut steps = stream.steps().unwrap();
    let expected: Vec<_> = (0..10).flat_map(|_| steps.next_step().unwrap()).collect();
    let loader = TrainLoader::new(stream, 1000);
    for (item, expected) in loader.iter().zip(&expected) {
        assert_eq!(item.unwrap().input_ids, expected.input_ids);
    }
}

#[test]
fn every_step_states_its_denominator() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 30, 9, 12, 40]);
    let mut steps = TrainStream::new(shard, masker(0.3), options(3))
        .unwrap()
        .steps()
        .unwrap();
    for _ in 0..5 {
        let items = steps.next_step().unwrap();
        let total: usize = items.iter().map(|item| item.labelled).sum();
        assert!(items.iter().all(|item| item.step_labelled == total));
        for item in &items {
            assert_eq!(
                item.labels.weights.iter().sum::<f32>() as usize,
                item.labelled
            );
            assert_eq!(item.layout.total_tokens(), 64);
        }
    }
}

#[test]
fn a_sample_longer_than_a_row_reaches_the_trainer_as_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 65]);
    let loader = TrainLoader::new(
        TrainStream::new(shard, masker(0.3), options(1)).unwrap(),
        1000,
    );
    assert!(loader.iter().any(|item| item.is_err()));
}

#[test]
fn an_empty_shard_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[]);
    assert!(matches!(
        TrainStream::new(shard.clone(), masker(0.3), options(1)),
        Err(LoaderError::Empty { .. })
    ));
    assert!(evaluation_items(&shard, &masker(0.15), &options(1), 100).is_err());
}

#[test]
fn evaluation_meets_every_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [20, 30, 9, 12, 40, 33];
    let shard = shard(folder.path(), &lengths);
    let items = evaluation_items(&shard, &masker(0.15), &options(1), 10_000).unwrap();
    let real: usize = items.iter().map(|item| item.real_tokens).sum();
    assert_eq!(real, lengths.iter().sum::<usize>());
    let mut seen: Vec<usize> = items
        .iter()
        .flat_map(|item| item.layout.lengths().collect::<Vec<_>>())
        .collect();
    seen.retain(|length| lengths.contains(length));
    assert_eq!(seen.len(), lengths.len());
}
