//! Visible keys: the edge of the window, their number, heads, and 8192 tokens.

use burn::tensor::{DType, FloatDType};

use crate::case::Case;
use crate::naive;
use crate::rows::Rows;
use test_support::{bits, computes_in, relative_error, relative_rms_error, wide};

/// Rows of the output whose bits differ.
fn changed_rows(case: &Case, before: &[f32], after: &[f32]) -> Vec<usize> {
    let row = case.heads * case.head_dim;
    (0..case.total())
        .filter(|i| bits(&before[i * row..][..row]) != bits(&after[i * row..][..row]))
        .collect()
}

#[test]
fn a_key_or_value_is_visible_at_distance_64_and_not_at_65_on_both_sides() {
    let case = Case::new(&[200], 2, 16, 1).window(64).theta(10_000.0);
    let before = case.forward();
    for part in [1, 2] {
        let mut changed = case.clone();
        for head in 0..2 {
            changed.qkv[case.place(100, part, head) + 3] += 4.0;
        }
        let rows = changed_rows(&case, &before, &changed.forward());
        assert_eq!(rows, (36..=164).collect::<Vec<_>>(), "part {part}");
    }
}

#[test]
fn the_gradient_reaches_distance_64_and_not_65_on_both_sides() {
    let mut case = Case::new(&[200], 1, 16, 2).window(64).theta(10_000.0);
    case.d_out.fill(0.0);
    case.d_out[100 * 16..101 * 16].fill(1.0);
    let (_, grad) = case.run();
    for part in 0..3 {
        let reached: Vec<usize> = (0..200)
            .filter(|&i| {
                grad[case.place(i, part, 0)..][..16]
                    .iter()
                    .any(|&g| g != 0.0)
            })
            .collect();
        let expected: Vec<usize> = if part == 0 {
            vec![100]
        } else {
            (36..=164).collect()
        };
        assert_eq!(reached, expected, "part {part}");
    }
}

#[test]
fn an_interior_query_sees_129_keys_and_the_first_one_65() {
    // With queries of zeros all visible keys have the same weight: a single value of 1 gives one over their number.
    let mut case = Case::new(&[200], 1, 4, 3).window(64);
    case.qkv.fill(0.0);
    for (row, keys) in [
        (100, 129),
        (0, 65),
        (199, 65),
        (10, 75),
        (64, 129),
        (63, 128),
    ] {
        let mut one = case.clone();
        one.qkv[case.place(row, 2, 0)] = 1.0;
        let share = one.forward()[row * 4];
        assert!(
            (share * keys as f32 - 1.0).abs() < 1e-5,
            "row {row} sees {} keys",
            1.0 / share
        );
    }
}

/// Output rows whose block of queries multiplies the values of `key`: a hidden key has weight 0, and 0 · NaN is NaN.
fn rows_that_read(case: &Case, key: usize) -> Vec<usize> {
    let mut poisoned = case.clone();
    let (value, size) = (case.place(key, 2, 0), case.head_dim);
    poisoned.qkv[value..value + size].fill(f32::NAN);
    let out = poisoned.forward();
    (0..case.total())
        .filter(|i| out[i * size..][..size].iter().any(|x| x.is_nan()))
        .collect()
}

/// The tiles of keys that a local layer reads are those of its band: their number does not grow with the sequence.
#[test]
fn a_local_layer_reads_the_tiles_of_its_band_alone() {
    /// Rows of the largest tile of queries or keys of any version.
    const LARGEST_TILE: usize = 256;
    let mut numbers = Vec::new();
    for length in [1024, 2048, 4096] {
        let case = Case::new(&[length], 1, 64, 7).window(64).theta(10_000.0);
        let key = length / 2;
        let rows = rows_that_read(&case, key);
        // Every query that sees the key, and none whose tile is outside the band.
        assert!((key - 64..=key + 64).all(|row| rows.contains(&row)));
        let farthest = rows.iter().map(|row| row.abs_diff(key)).max().unwrap();
        assert!(farthest < 64 + LARGEST_TILE, "{farthest} at {length}");
        numbers.push(rows.len());
    }
    assert!(
        numbers[0] < 1024 && numbers.iter().all(|number| *number == numbers[0]),
        "{numbers:?}"
    );
    let global = Case::new(&[1024], 1, 64, 7).theta(10_000.0);
    assert_eq!(rows_that_read(&global, 512).len(), 1024);
}

/// Rows of the gradient of `qkv` with a NaN.
fn poisoned_rows(case: &Case) -> Vec<usize> {
    let (_, grad) = case.run();
    let token = case.token();
    (0..case.total())
        .filter(|i| grad[i * token..][..token].iter().any(|x| x.is_nan()))
        .collect()
}

/// The backward pass of a local layer reads the tiles of its band alone: a NaN reaches the gradients of rows nearby, as many in a long sequence
/// as in a short one. The gradient of an output row is read by the keys of its band; a value by the queries of its band, whose softmax
/// gradients reach the keys of the bands of these queries.
#[test]
fn the_gradient_of_a_local_layer_reads_the_tiles_of_its_band_alone() {
    /// Rows of the largest tile of queries or keys of any version.
    const LARGEST_TILE: usize = 256;
    let poisoned = |length: usize, window: Option<usize>, is_value: bool| {
        let case = Case::new(&[length], 1, 64, 7).theta(10_000.0);
        let mut case = case.window(window);
        let (row, size) = (length / 2, case.head_dim);
        if is_value {
            let value = case.place(row, 2, 0);
            case.qkv[value..value + size].fill(f32::NAN);
        } else {
            case.d_out[row * size..][..size].fill(f32::NAN);
        }
        poisoned_rows(&case)
    };
    for (is_value, bands) in [(false, 1), (true, 2)] {
        let mut numbers = Vec::new();
        for length in [2048, 4096] {
            let rows = poisoned(length, Some(64), is_value);
            let row = length / 2;
            let reach = 64 * bands;
            assert!((row - reach..=row + reach).all(|row| rows.contains(&row)));
            let farthest = rows.iter().map(|other| other.abs_diff(row)).max().unwrap();
            assert!(
                farthest < bands * (64 + LARGEST_TILE),
                "{farthest} at {length}, value: {is_value}"
            );
            numbers.push(rows.len());
        }
        assert!(
            numbers[0] < 2048 && numbers[0] == numbers[1],
            "{numbers:?}, value: {is_value}"
        );
        assert_eq!(poisoned(1024, None, is_value).len(), 1024);
    }
}

