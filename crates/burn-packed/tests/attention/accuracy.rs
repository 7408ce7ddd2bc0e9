//! Output and gradient against the f64 reference, the reference against difference quotients, dtypes against each other.

use burn::tensor::{DType, FloatDType};
use proptest::prelude::*;

use crate::case::Case;
use crate::naive;
use test_support::{computes_in, largest, max_error, relative_rms_error, wide};

/// The error may be twice that of f32 loops, plus this share of the largest value.
const FLOOR: f64 = 1e-6;

/// Largest error of output and gradient, as shares of what is allowed.
fn excess(case: &Case) -> [f64; 2] {
    let (out, grad) = case.run();
    let (naive_out, naive_grad) = naive::run(case);
    let (expected_out, expected_grad) = case.reference();
    let share = |found: &[f32], naive: &[f32], expected: &[f64]| {
        let allowed = 2.0 * max_error(&wide(naive), expected) + FLOOR * largest(expected).max(1.0);
        max_error(&wide(found), expected) / allowed
    };
    [
        share(&out, &naive_out, &expected_out),
        share(&grad, &naive_grad, &expected_grad),
    ]
}

#[track_caller]
fn assert_accurate(case: &Case) {
    let [out, grad] = excess(case);
    let shape = format!(
        "lengths {:?}, {} heads of {}, window {:?}, theta {:?}, softcap {:?}",
        case.lengths, case.heads, case.head_dim, case.half_window, case.theta, case.softcap
    );
    assert!(
        out <= 1.0,
        "{shape}: the output's error is {out} times the allowed one"
    );
    assert!(
        grad <= 1.0,
        "{shape}: the gradient's error is {grad} times the allowed one"
    );
}

/// Lengths around every boundary: none, one, two tokens, a block of 64 queries, a window, two windows.
const RAGGED: [usize; 12] = [0, 1, 2, 63, 64, 65, 66, 0, 127, 128, 129, 130];

#[test]
fn global_attention_is_as_accurate_as_f32_allows() {
    assert_accurate(&Case::new(&RAGGED, 1, 64, 1).theta(160_000.0));
}

#[test]
fn local_attention_is_as_accurate_as_f32_allows() {
    assert_accurate(&Case::new(&RAGGED, 1, 64, 2).theta(10_000.0).window(64));
    assert_accurate(&Case::new(&RAGGED, 1, 32, 3).theta(10_000.0).window(65));
}

#[test]
fn every_window_is_as_accurate_as_f32_allows() {
    for (seed, window) in [None, Some(0), Some(1), Some(64), Some(65), Some(1000)]
        .into_iter()
        .enumerate()
    {
        for theta in [None, Some(10_000.0)] {
            let case = Case::new(&[2, 66, 0, 131], 2, 32, 10 + seed as u64);
            assert_accurate(&case.window(window).theta(theta));
        }
    }
}

#[test]
fn a_thousand_tokens_are_as_accurate_as_f32_allows() {
    assert_accurate(&Case::new(&[1000, 63], 1, 32, 22).theta(160_000.0));
    for (seed, window) in [0, 1, 64, 65].into_iter().enumerate() {
        let case = Case::new(&[1, 1000, 0, 129], 1, 32, 23 + seed as u64);
        assert_accurate(&case.theta(10_000.0).window(window));
    }
}

#[test]
fn long_sequences_are_as_accurate_as_f32_allows() {
    assert_accurate(&Case::new(&[300, 7], 1, 32, 20).theta(160_000.0));
    assert_accurate(&Case::new(&[7, 301], 1, 32, 21).theta(10_000.0).window(64));
}

#[test]
fn every_head_dim_is_as_accurate_as_f32_allows() {
    for head_dim in [2, 16, 32, 64, 80, 96, 128] {
        let case = Case::new(&[1, 70, 3], 3, head_dim, 30 + head_dim as u64);
        assert_accurate(&case.clone().theta(10_000.0).window(16));
        assert_accurate(&case);
    }
}

#[test]
fn a_softcap_is_as_accurate_as_f32_allows() {
    for (window, theta, cap) in [
        (None, None, 0.5),
        (Some(64), Some(10_000.0), 2.0),
        (Some(1), None, 50.0),
    ] {
        assert_accurate(
            &Case::new(&[1, 66, 130], 2, 32, 40)
                .window(window)
                .theta(theta)
                .softcap(cap),
        );
    }
}

