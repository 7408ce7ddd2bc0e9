#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PAD: u32 = 3;
const MASK: u32 = 4;
const VOCAB: u32 = 1000;

fn masker(protected: &[u32]) -> Masker {
    Masker::from_ids(0.3, MASK, PAD, VOCAB, protected.to_vec()).unwrap()
}

fn row(ids: Vec<u32>, real_tokens: usize) -> PackedRow {
    let cu_seqlens = vec![0, ids.len() as u32];
    PackedRow {
        ids,
        cu_seqlens,
        real_tokens,
    }
}

fn key(row: u64) -> MaskKey {
    MaskKey {
        seed: 9,
        epoch: 2,
        row,
    }
}

#[test]
fn fractions_over_a_million_tokens() {
    // An id outside of the vocabulary, so that a random token never equals the original.
    let original = VOCAB;
    let (mut masked, mut random, mut kept) = (0, 0, 0);
    let mut drawn = vec![0u32; VOCAB as usize];
    for index in 0..128 {
        let out = masker(&[]).mask(&row(vec![original; 8192], 8192), key(index));
        assert!(out.labels.iter().all(|&label| label == original));
        let before = masked + random;
        for &position in &out.positions {
            match out.input_ids[position as usize] {
                MASK => masked += 1,
                id if id == original => kept += 1,
                id => {
                    random += 1;
                    drawn[id as usize] += 1;
                }
            }
        }
        // Nothing else changes.
        let changed = out.input_ids.iter().filter(|&&id| id != original).count();
        assert_eq!(changed as i32, masked + random - before);
    }
    let share = |count: i32| f64::from(count) / (128.0 * 8192.0);
    assert!((share(masked) - 0.24).abs() < 0.002, "{}", share(masked));
    assert!((share(random) - 0.03).abs() < 0.002, "{}", share(random));
    assert!((share(kept) - 0.03).abs() < 0.002, "{}", share(kept));
    // Every id but padding is drawn; [MASK] as a random token was counted above as masked.
    assert_eq!(drawn[PAD as usize], 0);
    let missing = (0..VOCAB)
        .filter(|&id| drawn[id as usize] == 0 && id != PAD && id != MASK)
        .count();
    assert_eq!(missing, 0);
    assert!(
        drawn.iter().all(|&count| count < 80),
        "one id is drawn too often"
    );
}

/// Uniform over the ids that are not padding, for any content of the row.
#[test]
fn random_tokens_are_uniform_and_independent_of_the_row() {
    let vocabulary = 64u32;
    let masker = Masker::from_ids(0.9, MASK, PAD, vocabulary, vec![]).unwrap();
    let mut drawn = vec![0u32; vocabulary as usize];
    for index in 0..100 {
        // All the same small id, which is no bound on what is drawn, or all an id outside.
        let original = if index % 2 == 0 {
            vocabulary
        } else {
            vocabulary + 1
        };
        let out = masker.mask(&row(vec![original; 4096], 4096), key(index));
        for id in out.input_ids {
            if id < vocabulary && id != MASK {
                drawn[id as usize] += 1;
            }
        }
    }
    assert_eq!(drawn[PAD as usize], 0);
    // [MASK] may be drawn too, but can't be told from a masked token here.
    let ids = (0..vocabulary).filter(|&id| id != PAD && id != MASK);
    let counts: Vec<f64> = ids.map(|id| f64::from(drawn[id as usize])).collect();
    let expected = counts.iter().sum::<f64>() / counts.len() as f64;
    assert!(expected > 500.0, "{expected} of each");
    let chi2: f64 = counts
        .iter()
        .map(|count| (count - expected).powi(2) / expected)
        .sum();
    // 61 degrees of freedom: above 100.9 once in a thousand.
    assert!(chi2 < 100.9, "{chi2}");
}

#[test]
fn depends_on_the_key_alone() {
    let (masker, row) = (
        masker(&[]),
        row((0..900).map(|i| i % 500 + 10).collect(), 900),
    );
    let first = masker.mask(&row, key(5));
    masker.mask(&row, key(6));
    assert_eq!(first, masker.mask(&row, key(5)));
    assert_ne!(first, masker.mask(&row, key(6)));
    assert_ne!(first, masker.mask(&row, MaskKey { epoch: 3, ..key(5) }));
    assert_ne!(first, masker.mask(&row, MaskKey { seed: 8, ..key(5) }));
}

#[test]
fn special_tokens_are_predicted_unless_protected() {
    let ids: Vec<u32> = (0..3000).map(|i| if i % 2 == 0 { 1 } else { 77 }).collect();
    let row = row(ids, 3000);
    let protected = masker(&[0, 1, 2, PAD, MASK]).mask(&row, key(0));
    let open = masker(&[]).mask(&row, key(0));
    assert!(open.labels.contains(&1));
    assert!(!protected.labels.contains(&1));
    assert!(protected.input_ids.iter().step_by(2).all(|&id| id == 1));
    // Both modes use the same draws: the tokens chosen here are also chosen in the open mode.
    let rest: Vec<u32> = open
        .positions
        .iter()
        .copied()
        .filter(|position| position % 2 == 1)
        .collect();
    assert_eq!(protected.positions, rest);
}

