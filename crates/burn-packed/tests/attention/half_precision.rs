//! bf16 and f16, for which devices with tensor cores have special kernels: for heads of 64, and for other sizes.

use burn::tensor::{DType, Device, FloatDType};

use crate::case::Case;
use crate::naive;
use test_support::{autodiff_device, bits, computes_in, holds, largest, max_error, normals, wide};

type Rounding = fn(f32) -> f32;

/// The dtypes in which the device under test computes, with their rounding and the distance of neighbors at 1.
fn dtypes() -> Vec<(FloatDType, Rounding, f64)> {
    let bf16: Rounding = |x| half::bf16::from_f32(x).to_f32();
    let f16: Rounding = |x| half::f16::from_f32(x).to_f32();
    [
        (FloatDType::BF16, bf16, 1.0 / 128.0),
        (FloatDType::F16, f16, 1.0 / 1024.0),
    ]
    .into_iter()
    .filter(|(dtype, ..)| computes_in(DType::from(*dtype)))
    .collect()
}

/// Errors of the output and of the gradients of q, k and v are at most twice those of loops that round every tensor, plus half a step
/// of the dtype at the largest value (the loops' errors may cancel).
#[track_caller]
fn assert_accurate(case: &Case) {
    for (dtype, round, step) in dtypes() {
        let case = case.clone().rounded(round);
        let (out, grad) = case.run_in(dtype);
        let (naive_out, naive_grad) = naive::run_rounded(&case, round);
        let (expected_out, expected_grad) = case.reference();
        // A gradient whose terms cancel is compared to the size of the terms.
        let scale = largest(&expected_grad).max(1.0);
        let check = |name: &str, found: &[f32], naive: &[f32], expected: &[f64]| {
            let allowed = 2.0 * max_error(&wide(naive), expected) + 0.5 * step * scale;
            let error = max_error(&wide(found), expected);
            assert!(
                error <= allowed,
                "{dtype:?} {name}: error {error}, allowed {allowed}; lengths {:?}, window {:?}, theta {:?}, softcap {:?}",
                case.lengths,
                case.half_window,
                case.theta,
                case.softcap
            );
        };
        check("output", &out, &naive_out, &expected_out);
        let width = case.heads * case.head_dim;
        for (part, name) in ["gradient of q", "gradient of k", "gradient of v"]
            .into_iter()
            .enumerate()
        {
            let of = |values: &[f32]| -> Vec<f32> {
                let tokens = values.chunks(3 * width);
                tokens
                    .flat_map(|token| token[part * width..(part + 1) * width].to_vec())
                    .collect()
            };
            let of64: Vec<f64> = expected_grad
                .chunks(3 * width)
                .flat_map(|token| token[part * width..(part + 1) * width].to_vec())
                .collect();
            check(name, &of(&grad), &of(&naive_grad), &of64);
        }
    }
}

/// Lengths around every boundary: none, one, two tokens, a tile of 64, a window, two tiles, two windows.
const RAGGED: [usize; 14] = [0, 1, 2, 63, 64, 65, 66, 0, 127, 128, 129, 130, 191, 193];

#[test]
fn every_window_is_as_accurate_as_the_dtype_allows() {
    for (seed, window) in [None, Some(0), Some(1), Some(64), Some(65), Some(500)]
        .into_iter()
        .enumerate()
    {
        assert_accurate(&Case::new(&RAGGED, 2, 64, 400 + seed as u64).window(window));
    }
}

#[test]
fn attention_with_rope_is_as_accurate_as_the_dtype_allows() {
    assert_accurate(&Case::new(&RAGGED, 3, 64, 410).theta(160_000.0));
    assert_accurate(&Case::new(&RAGGED, 3, 64, 412).theta(10_000.0).window(64));
}

#[test]
fn every_head_size_is_as_accurate_as_the_dtype_allows() {
    for (seed, head_dim) in [8, 16, 32, 48, 80, 96, 128].into_iter().enumerate() {
        let case = Case::new(&[1, 70, 0, 130], 2, head_dim, 480 + 2 * seed as u64);
        assert_accurate(&case);
        assert_accurate(&case.clone().theta(10_000.0));
        assert_accurate(&case.theta(10_000.0).window(33));
    }
}

#[test]
fn a_softcap_is_as_accurate_as_the_dtype_allows_for_other_head_sizes() {
    for (seed, head_dim) in [32, 80, 128].into_iter().enumerate() {
        let case = Case::new(&[66, 7], 2, head_dim, 500 + 2 * seed as u64).softcap(3.0);
        assert_accurate(&case.theta(10_000.0).window(20));
    }
}

#[test]
fn a_thousand_tokens_are_as_accurate_as_the_dtype_allows() {
    assert_accurate(&Case::new(&[1000, 7], 1, 64, 420).theta(160_000.0));
    assert_accurate(&Case::new(&[1000, 7], 1, 64, 422).theta(10_000.0).window(64));
}

