use super::*;
use crate::mask::CappedLabels;
use crate::mask::Masker;
use crate::shard::{Cut, LongDocuments, Shard, ShardWriter, TokenizerHash};
use packed_layout::{DropoutRates, SequenceLayout};
use std::sync::Arc;

const PAD: u32 = 3;

fn shard(folder: &std::path::Path, lengths: &[usize]) -> Arc<Shard> {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("train.tokens");
    let mut writer = ShardWriter::create(&path, 100, TokenizerHash([0; 32])).unwrap();
    for (i, &length) in lengths.iter().enumerate() {
        let sample: Vec<u32> = (0..length)
            .map(|j| 10 + ((i * 7 + j) % 80) as u32)
            .collect();
        writer.push(&sample).unwrap();
    }
    writer.commit().unwrap();
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
        sequences: None,
        length_warmup: None,
    }
}

#[test]
fn without_packing_a_row_is_its_sequences_and_nothing_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [20, 30, 9, 12, 40, 33, 8, 25];
    let shard = shard(folder.path(), &lengths);
    let options = LoaderOptions {
        row_length: 120,
        sequences: Some(3),
        ..options(2)
    };
    let stream = TrainStream::new(shard, masker(0.3), options).unwrap();
    let mut steps = stream.steps().unwrap();
    let mut met = Vec::new();
    let mut sizes = std::collections::BTreeSet::new();
    let mut after = None;
    for step in 0..5 {
        for item in steps.next_step().unwrap() {
            let ranges: Vec<_> = item.layout.ranges().collect();
            assert_eq!(ranges.len(), 3);
            assert_eq!(item.input_ids.len(), item.real_tokens);
            assert!(!item.input_ids.contains(&PAD));
            met.extend(ranges.into_iter().map(|range| range.len()));
            sizes.insert(item.real_tokens);
            after = (step == 2)
                .then(|| item.position_after(1))
                .or(Some(after))
                .flatten();
        }
    }
    assert!(sizes.len() > 3, "rows differ in their tokens: {sizes:?}");
    assert!(lengths.iter().all(|length| met.contains(length)), "{met:?}");
    let mut again = stream.steps_from(&after.unwrap()).unwrap();
    let resumed: Vec<usize> = (0..2)
        .flat_map(|_| again.next_step().unwrap())
        .flat_map(|item| item.layout.ranges().map(|r| r.len()).collect::<Vec<_>>())
        .collect();
    assert_eq!(resumed, met[18..30]);
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

/// Without the check, the system ends the process where it reads beyond the end of the file.
#[cfg(unix)]
#[test]
fn a_shard_that_becomes_shorter_ends_the_rows_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[60; 2000]);
    let path = shard.path().to_path_buf();
    let stream = TrainStream::new(shard.clone(), masker(0.3), options(2)).unwrap();
    let loader = TrainLoader::new(stream.clone(), 1000).with_threads(2);
    let (mut rows, mut steps) = (loader.rows(), stream.steps().unwrap());
    rows.next().unwrap().unwrap();
    steps.next_step().unwrap();
    let position = steps.next_row().unwrap().position_after(1).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    let said = |error: LoaderError| {
        let message = error.to_string();
        assert!(
            message.contains("train.tokens: 4096 bytes long, and"),
            "{message}"
        );
    };
    let failed = rows.find_map(Result::err).unwrap();
    said(failed);
    said((0..2000).find_map(|_| steps.next_row().err()).unwrap());
    said(stream.steps_from(&position).err().unwrap());
    said(evaluation_items(&shard, &masker(0.3), &options(1), 10_000).unwrap_err());
    // A file that was replaced is another one; the mapped one is whole.
    let whole = folder.path().join("other");
    let replaced = self::shard(&whole, &[60; 50]);
    let path = replaced.path().to_path_buf();
    std::fs::write(whole.join("new"), "short").unwrap();
    std::fs::rename(whole.join("new"), &path).unwrap();
    replaced.check_length().unwrap();
    std::fs::remove_file(&path).unwrap();
    replaced.check_length().unwrap();
}

