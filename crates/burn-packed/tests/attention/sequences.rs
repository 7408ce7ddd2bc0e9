//! Batch invariance: results of a sequence don't depend on the other sequences, their order or the run; empty sequences.

use crate::case::{Case, Results};
use test_support::{bits, normals};

/// Output and gradient of one sequence of a case.
fn of_sequence(case: &Case, results: &Results, index: usize) -> (Vec<u32>, Vec<u32>) {
    let first: usize = case.lengths[..index].iter().sum();
    let tokens = first..first + case.lengths[index];
    let width = case.heads * case.head_dim;
    (
        bits(&results.0[tokens.start * width..tokens.end * width]),
        bits(&results.1[tokens.start * 3 * width..tokens.end * 3 * width]),
    )
}

/// The case of some of a case's sequences, in the given order.
fn picked(case: &Case, order: &[usize]) -> Case {
    let mut picked = case.clone();
    (picked.lengths, picked.qkv, picked.d_out) = (vec![], vec![], vec![]);
    let width = case.heads * case.head_dim;
    for &index in order {
        let first: usize = case.lengths[..index].iter().sum();
        let end = first + case.lengths[index];
        picked.lengths.push(case.lengths[index]);
        picked
            .qkv
            .extend_from_slice(&case.qkv[first * 3 * width..end * 3 * width]);
        picked
            .d_out
            .extend_from_slice(&case.d_out[first * width..end * width]);
    }
    picked
}

fn cases() -> impl Iterator<Item = Case> {
    let case = Case::new(&[5, 70, 0, 33, 129, 1], 2, 32, 1).theta(10_000.0);
    [None, Some(16), Some(64)]
        .into_iter()
        .map(move |window| case.clone().window(window))
}

#[test]
fn changing_a_sequence_leaves_the_others_bit_identical() {
    for case in cases() {
        let before = case.run();
        for k in [1, 4] {
            let mut changed = case.clone();
            let first: usize = case.lengths[..k].iter().sum();
            let (from, to) = (
                first * case.token(),
                (first + case.lengths[k]) * case.token(),
            );
            changed.qkv[from..to].copy_from_slice(&normals(50, to - from));
            changed.d_out[from / 3..to / 3].copy_from_slice(&normals(51, (to - from) / 3));
            let after = changed.run();
            for i in 0..case.lengths.len() {
                let equal = of_sequence(&case, &before, i) == of_sequence(&case, &after, i);
                assert_eq!(
                    equal,
                    i != k,
                    "sequence {i} after a change of {k}, window {:?}",
                    case.half_window
                );
            }
        }
    }
}

#[test]
fn permuting_sequences_permutes_results_bit_for_bit() {
    for case in cases() {
        let before = case.run();
        let order = [4, 2, 0, 5, 3, 1];
        let permuted = picked(&case, &order);
        let after = permuted.run();
        for (place, &index) in order.iter().enumerate() {
            assert_eq!(
                of_sequence(&permuted, &after, place),
                of_sequence(&case, &before, index)
            );
        }
    }
}

#[test]
fn a_sequence_has_the_same_results_alone_and_in_a_batch() {
    for case in cases() {
        let together = case.run();
        for index in [0, 1, 3, 4, 5] {
            let alone = picked(&case, &[index]);
            let results = alone.run();
            assert_eq!(
                of_sequence(&alone, &results, 0),
                of_sequence(&case, &together, index)
            );
        }
    }
}

#[test]
fn three_backward_runs_are_bit_identical() {
    for case in cases() {
        let (first_out, first_grad) = case.run();
        for _ in 0..2 {
            let (out, grad) = case.run();
            assert_eq!(bits(&out), bits(&first_out));
            assert_eq!(bits(&grad), bits(&first_grad));
        }
    }
}

#[test]
fn forward_is_the_same_with_and_without_gradients() {
    for case in cases() {
        assert_eq!(bits(&case.forward()), bits(&case.run().0));
    }
}

#[test]
fn no_sequences_and_empty_sequences_have_an_empty_output() {
    for lengths in [&[][..], &[0], &[0, 0, 0]] {
        for window in [None, Some(64)] {
            let case = Case::new(lengths, 2, 8, 2).window(window).theta(10_000.0);
            assert!(case.forward().is_empty());
        }
    }
}

#[test]
fn empty_sequences_between_others_change_no_bit() {
    let case = Case::new(&[4, 66], 2, 16, 3).theta(10_000.0).window(8);
    let mut sparse = case.clone();
    sparse.lengths = vec![0, 4, 0, 0, 66, 0];
    let (expected, found) = (case.run(), sparse.run());
    assert_eq!(bits(&found.0), bits(&expected.0));
    assert_eq!(bits(&found.1), bits(&expected.1));
    assert!(found.0.iter().chain(&found.1).all(|x| x.is_finite()));
}