#[test]
fn the_cap_holds_and_overflow_is_an_error() {
    let cap = label_cap(8192, 0.3);
    assert_eq!(cap, 2707);
    assert_eq!(label_cap(10, 0.3), 10);
    assert_eq!(label_cap(0, 0.3), 0);
    let row = row(vec![50; 8192], 8192);
    for index in 0..50 {
        let out = masker(&[]).mask(&row, key(index));
        let capped = out.capped(cap).unwrap();
        assert_eq!(
            (
                capped.positions.len(),
                capped.labels.len(),
                capped.weights.len()
            ),
            (cap, cap, cap)
        );
        assert_eq!(
            capped.weights.iter().sum::<f32>() as usize,
            out.labels.len()
        );
        assert_eq!(capped.positions[..out.positions.len()], out.positions);
    }
    let out = masker(&[]).mask(&row, key(0));
    assert_eq!(
        out.capped(10),
        Err(MaskError::Overflow {
            labels: out.labels.len(),
            cap: 10
        })
    );
}

/// A cap that one draw in three exceeds.
#[test]
fn a_row_above_the_cap_is_drawn_again_by_its_key() {
    let row = row(vec![50; 1000], 1000);
    let (masker, cap) = (masker(&[]), 306);
    let mut again = 0;
    for index in 0..300 {
        let first = masker.mask(&row, key(index));
        let within = masker.mask_within(&row, key(index), cap).unwrap();
        assert!(within.labels.len() <= cap);
        assert_eq!(within, masker.mask_within(&row, key(index), cap).unwrap());
        if first.labels.len() <= cap {
            assert_eq!(within, first);
        } else {
            again += 1;
            assert_ne!(within, first);
            let differs = (0..1000u32)
                .filter(|p| first.positions.contains(p) != within.positions.contains(p));
            // Independent draws differ in 2 · 0.3 · 0.7 of the positions.
            assert!((350..500).contains(&differs.count()));
        }
    }
    assert!((50..180).contains(&again), "{again} of 300");
    assert!(matches!(
        masker.mask_within(&row, key(0), 20),
        Err(MaskError::Overflow { cap: 20, .. })
    ));
}

#[test]
fn unused_ids_are_never_drawn() {
    let unused = [0, 1, 7, 8, 9, 62, 63];
    let masker = Masker::from_ids(0.9, MASK, PAD, 64, vec![])
        .unwrap()
        .without_drawing(unused)
        .unwrap();
    let mut drawn = [0u32; 64];
    for index in 0..60 {
        for id in masker
            .mask(&row(vec![99; 4096], 4096), key(index))
            .input_ids
        {
            if id < 64 && id != MASK {
                drawn[id as usize] += 1;
            }
        }
    }
    for id in 0..64u32 {
        let never = unused.contains(&id) || id == PAD || id == MASK;
        assert_eq!(
            drawn[id as usize] == 0,
            never,
            "{id}: {}",
            drawn[id as usize]
        );
    }
    assert!(is_unused("[unused0]") && is_unused("[unused82]"));
    assert!(!is_unused("[unused]") && !is_unused("[unused1") && !is_unused("[unusedx]"));
    let all = Masker::from_ids(0.3, MASK, PAD, 10, vec![]).unwrap();
    assert_eq!(all.without_drawing(0..10), Err(MaskError::Vocabulary(10)));
}

#[test]
fn mistakes_are_named() {
    for wrong in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(matches!(
            Masker::from_ids(wrong, 4, 3, 10, vec![]),
            Err(MaskError::Probability(_))
        ));
    }
    assert_eq!(
        Masker::from_ids(0.3, 0, 0, 1, vec![]),
        Err(MaskError::Vocabulary(1))
    );
}

proptest! {
    #[test]
    fn padding_stays_and_labels_are_the_originals(
        ids in prop::collection::vec(0u32..VOCAB, 0..200),
        padding in 0usize..50,
        seed: u64,
        epoch: u64,
        index: u64,
    ) {
        let real = ids.len();
        let mut all = ids;
        all.resize(real + padding, PAD);
        let row = row(all, real);
        let out = masker(&[]).mask(&row, MaskKey { seed, epoch, row: index });
        prop_assert_eq!(out.input_ids.len(), row.ids.len());
        prop_assert!(out.input_ids.iter().all(|&id| id < VOCAB));
        prop_assert!(out.positions.windows(2).all(|pair| pair[0] < pair[1]));
        for (position, id) in row.ids.iter().enumerate() {
            let found = out.positions.iter().position(|&labelled| labelled as usize == position);
            match found {
                Some(label) => {
                    prop_assert_ne!(*id, PAD);
                    prop_assert_eq!(out.labels[label], *id);
                }
                None => prop_assert_eq!(out.input_ids[position], *id),
            }
        }
    }
}