#[test]
fn the_loader_hands_out_the_rows_of_the_stream_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 30, 9, 12, 40]);
    let stream = TrainStream::new(shard, masker(0.3), options(2)).unwrap();
    let mut steps = stream.steps().unwrap();
    let expected: Vec<_> = (0..10).flat_map(|_| steps.next_step().unwrap()).collect();
    let loader = TrainLoader::new(stream, 1000);
    for (item, expected) in loader.rows().zip(&expected) {
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
    assert!(loader.rows().any(|item| item.is_err()));
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
    let seen: Vec<usize> = items
        .iter()
        .flat_map(|item| {
            let real = item
                .layout
                .ranges()
                .filter(|range| range.end <= item.real_tokens);
            real.map(|range| range.len()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(seen, lengths);
}

/// All data of a row that training uses.
fn essence(item: &MlmItem) -> (u64, Vec<u32>, SequenceLayout, CappedLabels) {
    let MlmItem {
        row,
        input_ids,
        layout,
        labels,
        ..
    } = item.clone();
    (row, input_ids, layout, labels)
}

fn rows(steps: &mut TrainSteps, count: usize) -> Vec<MlmItem> {
    (0..count).map(|_| steps.next_row().unwrap()).collect()
}

fn lengths(count: usize) -> Vec<usize> {
    (0..count).map(|i| 8 + i * 37 % 50).collect()
}

/// A stream over a mixture of two shards with documents longer than a row.
fn mixture(folder: &std::path::Path) -> TrainStream {
    let cut = Cut {
        max_length: 40,
        min_length: 8,
        long_documents: LongDocuments::Split,
    };
    let source = |name: &str, proportion, lengths: &[usize]| {
        let shard = shard(&folder.join(name), lengths);
        DataSource::new(name, proportion, [shard], cut)
    };
    let mut long = lengths(12);
    long.extend([200, 41, 300]);
    let sources = vec![source("a", 0.75, &lengths(40)), source("b", 0.25, &long)];
    TrainStream::of_sources(sources, masker(0.3), options(3)).unwrap()
}

#[test]
fn threads_change_nothing_about_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let stream = mixture(folder.path());
    let expected: Vec<_> = rows(&mut stream.steps().unwrap(), 60)
        .iter()
        .map(essence)
        .collect();
    for threads in [1, 2, 4] {
        let loader = TrainLoader::new(stream.clone(), 1000).with_threads(threads);
        let found: Vec<_> = loader
            .rows()
            .take(60)
            .map(|item| essence(&item.unwrap()))
            .collect();
        assert_eq!(found, expected, "{threads} threads");
    }
}

#[test]
fn ranks_together_have_the_rows_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let stream = mixture(folder.path());
    let expected: Vec<_> = rows(&mut stream.steps().unwrap(), 48)
        .iter()
        .map(essence)
        .collect();
    for ranks in [1, 2, 4] {
        let mut merged = Vec::new();
        for rank in 0..ranks {
            let share = stream.clone().for_rank(rank, ranks).unwrap();
            let loader = TrainLoader::new(share, 1000).with_threads(2);
            merged.extend(
                loader
                    .rows()
                    .take(48 / ranks)
                    .map(|item| essence(&item.unwrap())),
            );
        }
        merged.sort_by_key(|row| row.0);
        assert_eq!(merged, expected, "{ranks} ranks");
    }
    assert!(matches!(
        stream.for_rank(2, 2),
        Err(LoaderError::Rank { rank: 2, ranks: 2 })
    ));
}

#[test]
fn any_position_is_a_place_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let stream = mixture(folder.path());
    let all = rows(&mut stream.steps().unwrap(), 90);
    let expected: Vec<_> = all.iter().map(essence).collect();
    // Over a hundred samples: these rows span several epochs.
    assert!(all[80].position_after(1).unwrap().epoch >= 2);
    for row in [0usize, 1, 2, 3, 7, 29, 30, 31, 61] {
        let position = match row {
            0 => stream.start(),
            _ => all[row - 1].position_after(1).unwrap(),
        };
        assert_eq!(position.row, row as u64);
        // In the form in which a checkpoint stores the position.
        let text = serde_json::to_string(&position).unwrap();
        let read: Position = serde_json::from_str(&text).unwrap();
        assert_eq!(read, position);
        let mut steps = stream.steps_from(&read).unwrap();
        let found: Vec<_> = rows(&mut steps, 20).iter().map(essence).collect();
        assert_eq!(found, expected[row..row + 20], "from row {row}");
        // The number of the row alone is sufficient.
        let sought = stream.seek(row as u64).unwrap();
        assert_eq!((sought.row, sought.seed), (position.row, position.seed));
        let mut steps = stream.steps_from(&sought).unwrap();
        assert_eq!(essence(&steps.next_row().unwrap()), expected[row]);
    }
    for threads in [1, 3] {
        let loader = TrainLoader::new(stream.clone(), 1000).with_threads(threads);
        let from_row: Vec<_> = loader
            .clone()
            .starting_at(31)
            .rows()
            .take(20)
            .map(|item| essence(&item.unwrap()))
            .collect();
        assert_eq!(from_row, expected[31..51]);
        let position = all[30].position_after(1).unwrap();
        let loader = loader.from_position(position).unwrap();
        let found: Vec<_> = loader
            .rows()
            .take(20)
            .map(|item| essence(&item.unwrap()))
            .collect();
        assert_eq!(found, expected[31..51]);
    }
    // Two ranks at row 30, whichever wrote the position.
    for rank in 0..2 {
        let share = stream.clone().for_rank(rank, 2).unwrap();
        let mut steps = share.steps().unwrap();
        let last = rows(&mut steps, 15).pop().unwrap();
        let position = last.position_after(2 - rank as u64).unwrap();
        assert_eq!(position.row, 30);
        let mut again = share.steps_from(&position).unwrap();
        for _ in 0..10 {
            assert_eq!(
                essence(&again.next_row().unwrap()),
                essence(&steps.next_row().unwrap())
            );
        }
    }
}