#[test]
fn a_softcap_is_as_accurate_as_the_dtype_allows() {
    assert_accurate(
        &Case::new(&[66, 130], 2, 64, 430)
            .with_qk_times(2.0)
            .softcap(5.0),
    );
    assert_accurate(&Case::new(&[66, 130], 2, 64, 432).softcap(30.0).window(16));
}

#[test]
fn large_scores_stay_finite() {
    for (dtype, round, _) in dtypes() {
        for window in [None, Some(3)] {
            let case = Case::new(&[1, 70, 200], 2, 64, 440)
                .with_qk_times(30.0)
                .window(window)
                .rounded(round);
            let (out, grad) = case.run_in(dtype);
            assert!(
                out.iter().chain(&grad).all(|x| x.is_finite()),
                "{dtype:?} {window:?}"
            );
        }
    }
}

/// The CPU where it is compiled in, else the device under test; with gradients.
///
/// At 8192 tokens a software GPU takes minutes and the CPU seconds; and the CPU's f32 attention is an implementation that is
/// independent of the one under test.
fn reference_device() -> Device {
    match burn_packed::device::select(Some("flex")) {
        Ok(flex) => flex.device.autodiff(),
        Err(_) => autodiff_device(),
    }
}

#[test]
fn eight_thousand_tokens_agree_with_f32() {
    if dtypes().is_empty() || !holds(8192 * 3 * 128) {
        return;
    }
    let close = |found: &[f32], expected: &[f32], allowed: f64, what: &str| {
        let error = test_support::relative_rms_error(&wide(found), &wide(expected));
        assert!(error < allowed, "{what}: {error}");
    };
    for (dtype, round, step) in dtypes() {
        for window in [None, Some(64)] {
            let case = Case::new(&[8192, 30], 1, 64, 450)
                .window(window)
                .theta(160_000.0)
                .rounded(round);
            let (expected_out, expected_grad) = case.run_on(&reference_device(), FloatDType::F32);
            let (out, grad) = case.run_in(dtype);
            let what = format!("{dtype:?} {window:?}");
            close(&out, &expected_out, 1.5 * step, &what);
            close(&grad, &expected_grad, 1.5 * step, &what);
            if window.is_some() {
                let (out, grad) = case.run();
                close(&out, &expected_out, 1e-5, "f32, local");
                close(&grad, &expected_grad, 1e-5, "f32, local");
            }
        }
    }
}

/// Results of a sequence depend on that sequence alone, and every run has the same bits.
#[test]
fn results_are_batch_invariant_and_repeatable() {
    for (dtype, round, _) in dtypes() {
        for (window, head_dim) in [
            (None, 64),
            (Some(16), 64),
            (Some(64), 64),
            (None, 128),
            (Some(64), 32),
        ] {
            let lengths = [5, 70, 0, 300, 129, 1];
            let case = Case::new(&lengths, 2, head_dim, 460)
                .theta(10_000.0)
                .window(window)
                .rounded(round);
            let first = case.run_in(dtype);
            for _ in 0..2 {
                let again = case.run_in(dtype);
                assert_eq!(
                    bits(&first.0),
                    bits(&again.0),
                    "{dtype:?} {window:?}: repeated"
                );
                assert_eq!(
                    bits(&first.1),
                    bits(&again.1),
                    "{dtype:?} {window:?}: repeated"
                );
            }
            // The second sequence is replaced; then the order is reversed.
            let width = 2 * head_dim;
            let mut changed = case.clone();
            changed.qkv[5 * 3 * width..75 * 3 * width]
                .copy_from_slice(&normals(70, 70 * 3 * width));
            let changed = changed.rounded(round).run_in(dtype);
            assert_eq!(bits(&first.0[75 * width..]), bits(&changed.0[75 * width..]));
            assert_eq!(
                bits(&first.1[75 * 3 * width..]),
                bits(&changed.1[75 * 3 * width..])
            );

            let mut reversed = case.clone();
            (reversed.lengths, reversed.qkv, reversed.d_out) = (vec![], vec![], vec![]);
            for index in (0..lengths.len()).rev() {
                let start: usize = lengths[..index].iter().sum();
                let end = start + lengths[index];
                reversed.lengths.push(lengths[index]);
                reversed
                    .qkv
                    .extend_from_slice(&case.qkv[start * 3 * width..end * 3 * width]);
                reversed
                    .d_out
                    .extend_from_slice(&case.d_out[start * width..end * width]);
            }
            let found = reversed.run_in(dtype);
            let mut from = 0;
            for index in (0..lengths.len()).rev() {
                let start: usize = lengths[..index].iter().sum();
                let count = lengths[index];
                for (results, other, row) in
                    [(&first.0, &found.0, width), (&first.1, &found.1, 3 * width)]
                {
                    assert_eq!(
                        bits(&results[start * row..(start + count) * row]),
                        bits(&other[from * row..(from + count) * row]),
                        "{dtype:?} {window:?}: sequence {index} at another place"
                    );
                }
                from += count;
            }
        }
    }
}
