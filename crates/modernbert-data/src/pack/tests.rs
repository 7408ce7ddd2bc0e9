#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;

use super::*;

const PAD: u32 = u32::MAX;

fn repeated(lengths: &[usize]) -> Vec<Vec<u32>> {
    lengths
        .iter()
        .zip(0..)
        .map(|(&length, value)| vec![value; length])
        .collect()
}

/// A row written as (value, how often).
fn row(runs: &[(u32, usize)]) -> Vec<u32> {
    runs.iter()
        .flat_map(|&(value, count)| vec![value; count])
        .collect()
}

#[test]
fn golden_packing() {
    let lengths = [
        4, 5, 10, 3, 6, 6, 7, 3, 2, 0, 7, 4, 4, 8, 3, 7, 7, 8, 1, 4, 10, 4, 8, 2, 10, 7,
    ];
    let options = PackOptions {
        buffer: 5,
        ..PackOptions::new(5, 15, 4, PAD)
    };
    let mut packer = Packer::new(options, repeated(&lengths)).unwrap();
    let batches: Vec<_> = packer.by_ref().collect::<Result<_, _>>().unwrap();
    assert_eq!(batches.len(), 2);

    let values = |batch: &[PackedRow]| batch.iter().map(|row| row.ids.clone()).collect::<Vec<_>>();
    let bounds = |batch: &[PackedRow]| {
        batch
            .iter()
            .map(|row| row.cu_seqlens.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        bounds(&batches[0]),
        [
            vec![0, 4, 9, 15],
            vec![0, 10, 13, 15],
            vec![0, 6, 13, 15],
            vec![0, 3, 10, 14, 15],
            vec![0, 4, 12, 15]
        ]
    );
    assert_eq!(
        values(&batches[0]),
        [
            row(&[(0, 4), (1, 5), (4, 6)]),
            row(&[(2, 10), (3, 3), (8, 2)]),
            row(&[(5, 6), (6, 7), (PAD, 2)]),
            row(&[(7, 3), (10, 7), (11, 4), (18, 1)]),
            row(&[(12, 4), (13, 8), (14, 3)]),
        ]
    );
    assert_eq!(
        bounds(&batches[1]),
        [
            vec![0, 4, 12, 14, 15],
            vec![0, 7, 14, 15],
            vec![0, 10, 14, 15],
            vec![0, 8, 15],
            vec![0, 10, 15]
        ]
    );
    assert_eq!(
        values(&batches[1]),
        [
            row(&[(19, 4), (17, 8), (23, 2), (PAD, 1)]),
            row(&[(16, 7), (15, 7), (PAD, 1)]),
            row(&[(20, 10), (21, 4), (PAD, 1)]),
            row(&[(22, 8), (25, 7)]),
            row(&[(24, 10), (PAD, 5)]),
        ]
    );
    let stats = packer.stats();
    assert_eq!(
        (stats.rows, stats.sequences, stats.tokens, stats.real_tokens),
        (10, 25, 150, 140)
    );
    assert!(packer.into_left_over().is_empty());
}

#[test]
fn short_documents_pack_almost_without_padding() {
    let lengths: Vec<usize> = (0..4000usize)
        .map(|i| 8 + i.wrapping_mul(2_654_435_761) % 1000)
        .collect();
    let mut packer = Packer::new(PackOptions::new(4, 4096, 32, PAD), repeated(&lengths)).unwrap();
    for batch in packer.by_ref() {
        batch.unwrap();
    }
    assert!(
        packer.stats().efficiency() > 0.99,
        "{}",
        packer.stats().efficiency()
    );
}

/// A sequence without content, only a length.
struct Only(usize);

impl Length for Only {
    fn tokens(&self) -> usize {
        self.0
    }
}

/// Lengths similar to those of web text: log-normal with a median of 400 tokens and a long tail, cut off at `longest` as a phase does.
fn web_lengths(count: usize, longest: usize) -> impl Iterator<Item = Only> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut unit = move || f64::from(rng.next_u32()) / 2f64.powi(32);
    let mut normal =
        move || (-2.0 * (1.0 - unit()).ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
    (0..count)
        .map(move |_| Only(((400f64.ln() + 1.1 * normal()).exp() as usize).clamp(16, longest)))
}

/// Both phases with the default buffer, in rows of eight full sequences as a micro-batch has them.
#[test]
fn realistic_lengths_pack_above_99_percent() {
    for (longest, rows, row_length) in [(1024, 8, 8192), (8192, 8, 65_536)] {
        let mean = web_lengths(20_000, longest)
            .map(|only| only.0)
            .sum::<usize>()
            / 20_000;
        let source_batch = rows * row_length / mean;
        let options = PackOptions::new(rows, row_length, source_batch, PAD);
        let mut packer = BestFit::new(options, web_lengths(60_000, longest), Vec::new()).unwrap();
        for batch in packer.by_ref() {
            batch.unwrap();
        }
        let stats = packer.stats();
        assert!(stats.rows > 100, "{} rows", stats.rows);
        assert!(
            stats.efficiency() > 0.99,
            "{longest}: {}",
            stats.efficiency()
        );
        // The fill rate of one document per padded row.
        let unpacked = mean as f64 / longest as f64;
        assert!(unpacked < 0.6, "{unpacked}");
    }
}

#[test]
fn a_packer_goes_on_from_what_it_held() {
    let options = PackOptions::new(3, 64, 4, PAD);
    let source = || repeated(&(0..300).map(|i| 5 + i * 37 % 55).collect::<Vec<_>>());
    let whole: Vec<_> = BestFit::new(options.clone(), source().into_iter(), Vec::new())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut first = BestFit::new(options.clone(), source().into_iter(), Vec::new()).unwrap();
    let mut found: Vec<_> = first.by_ref().take(9).map(Result::unwrap).collect();
    let held: Vec<_> = first.held().cloned().collect();
    assert!(!held.is_empty());
    let rest = first.source().clone();
    let second = BestFit::new(options, rest, held).unwrap();
    found.extend(second.map(Result::unwrap));
    assert_eq!(found, whole);
}

#[test]
fn mistakes_are_named() {
    let options = PackOptions::new(2, 8, 4, PAD);
    let long = Packer::new(options.clone(), repeated(&[3, 0, 9]))
        .unwrap()
        .next()
        .unwrap();
    assert_eq!(
        long,
        Err(PackError::TooLong {
            index: 1,
            length: 9,
            row_length: 8
        })
    );
    let zero = Packer::new(
        PackOptions {
            rows: 0,
            ..options.clone()
        },
        repeated(&[]),
    )
    .unwrap_err();
    assert_eq!(zero, PackError::Zero { name: "rows" });
    let narrow = Packer::new(
        PackOptions {
            buffer: 4,
            ..options
        },
        repeated(&[]),
    )
    .unwrap_err();
    assert_eq!(
        narrow,
        PackError::Buffer {
            buffer: 4,
            source_batch: 4
        }
    );
}

#[test]
fn the_tail_is_flushed_when_asked() {
    let lengths = [6, 6, 6];
    let options = PackOptions::new(2, 8, 2, PAD);
    let mut plain = Packer::new(options.clone(), repeated(&lengths)).unwrap();
    assert_eq!(plain.by_ref().count(), 1);
    assert_eq!(plain.into_left_over(), [vec![2; 6]]);
    let all: Vec<_> = Packer::new(options.with_flush(), repeated(&lengths))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(
        all[1],
        [PackedRow {
            ids: row(&[(2, 6), (PAD, 2)]),
            cu_seqlens: vec![0, 6, 8],
            real_tokens: 6
        }]
    );
}

proptest! {
    #[test]
    fn nothing_is_lost(
        lengths in prop::collection::vec(0usize..=20, 0..200),
        rows in 1usize..5,
        source_batch in 1usize..6,
        more in 1usize..20,
        flush: bool,
        sequences in prop::option::of(1usize..4),
    ) {
        let options = PackOptions {
            buffer: source_batch + more,
            flush,
            sequences,
            ..PackOptions::new(rows, 20, source_batch, PAD)
        };
        let mut packer = Packer::new(options.clone(), repeated(&lengths)).unwrap();
        let batches: Vec<_> = packer.by_ref().collect::<Result<_, _>>().unwrap();
        let again: Vec<_> =
            Packer::new(options, repeated(&lengths)).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&batches, &again);

        let mut seen: Vec<Vec<u32>> = Vec::new();
        for packed in batches.iter().flatten() {
            if let Some(most) = sequences {
                prop_assert!(packed.cu_seqlens.len() <= most + 1);
                prop_assert_eq!(packed.ids.len(), packed.real_tokens);
            } else {
                prop_assert_eq!(packed.ids.len(), 20);
            }
            prop_assert_eq!(packed.cu_seqlens.last(), Some(&(packed.ids.len() as u32)));
            for bounds in packed.cu_seqlens.windows(2) {
                let piece = &packed.ids[bounds[0] as usize..bounds[1] as usize];
                if piece[0] != PAD {
                    seen.push(piece.to_vec());
                }
            }
        }
        let left_over = packer.into_left_over();
        prop_assert!(!flush || left_over.is_empty());
        seen.extend(left_over);
        seen.sort_unstable();
        let mut expected = repeated(&lengths);
        expected.retain(|sequence| !sequence.is_empty());
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }
}