#[test]
fn other_data_or_settings_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stream = |name: &str, lengths: &[usize], options: LoaderOptions| {
        TrainStream::new(shard(&path(name), lengths), masker(0.3), options).unwrap()
    };
    let position = stream("a", &[20, 30, 9], options(2)).seek(5).unwrap();
    let says = |stream: TrainStream, words: &str| {
        let message = stream.steps_from(&position).err().unwrap().to_string();
        assert!(message.contains(words), "{message}");
    };
    says(
        stream("a", &[20, 30, 10], options(2)),
        "train.tokens: not the data this run was started with",
    );
    says(
        stream("a", &[20, 30, 9], options(3)),
        "micro_batches is 3 and was 2",
    );
    says(
        stream(
            "a",
            &[20, 30, 9],
            LoaderOptions {
                seed: 6,
                ..options(2)
            },
        ),
        "seed is 6 and was 5",
    );
    says(
        stream(
            "a",
            &[20, 30, 9],
            LoaderOptions {
                row_length: 32,
                ..options(2)
            },
        ),
        "row_length is 32 and was 64",
    );
    says(
        stream(
            "a",
            &[20, 30, 9],
            LoaderOptions {
                sequences: Some(3),
                ..options(2)
            },
        ),
        "packing is off (at most 3 sequences a row) and was on",
    );
    let same = stream("a", &[20, 30, 9], options(2));
    assert!(same.steps_from(&position).is_ok());
    let mut damaged = position.clone();
    damaged.held.push((7, 0));
    assert!(matches!(
        same.steps_from(&damaged),
        Err(LoaderError::Position(_))
    ));
}

#[test]
fn an_error_arrives_behind_the_rows_before_it_and_threads_end_with_the_iterator() {
    let folder = tempfile::tempdir().unwrap();
    let mut lengths = lengths(60);
    lengths.push(65);
    let shard = shard(folder.path(), &lengths);
    let stream = TrainStream::new(shard.clone(), masker(0.3), options(1)).unwrap();
    let mut alone = stream.steps().unwrap();
    let good = std::iter::from_fn(|| alone.next_row().ok()).count();
    let handles = Arc::strong_count(&stream.sources);
    for threads in [1, 2, 4] {
        let loader = TrainLoader::new(stream.clone(), 1000).with_threads(threads);
        let mut rows = loader.rows();
        for _ in 0..good {
            assert!(rows.next().unwrap().is_ok());
        }
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("65 tokens and a row holds 64"), "{error}");
        assert!(rows.next().is_none(), "an end after the error");
        // A loader that is dropped at once: its threads, whose rows are not received, must not hang.
        drop(rows);
        drop(loader.rows());
        drop(loader);
        assert_eq!(
            Arc::strong_count(&stream.sources),
            handles,
            "a thread still holds the stream"
        );
    }
}