#[test]
fn a_window_of_zero_returns_the_values() {
    let case = Case::new(&[3, 70], 2, 8, 4).window(0).theta(10_000.0);
    let values: Vec<f32> = (0..73)
        .flat_map(|i| case.qkv[case.place(i, 2, 0)..][..16].to_vec())
        .collect();
    assert!(relative_error(&wide(&case.forward()), &wide(&values)) < 1e-6);
}

#[test]
fn a_window_as_wide_as_the_sequence_is_global() {
    let case = Case::new(&[5, 90], 2, 16, 5).theta(10_000.0);
    let (out, grad) = case.run();
    for window in [89, 90, usize::MAX] {
        let (windowed_out, windowed_grad) = case.clone().window(window).run();
        assert_eq!(bits(&out), bits(&windowed_out), "window {window}");
        assert_eq!(bits(&grad), bits(&windowed_grad), "window {window}");
    }
}

#[test]
fn heads_do_not_see_each_other() {
    let case = Case::new(&[30], 3, 8, 6).window(5).theta(10_000.0);
    let (out, grad) = case.run();
    // Swapping two rows of one head's q is what permuting its rows of Wqkv does.
    let mut changed = case.clone();
    for i in 0..30 {
        let q = case.place(i, 0, 1);
        changed.qkv.swap(q, q + 3);
    }
    let (changed_out, changed_grad) = changed.run();
    for i in 0..30 {
        for head in 0..3 {
            let place = (i * 3 + head) * 8;
            let equal = bits(&out[place..][..8]) == bits(&changed_out[place..][..8]);
            assert_eq!(equal, head != 1, "row {i}, head {head}");
            for part in 0..3 {
                let place = case.place(i, part, head);
                let equal = bits(&grad[place..][..8]) == bits(&changed_grad[place..][..8]);
                assert!(
                    equal || head == 1,
                    "gradient of row {i}, part {part}, head {head}"
                );
            }
        }
    }
}

/// Some rows at full length against a dense f64 computation with the angles of the table.
#[test]
fn rows_of_8192_tokens_equal_a_dense_computation() {
    let theta = 160_000.0;
    let case = Case::new(&[8192], 1, 16, 7).theta(theta);
    for window in [None, Some(64)] {
        let out = case.clone().window(window).forward();
        let rows = Rows::of(&case, theta, window);
        for i in [0, 63, 64, 4095, 8127, 8191] {
            let error = relative_error(&wide(&out[i * 16..][..16]), &rows.output(i));
            assert!(error < 1e-5, "window {window:?}, row {i}: {error:e}");
        }
    }
}

/// Output and gradients of some rows of a local layer at full length against f64, with the angles of the table.
#[test]
fn gradients_of_rows_of_8192_tokens_equal_those_in_f64() {
    let theta = 10_000.0;
    let case = Case::new(&[8192], 1, 16, 9).theta(theta);
    for window in [5, 64] {
        let (out, grad) = case.clone().window(window).run();
        let rows = Rows::of(&case, theta, Some(window));
        for i in [0, 1, 64, 127, 128, 4095, 4096, 8063, 8126, 8190, 8191] {
            let error = relative_error(&wide(&out[i * 16..][..16]), &rows.output(i));
            assert!(error < 1e-5, "window {window}, output {i}: {error:e}");
            for (part, expected) in rows.gradients(i).iter().enumerate() {
                let found = wide(&grad[case.place(i, part, 0)..][..16]);
                let error = relative_error(&found, expected);
                assert!(
                    error < 1e-5,
                    "window {window}, row {i}, part {part}: {error:e}"
                );
            }
        }
    }
}

/// The documented bound of bf16 at the longest length: 0.4 % of the output and 1 % of the gradient, and no more than the error of
/// loops that round every tensor.
#[test]
fn bf16_at_8192_tokens_loses_less_than_rounding_every_tensor() {
    if !computes_in(DType::BF16) {
        return;
    }
    let round: fn(f32) -> f32 = |x| half::bf16::from_f32(x).to_f32();
    let case = Case::new(&[8192], 1, 16, 8).theta(10_000.0).window(64);
    let case = case.rounded(round);
    let (out, grad) = case.run_in(FloatDType::BF16);
    let (naive_out, naive_grad) = naive::run_rounded(&case, round);
    let (exact_out, exact_grad) = case.run();
    for (name, found, naive, exact, stated) in [
        ("output", out, naive_out, exact_out, 0.004),
        ("gradient", grad, naive_grad, exact_grad, 0.01),
    ] {
        let error = relative_rms_error(&wide(&found), &wide(&exact));
        let allowed = relative_rms_error(&wide(&naive), &wide(&exact)).min(stated);
        assert!(error <= allowed, "{name}: {error}, allowed {allowed}");
    }
}
