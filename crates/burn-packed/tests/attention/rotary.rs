//! RoPE: frequencies, scores as functions of the distance, positions that restart in every sequence.

use crate::case::Case;
use burn_packed::ops::attention::rotary_table;
use test_support::{bits, device, read};

#[test]
fn frequencies_are_the_golden_ones() {
    let golden = [
        (
            10_000.0,
            [1.0, 0.749_894_21, 0.562_341_33, 0.01, 1.333_521_4e-4],
        ),
        (
            160_000.0,
            [1.0, 0.687_656_02, 0.472_870_80, 0.0025, 9.088_846_5e-6],
        ),
    ];
    for (theta, expected) in golden {
        let table = read(rotary_table(2, 64, theta, &device()));
        for (d, expected) in [0, 1, 2, 16, 31].into_iter().zip(expected) {
            // The angles of row 1 are the frequencies.
            let (cos, sin) = (f64::from(table[64 + d]), f64::from(table[64 + 32 + d]));
            let frequency: f64 = sin.atan2(cos);
            assert!(
                (frequency / expected - 1.0).abs() < 1e-6,
                "theta {theta}, d {d}: {frequency}"
            );
        }
        assert_eq!(table[..32], [1.0; 32], "the angles of position 0 are 0");
        assert_eq!(table[32..64], [0.0; 32], "the angles of position 0 are 0");
    }
}

#[test]
fn scores_depend_only_on_the_distance() {
    let (length, dim) = (100, 32);
    let mut case = Case::new(&[length], 1, dim, 1).window(1).theta(10_000.0);
    let (q, k) = (case.qkv[..dim].to_vec(), case.qkv[dim..2 * dim].to_vec());
    for i in 0..length {
        // The same q and k everywhere, and values that distinguish the three visible keys.
        let place = case.place(i, 0, 0);
        case.qkv[place..][..dim].copy_from_slice(&q);
        case.qkv[place + dim..][..dim].copy_from_slice(&k);
        case.qkv[place + 2 * dim..][..dim].fill(0.0);
        case.qkv[place + 2 * dim + i % 3] = 1.0;
    }
    let out = case.forward();
    // Probabilities of the left neighbor, the token and the right neighbor, at every interior position.
    let at = |i: usize| [(i + 2) % 3, i % 3, (i + 1) % 3].map(|d| out[i * dim + d]);
    let expected = at(1);
    assert!(
        (expected[0] - expected[2]).abs() > 1e-3,
        "left and right differ: {expected:?}"
    );
    for i in 2..length - 1 {
        for (found, expected) in at(i).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "position {i}");
        }
    }
}

#[test]
fn positions_restart_in_every_sequence() {
    let case = Case::new(&[3], 1, 32, 2).theta(10_000.0);
    let mut packed = Case::new(&[50, 3, 7, 3], 1, 32, 3).theta(10_000.0);
    let token = case.token();
    for first in [50, 60] {
        packed.qkv[first * token..][..3 * token].copy_from_slice(&case.qkv);
    }
    let (alone, together) = (case.forward(), packed.forward());
    for first in [50, 60] {
        assert_eq!(bits(&together[first * 32..][..3 * 32]), bits(&alone));
    }
}

#[test]
fn rope_and_theta_change_the_output() {
    let case = Case::new(&[20], 1, 32, 4);
    let outputs =
        [None, Some(10_000.0), Some(160_000.0)].map(|theta| case.clone().theta(theta).forward());
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let moved = outputs[a]
            .iter()
            .zip(&outputs[b])
            .any(|(x, y)| (x - y).abs() > 1e-3);
        assert!(moved, "settings {a} and {b} give the same output");
    }
}