#[test]
fn rows_of_a_stream_carry_their_own_dropout_key() {
    let folder = tempfile::tempdir().unwrap();
    let rates = DropoutRates {
        attention_output: 0.1,
        ..DropoutRates::default()
    };
    let shard = shard(folder.path(), &lengths(20));
    let stream = TrainStream::new(shard.clone(), masker(0.3), options(2)).unwrap();
    let plain = rows(&mut stream.steps().unwrap(), 3);
    assert!(plain.iter().all(|item| item.dropout.is_none()));
    let stream = stream.with_dropout(rates);
    for (row, item) in rows(&mut stream.steps().unwrap(), 3).iter().enumerate() {
        let dropout = item.dropout.unwrap();
        assert_eq!(
            (dropout.rates, dropout.seed, dropout.batch),
            (rates, 5, row as u64)
        );
    }
    let eval = evaluation_items(&shard, &masker(0.15), &options(1), 500).unwrap();
    assert!(
        eval.iter()
            .all(|item| item.dropout.is_none() && item.position_after(1).is_none())
    );
}

/// Masked at 15 %, special tokens protected; a sample's masking doesn't depend on its row.
#[test]
fn evaluation_masks_each_sample_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eval.tokens");
    let mut writer = ShardWriter::create(&path, 100, TokenizerHash([0; 32])).unwrap();
    for i in 0..600u32 {
        let mut sample = vec![1];
        sample.extend((0..60 + i % 60).map(|j| 10 + (i + j) % 80));
        sample.push(2);
        writer.push(&sample).unwrap();
    }
    writer.commit().unwrap();
    let shard = Arc::new(Shard::open(&path).unwrap());
    let masker = Masker::from_ids(0.15, 4, PAD, 100, vec![0, 1, 2, PAD, 4]).unwrap();
    let at = |row_length| {
        let options = LoaderOptions {
            row_length,
            ..options(1)
        };
        evaluation_items(&shard, &masker, &options, usize::MAX).unwrap()
    };
    /// A sample as the model sees it, and its labels by position.
    type Seen = (Vec<u32>, Vec<(u32, u32)>);
    fn samples(items: &[MlmItem]) -> Vec<Seen> {
        let mut samples = Vec::new();
        for item in items {
            let labels: Vec<(u32, u32)> = item.labels.positions[..item.labelled]
                .iter()
                .copied()
                .zip(item.labels.labels.clone())
                .collect();
            for range in item
                .layout
                .ranges()
                .filter(|range| range.end <= item.real_tokens)
            {
                let own = labels
                    .iter()
                    .filter(|(position, _)| range.contains(&(*position as usize)));
                let own = own.map(|&(position, label)| (position - range.start as u32, label));
                samples.push((item.input_ids[range.clone()].to_vec(), own.collect()));
            }
        }
        samples
    }
    let (short, long) = (at(128), at(1024));
    assert_eq!(samples(&short), samples(&long));
    assert_eq!(samples(&long), samples(&at(1024)));
    let (mut tokens, mut labelled) = (0usize, 0usize);
    for (ids, labels) in samples(&long) {
        assert!(
            ids.first() == Some(&1) && ids.last() == Some(&2),
            "special tokens stay"
        );
        assert!(labels.iter().all(|&(_, label)| label >= 10));
        tokens += ids.len() - 2;
        labelled += labels.len();
    }
    let share = labelled as f64 / tokens as f64;
    // Five standard deviations of 54 000 draws.
    assert!((share - 0.15).abs() < 0.008, "{share}");
    assert!(
        evaluation_items(&shard, &masker, &options(1), 1000).is_err(),
        "samples longer than a row"
    );
}