#[test]
fn a_softcap_bounds_the_scores() {
    let case = Case::new(&[40], 1, 16, 41).with_qk_times(10.0);
    let (out, _) = case.clone().softcap(1e-3).run();
    // Scores within a thousandth of each other: the output is the mean of the values.
    for (d, out) in out.iter().take(16).enumerate() {
        let mean = (0..40)
            .map(|i| case.qkv[case.place(i, 2, 0) + d])
            .sum::<f32>()
            / 40.0;
        assert!((out - mean).abs() < 5e-3);
    }
}

#[test]
fn scores_a_hundred_times_as_large_stay_finite_and_accurate() {
    for window in [None, Some(64)] {
        let case = Case::new(&[1, 66, 130], 2, 64, 50)
            .window(window)
            .theta(10_000.0)
            .with_qk_times(10.0);
        let (out, grad) = case.run();
        assert!(out.iter().chain(&grad).all(|x| x.is_finite()));
        assert_accurate(&case);
    }
}

#[test]
fn scores_beyond_the_range_of_exp_stay_finite() {
    let case = Case::new(&[5, 66], 1, 32, 51)
        .with_qk_times(1000.0)
        .window(8);
    let (out, grad) = case.run();
    assert!(out.iter().chain(&grad).all(|x| x.is_finite()));
}

#[test]
fn the_fallback_in_f64_equals_the_reference() {
    if !computes_in(DType::F64) {
        return;
    }
    let settings = [
        (None, None, None),
        (None, Some(160_000.0), None),
        (Some(64), Some(10_000.0), None),
        (Some(0), Some(10_000.0), None),
        (Some(5), None, Some(1.5)),
    ];
    for (window, theta, softcap) in settings {
        let case = Case::new(&[1, 0, 66, 131], 2, 32, 60)
            .window(window)
            .theta(theta)
            .softcap(softcap);
        let (out, grad) = case.run64();
        let (expected_out, expected_grad) = case.reference();
        let errors = [
            max_error(&out, &expected_out),
            max_error(&grad, &expected_grad),
        ];
        assert!(
            errors.iter().all(|&e| e < 1e-10),
            "window {window:?}, theta {theta:?}: {errors:?}"
        );
    }
}

/// A device either computes in f64 or the op refuses.
#[test]
fn f64_is_refused_where_it_would_be_wrong() {
    if burn_packed::device::computes_in(&test_support::device(), DType::F64) {
        test_support::skip("the device computes in f64");
        return;
    }
    let case = Case::new(&[3], 1, 16, 61);
    let refusal = std::panic::catch_unwind(|| case.run64()).unwrap_err();
    let message = refusal.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("attention: f64 is not supported") && message.contains("cast to f32"),
        "{message}"
    );
}

/// Checks the reference itself: its gradient is that of its output.
#[test]
fn the_reference_gradient_is_the_slope_of_the_reference() {
    for (window, theta, softcap) in [
        (None, Some(10_000.0), None),
        (Some(2), Some(100.0), Some(1.0)),
    ] {
        let case = Case::new(&[1, 7, 0, 3], 2, 4, 70)
            .window(window)
            .theta(theta)
            .softcap(softcap);
        let (qkv, d_out) = (wide(&case.qkv), wide(&case.d_out));
        let loss = |qkv: &[f64]| -> f64 {
            let out = case.problem(qkv).forward();
            out.iter().zip(&d_out).map(|(o, d)| o * d).sum()
        };
        let grad = case.problem(&qkv).backward(&d_out);
        for i in 0..qkv.len() {
            let moved = |step: f64| {
                let mut qkv = qkv.clone();
                qkv[i] += step;
                loss(&qkv)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (slope - grad[i]).abs() < 1e-8,
                "element {i}: slope {slope}, gradient {}",
                grad[i]
            );
        }
    }
}

