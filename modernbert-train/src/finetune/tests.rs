use super::*;
use burn::data::dataloader::DataLoader;
use burn::optim::lr_scheduler::LrScheduler;
use modernbert::config::ModernBertConfig;
use modernbert::model::initialize;

fn samples(lengths: &[usize]) -> Vec<Sample> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &length)| Sample {
            ids: vec![i as u32; length],
            target: Target::Class(i as u32 % 2),
        })
        .collect()
}

#[test]
fn every_sample_comes_once_an_epoch_and_in_another_order_each_time() {
    let lengths: Vec<usize> = (0..97).map(|i| 1 + i * 7 % 31).collect();
    let loader = BatchLoader::shuffled(samples(&lengths), 8, 3);
    let epoch = |loader: &BatchLoader| -> Vec<u32> {
        loader
            .iter()
            .flat_map(|batch| batch.unwrap().sequences)
            .map(|ids| ids[0])
            .collect()
    };
    let (first, second) = (epoch(&loader), epoch(&loader));
    assert_ne!(first, second);
    for mut ids in [first.clone(), second] {
        ids.sort_unstable();
        assert_eq!(ids, (0..97).collect::<Vec<u32>>());
    }
    assert_eq!(
        first,
        epoch(&BatchLoader::shuffled(samples(&lengths), 8, 3))
    );
    assert_ne!(
        first,
        epoch(&BatchLoader::shuffled(samples(&lengths), 8, 4))
    );
}

#[test]
fn the_rate_rises_falls_and_is_never_zero() {
    let mut schedule = WarmupLinear::new(1.0, 0.1, 100);
    let rates: Vec<f64> = (0..100).map(|_| schedule.step()).collect();
    assert!(
        rates.iter().all(|&rate| rate > 0.0 && rate <= 1.0),
        "{rates:?}"
    );
    let peak = (0..100)
        .max_by(|&a, &b| rates[a].total_cmp(&rates[b]))
        .unwrap();
    assert!((8..12).contains(&peak), "{peak}");
    assert!(rates[99] < 0.02);
}

#[test]
fn predictions_keep_the_order_of_the_sequences() {
    let mut config = ModernBertConfig::of_shape(2, 32, 48, 2);
    config.vocab_size = 128;
    config.pad_token_id = None;
    let device = Device::default();
    let model = SequenceClassifier::new(&config, 2, &device).unwrap();
    let model = initialize(model, &config, 1);
    let samples = samples(&[9, 2, 30, 4, 17]);
    let rows: Vec<&[u32]> = samples.iter().map(|sample| sample.ids.as_slice()).collect();
    let together = predict(&model, &rows, 2).unwrap();
    for (row, outputs) in rows.iter().zip(&together) {
        let alone = predict(&model, &[row], 1).unwrap();
        for (a, b) in alone[0].iter().zip(outputs) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