fn warmup() -> LengthWarmup {
    LengthWarmup {
        from: 8,
        step: 4,
        to: 40,
        tokens: 64 * 40,
    }
}

#[test]
fn a_length_warmup_has_its_golden_lengths() {
    let lengths = |warmup: LengthWarmup, at: &[u64]| -> Vec<usize> {
        at.iter().map(|&tokens| warmup.length(tokens)).collect()
    };
    // From 8 to 40 in steps of 4 over 2560 tokens: a step every 320.
    assert_eq!(
        lengths(
            warmup(),
            &[
                0,
                319,
                320,
                640,
                1279,
                1280,
                2239,
                2240,
                2559,
                2560,
                u64::MAX
            ]
        ),
        [8, 8, 12, 16, 20, 24, 32, 36, 36, 40, 40]
    );
    let odd = LengthWarmup {
        from: 10,
        step: 8,
        to: 25,
        tokens: 100,
    };
    assert_eq!(lengths(odd, &[0, 53, 54, 99, 100]), [10, 10, 18, 18, 25]);
    let large = LengthWarmup {
        from: 64,
        step: 8,
        to: 1024,
        tokens: 1_719_000_000_000,
    };
    assert_eq!(
        lengths(large, &[0, 859_500_000_000, u64::MAX]),
        [64, 544, 1024]
    );
}

/// Rows of samples of up to 40 tokens, with the lengths and texts of their sequences.
#[test]
fn sequences_follow_the_ramp_in_rows_that_stay_full() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [20, 30, 9, 12, 40, 33, 8, 25, 40, 40, 37];
    let shard = shard(folder.path(), &lengths);
    let (micro_batches, row_length) = (2, 64);
    let plain = TrainStream::new(shard.clone(), masker(0.3), options(micro_batches)).unwrap();
    let stream = TrainStream::new(
        shard.clone(),
        masker(0.3),
        LoaderOptions {
            length_warmup: Some(warmup()),
            ..options(micro_batches)
        },
    )
    .unwrap();
    let mut steps = stream.steps().unwrap();
    let (mut real, mut grown) = (0, std::collections::BTreeSet::new());
    for step in 0..60u64 {
        let first = step * micro_batches as u64;
        let limit = warmup().length(first * row_length);
        for item in steps.next_step().unwrap() {
            // The tokens of a row are those of every other row.
            assert_eq!(item.input_ids.len() as u64, row_length);
            real += item.real_tokens;
            let ranges: Vec<_> = item
                .layout
                .ranges()
                .filter(|range| range.end <= item.real_tokens)
                .collect();
            let mut restored = item.input_ids.clone();
            let labels = &item.labels;
            for (&position, &label) in labels
                .positions
                .iter()
                .zip(&labels.labels)
                .take(item.labelled)
            {
                restored[position as usize] = label;
            }
            for range in &ranges {
                assert!(
                    range.len() <= limit,
                    "step {step}: {} of {limit}",
                    range.len()
                );
                // The sequence is a sample, or the beginning of a longer one with that one's last token.
                let found = &restored[range.clone()];
                let is_cut = |sample: &[u32]| {
                    let kept = sample.len().min(limit);
                    found.len() == kept
                        && found[..kept - 1] == sample[..kept - 1]
                        && found.last() == sample.last()
                };
                let known = (0..lengths.len()).any(|index| is_cut(&shard.get(index)));
                assert!(known, "step {step}: {found:?}");
            }
            if ranges.iter().any(|range| range.len() == limit) {
                grown.insert(limit);
            }
        }
    }
    // Every length of the ramp was the longest of some row, and the last is that without a warmup.
    assert_eq!(
        grown.into_iter().collect::<Vec<_>>(),
        [8, 12, 16, 20, 24, 28, 32, 36, 40]
    );
    assert!(real as f64 > 0.85 * (60 * 2 * row_length) as f64, "{real}");
    let mut plain = plain.steps().unwrap();
    let longest = |item: &MlmItem| item.layout.lengths().max().unwrap();
    assert!(
        plain
            .next_step()
            .unwrap()
            .iter()
            .any(|item| longest(item) > 30)
    );
}