/// The op's own gradient against its own output, without the reference.
#[test]
fn the_gradient_is_the_slope_of_the_output() {
    for window in [None, Some(3)] {
        let case = Case::new(&[1, 20, 66], 2, 16, 80)
            .window(window)
            .theta(10_000.0);
        let (_, grad) = case.run();
        for direction in 0..4 {
            let step = test_support::normals(90 + direction, case.qkv.len());
            let loss = |size: f32| -> f64 {
                let mut moved = case.clone();
                moved
                    .qkv
                    .iter_mut()
                    .zip(&step)
                    .for_each(|(x, s)| *x += size * s);
                let out = wide(&moved.forward());
                out.iter()
                    .zip(&case.d_out)
                    .map(|(o, d)| o * f64::from(*d))
                    .sum()
            };
            // Five points, so that the remainder is of the fourth order in the step.
            let (h, slope) = (0.01f32, |h: f32| {
                (loss(h) - loss(-h)) / (2.0 * f64::from(h))
            });
            let slope = (4.0 * slope(h) - slope(2.0 * h)) / 3.0;
            let expected: f64 = grad
                .iter()
                .zip(&step)
                .map(|(g, s)| f64::from(*g) * f64::from(*s))
                .sum();
            let error = (slope - expected).abs();
            assert!(
                error < 2e-3 * (1.0 + expected.abs()),
                "slope {slope}, gradient says {expected}"
            );
        }
    }
}

/// Inputs are rounded before both runs: what differs is the rounding of the output (2⁻⁹ of each value), and in the
/// gradient that of the output and of its gradient, which enter it.
#[test]
fn bf16_stays_within_one_percent_of_f32() {
    if !computes_in(DType::BF16) {
        return;
    }
    for window in [None, Some(64)] {
        let mut case = Case::new(&[1, 66, 200], 2, 64, 100)
            .window(window)
            .theta(10_000.0);
        for x in case.qkv.iter_mut().chain(&mut case.d_out) {
            // Truncation gives a number that bf16 represents.
            *x = f32::from_bits(x.to_bits() & 0xffff_0000);
        }
        let (out, grad) = case.run_in(FloatDType::BF16);
        let (expected_out, expected_grad) = case.run();
        let errors = [
            relative_rms_error(&wide(&out), &wide(&expected_out)),
            relative_rms_error(&wide(&grad), &wide(&expected_grad)),
        ];
        assert!(
            errors[0] < 0.003 && errors[1] < 0.01,
            "window {window:?}: {errors:?}"
        );
        assert!(
            errors[0] > 1e-4,
            "an output without rounding was not computed in bf16"
        );
    }
}

/// As for bf16; f16 is eight times as precise.
#[test]
fn f16_stays_within_one_thousandth_of_f32() {
    if !computes_in(DType::F16) {
        return;
    }
    for window in [None, Some(64)] {
        let mut case = Case::new(&[1, 66, 200], 2, 64, 102)
            .window(window)
            .theta(10_000.0);
        for x in case.qkv.iter_mut().chain(&mut case.d_out) {
            *x = half::f16::from_f32(*x).to_f32();
        }
        let (out, grad) = case.run_in(FloatDType::F16);
        let (expected_out, expected_grad) = case.run();
        let errors = [
            relative_rms_error(&wide(&out), &wide(&expected_out)),
            relative_rms_error(&wide(&grad), &wide(&expected_grad)),
        ];
        assert!(
            errors[0] < 0.0004 && errors[1] < 0.0012,
            "window {window:?}: {errors:?}"
        );
        assert!(
            errors[0] > 1e-5,
            "an output without rounding was not computed in f16"
        );
    }
}

/// Size of half a head, theta and softcap. A kernel is compiled for each of the six, which on a software driver takes longer than its
/// runs: they differ in padding, in the passes over a row, in RoPE and in the softcap.
fn variants() -> impl Strategy<Value = (usize, Option<f64>, Option<f64>)> {
    prop_oneof![
        Just((1, Some(10_000.0), None)),
        Just((7, None, None)),
        Just((8, Some(160_000.0), Some(3.0))),
        Just((13, Some(10_000.0), None)),
        Just((16, Some(160_000.0), None)),
        Just((19, None, Some(3.0))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn any_lengths_and_windows_are_as_accurate_as_f32_allows(
        lengths in prop::collection::vec(prop_oneof![3 => 0usize..12, 1 => 60usize..72], 0..6),
        window in prop_oneof![Just(None), (0usize..80).prop_map(Some)],
        (half_dim, theta, softcap) in variants(),
        heads in 1usize..4,
        seed in any::<u32>(),
    ) {
        prop_assume!(lengths.iter().sum::<usize>() > 0);
        let case = Case::new(&lengths, heads, 2 * half_dim, u64::from(seed));
        let shares = excess(&case.window(window).theta(theta).softcap(softcap));
        prop_assert!(shares.iter().all(|&share| share <= 1.0), "times the allowed error: {:?}", shares);
    }
}