#[test]
fn a_length_warmup_is_resumed_at_any_row_and_with_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[20, 30, 9, 12, 40, 33, 8, 25]);
    let with = |length_warmup| {
        let options = LoaderOptions {
            length_warmup,
            ..options(2)
        };
        TrainStream::new(shard.clone(), masker(0.3), options).unwrap()
    };
    let stream = with(Some(warmup()));
    let mut steps = stream.steps().unwrap();
    let rows: Vec<MlmItem> = (0..80).map(|_| steps.next_row().unwrap()).collect();
    for after in [0, 1, 7, 18, 39, 40, 61] {
        let position = rows[after].position_after(1).unwrap();
        let text = serde_json::to_string(&position).unwrap();
        let position: Position = serde_json::from_str(&text).unwrap();
        assert_eq!(stream.seek(after as u64 + 1).unwrap().row, position.row);
        for threads in [1, 3] {
            let loader = TrainLoader::new(stream.clone(), 1000).with_threads(threads);
            let loader = loader.from_position(position.clone()).unwrap();
            for (item, expected) in loader.rows().zip(&rows[after + 1..]) {
                let item = item.unwrap();
                assert_eq!(item.input_ids, expected.input_ids, "after {after}");
                assert_eq!(item.layout, expected.layout);
            }
        }
    }
    // Another ramp gives other data.
    let position = rows[9].position_after(1).unwrap();
    let longer = LengthWarmup {
        tokens: 5000,
        ..warmup()
    };
    for (other, is) in [
        (None, "off"),
        (Some(longer), "from 8 to 40 over 5000 tokens"),
    ] {
        let message = with(other).steps_from(&position).err().unwrap().to_string();
        let was = "from 8 to 40 over 2560 tokens";
        assert!(
            message.contains(&format!("the sequence-length warmup is {is} and was {was}")),
            "{message}"
        );
    }
}

/// The declared open mixture: every source has a share and a licence, and rows have the shares to one percent of the tokens.
#[test]
fn the_open_mixture_is_drawn_in_its_shares() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/mixtures/open.toml");
    let mixture = crate::mixture::Mixture::from_file(path.as_ref()).unwrap();
    let names: Vec<&str> = mixture
        .sources
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["fineweb-edu", "wikipedia", "the-stack", "pes2o"]);
    for source in &mixture.sources {
        assert!(
            source.licence.len() > 5 && source.licence != "unknown",
            "{}",
            source.name
        );
    }
    let folder = tempfile::tempdir().unwrap();
    // Documents of other lengths in every source; an id tells the source.
    let sources: Vec<DataSource> = mixture
        .sources
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let path = folder.path().join(format!("{index}.tokens"));
            let mut writer = ShardWriter::create(&path, 100, TokenizerHash([0; 32])).unwrap();
            for document in 0..60 {
                let length = 4 + (document * 7 + index * 11) % (12 + 15 * index);
                writer.push(&vec![10 + index as u32; length]).unwrap();
            }
            writer.commit().unwrap();
            let shard = Arc::new(Shard::open(&path).unwrap());
            DataSource::new(one.name.clone(), one.proportion, [shard], Cut::WHOLE)
        })
        .collect();
    let masker = Masker::from_ids(0.01, 4, PAD, 100, vec![]).unwrap();
    let options = LoaderOptions {
        row_length: 512,
        ..options(2)
    };
    let mut steps = TrainStream::of_sources(sources, masker, options)
        .unwrap()
        .steps()
        .unwrap();
    let (mut counts, mut total) = ([0usize; 4], 0usize);
    for _ in 0..200 {
        for item in steps.next_step().unwrap() {
            let mut ids = item.input_ids[..item.real_tokens].to_vec();
            let labels = item.labels.positions.iter().zip(&item.labels.labels);
            for (&position, &label) in labels.take(item.labelled) {
                ids[position as usize] = label;
            }
            for id in ids {
                counts[id as usize - 10] += 1;
                total += 1;
            }
        }
    }
    assert!(total > 150_000, "{total}");
    for (count, source) in counts.iter().zip(&mixture.sources) {
        let share = *count as f64 / total as f64;
        assert!(
            (share - source.proportion).abs() < 0.01,
            "{}: {share}",
            source.name
        );
    }
}
