//! Dropout: the same mask on every backend, its rate, independence of keys and indices, the gradient.

use burn::tensor::{DType, FloatDType, Tensor};
use burn_packed::batch::{Dropout, DropoutRates, SequenceLayout};
use burn_packed::ops::attention::{AttentionSpec, attention, rotary_table};
use burn_packed::ops::dropout::{DropoutSpec, Site, attention_with_dropout, dropout};

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, normals, read, read64,
    relative_error, tensor, tensor64, wide,
};

fn spec(rate: f64, words: [u64; 4]) -> DropoutSpec {
    DropoutSpec::new(rate, words).unwrap()
}

/// Returns true if each of `count` elements is kept.
fn kept(count: usize, spec: DropoutSpec) -> Vec<bool> {
    let ones = Tensor::<1>::ones([count], (&device(), DType::F32));
    read(dropout(ones, spec)).iter().map(|&x| x > 0.0).collect()
}

/// The mask by an independent implementation of the definition.
fn defined(count: usize, rate: f64, words: [u64; 4]) -> Vec<bool> {
    let mut key = 0u64;
    for word in words {
        key = (key ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        key ^= key >> 31;
    }
    let mix = |mut x: u32| {
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    };
    let threshold = (rate * 2f64.powi(32)).round() as u64;
    (0..count as u32)
        .map(|i| u64::from(mix(mix(i ^ key as u32) ^ (key >> 32) as u32)) >= threshold)
        .collect()
}

/// A resumed run must have the same masks on every machine.
#[test]
fn mask_equals_the_golden_values() {
    let golden = [
        0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1,
    ];
    let found = kept(24, spec(0.5, [17, 3, 2, 4]));
    assert_eq!(found, golden.map(|kept| kept == 1));
}

#[test]
fn mask_equals_the_definition() {
    for (rate, words, count) in [
        (0.1, [17, 0, 0, 3], 70_000),
        (0.5, [u64::MAX, 1 << 40, 21, 4], 1000),
        (0.9, [0, 0, 0, 0], 333),
    ] {
        assert_eq!(kept(count, spec(rate, words)), defined(count, rate, words));
    }
}

/// Indices count elements in row-major order for any rank; a view is like its copy.
#[test]
fn mask_depends_on_row_major_indices() {
    let drop = spec(0.3, [1, 2, 3, 4]);
    let values = normals(1, 7 * 30);
    let matrix = tensor(&values, [7, 30], &device());
    let flat = read(dropout(matrix.clone().reshape([210]), drop));
    assert_eq!(bits(&read(dropout(matrix.clone(), drop))), bits(&flat));
    let cube = matrix.clone().reshape([2, 3, 35]);
    assert_eq!(bits(&read(dropout(cube, drop))), bits(&flat));
    let turned: Tensor<2> = matrix.swap_dims(0, 1);
    let copied = tensor(&read(turned.clone()), [30, 7], &device());
    assert_eq!(
        bits(&read(dropout(turned, drop))),
        bits(&read(dropout(copied, drop)))
    );
}

#[test]
fn rate_and_mean_are_as_specified() {
    let count = 1_000_000usize;
    for rate in [0.1, 0.25, 0.5] {
        let kept = kept(count, spec(rate, [9, 8, 7, 3]));
        let share = kept.iter().filter(|kept| !**kept).count() as f64 / count as f64;
        // Five standard deviations of the binomial.
        let five = 5.0 * (rate * (1.0 - rate) / count as f64).sqrt();
        assert!((share - rate).abs() < five, "{share} at a rate of {rate}");
        // Neighboring elements, and elements a row of 768 apart, are uncorrelated.
        for distance in [1, 2, 16, 768] {
            let both = (0..count - distance)
                .filter(|&i| !kept[i] && !kept[i + distance])
                .count();
            let share = both as f64 / (count - distance) as f64;
            let expected = rate * rate;
            let five = 5.0 * (2.0 * expected * (1.0 - expected) / count as f64).sqrt();
            assert!(
                (share - expected).abs() < five,
                "{share} at a distance of {distance}, rate {rate}"
            );
        }
    }
    let values = read(dropout(
        Tensor::<1>::ones([64], (&device(), DType::F32)),
        spec(0.2, [1; 4]),
    ));
    assert!(values.iter().all(|&x| x == 0.0 || (x - 1.25).abs() < 1e-6));
}

/// Masks of different seeds, batches, layers and sites are uncorrelated.
#[test]
fn keys_are_independent() {
    let count = 200_000;
    let base = [17u64, 1000, 5, 3];
    let rate = 0.1;
    let first = kept(count, spec(rate, base));
    assert_eq!(first, kept(count, spec(rate, base)));
    for (word, change) in [
        (0, 1u64),
        (0, 1 << 63),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 4),
        (3, 1),
        (3, 7),
    ] {
        let mut words = base;
        words[word] ^= change;
        let other = kept(count, spec(rate, words));
        let both = first
            .iter()
            .zip(&other)
            .filter(|(a, b)| !**a && !**b)
            .count();
        let expected = rate * rate * count as f64;
        let difference = (both as f64 - expected).abs();
        assert!(
            difference < 5.0 * expected.sqrt(),
            "{both} in common instead of {expected}"
        );
    }
    // The result depends on the order of the words.
    assert_ne!(first, kept(count, spec(rate, [1000, 17, 5, 3])));
}

#[test]
fn gradient_has_the_mask_of_the_value() {
    let (rows, width) = (40, 33);
    let drop = spec(0.4, [3, 1, 4, 1]);
    let device = autodiff_device();
    let x = tensor(&normals(2, rows * width), [rows, width], &device).require_grad();
    let d_out = normals(3, rows * width);
    let out = dropout(x.clone(), drop);
    let weighted = out.clone() * tensor(&d_out, [rows, width], &device);
    let grads = weighted.sum().backward();
    let expected = |values: &[f32]| -> Vec<f64> {
        let mask = defined(rows * width, 0.4, [3, 1, 4, 1]);
        let kept = |(&x, &kept): (&f32, &bool)| if kept { f64::from(x) / 0.6 } else { 0.0 };
        values.iter().zip(&mask).map(kept).collect()
    };
    let found = read(out.inner());
    let values = expected(&normals(2, rows * width));
    assert_close(&found, &values, 1e-6, "values");
    let grad = read(x.grad(&grads).unwrap());
    assert_close(&grad, &expected(&d_out), 1e-6, "gradient");
}

/// f64 uses the fallback on every backend.
#[test]
fn fallback_has_the_same_mask() {
    if !computes_in(DType::F64) {
        return;
    }
    let drop = spec(0.3, [6, 5, 4, 3]);
    let values = normals(4, 5000);
    let found = read64(dropout(
        tensor64(&wide(&values), [50, 100], &device()),
        drop,
    ));
    let single = read(dropout(tensor(&values, [50, 100], &device()), drop));
    assert!(relative_error(&found, &wide(&single)) < 1e-6);
    assert!(
        found
            .iter()
            .zip(&single)
            .all(|(a, b)| (*a == 0.0) == (*b == 0.0))
    );
}

#[test]
fn bf16_is_the_rounded_f32_result() {
    if !computes_in(DType::BF16) {
        return;
    }
    let drop = spec(0.3, [6, 5, 4, 3]);
    let x = tensor(&normals(5, 600), [20, 30], &device()).cast(FloatDType::BF16);
    let expected = dropout(x.clone().cast(FloatDType::F32), drop).cast(FloatDType::BF16);
    assert_eq!(bits(&read(dropout(x, drop))), bits(&read(expected)));
}

#[test]
fn dropped_infinity_and_nan_become_zero() {
    let drop = spec(0.5, [1, 1, 1, 1]);
    let values = [f32::INFINITY; 64];
    let found = read(dropout(tensor(&values, [64], &device()), drop));
    assert!(found.contains(&0.0) && found.iter().all(|x| *x == 0.0 || *x == f32::INFINITY));
    assert_eq!(dropout(tensor(&[], [0, 4], &device()), drop).dims(), [0, 4]);
}

#[test]
fn spec_takes_the_rate_of_its_site() {
    assert_eq!(DropoutSpec::new(0.0, [1; 4]), None);
    let rates = DropoutRates {
        attention_output: 0.1,
        mlp: 0.1,
        ..DropoutRates::default()
    };
    let dropout = Dropout {
        rates,
        seed: 1,
        batch: 2,
    };
    assert_eq!(DropoutSpec::of(&dropout, 3, Site::Embedding), None);
    let (output, mlp) = (
        DropoutSpec::of(&dropout, 3, Site::AttentionOutput),
        DropoutSpec::of(&dropout, 3, Site::Mlp),
    );
    assert!(output.is_some() && mlp.is_some() && output != mlp);
    assert_ne!(output, DropoutSpec::of(&dropout, 4, Site::AttentionOutput));
    assert_ne!(
        output,
        DropoutSpec::of(
            &Dropout {
                batch: 3,
                ..dropout
            },
            3,
            Site::AttentionOutput
        )
    );
    assert!((output.unwrap().rate() - 0.1).abs() < 1e-9);
}

const LENGTHS: [usize; 4] = [70, 1, 0, 150];

fn attention_case(half_window: Option<usize>) -> (AttentionSpec, Vec<f32>, [usize; 4]) {
    let layout = SequenceLayout::from_lengths(LENGTHS).unwrap();
    let shape = [layout.total_tokens(), 3, 2, 16];
    let spec = AttentionSpec::new(layout, half_window, 0.25);
    (spec, normals(7, shape.iter().product()), shape)
}

/// At a rate of almost 0 the result is that of attention, in value and gradient, global and windowed.
#[test]
fn attention_at_rate_zero_equals_attention() {
    // A rate of 2⁻³².
    let drop = spec(2f64.powi(-32), [1, 2, 3, 4]);
    for half_window in [None, Some(9)] {
        let (spec, values, shape) = attention_case(half_window);
        let device = autodiff_device();
        let table = rotary_table(256, 16, 10_000.0, &device);
        let run = |dropped: bool| {
            let qkv = tensor(&values, shape, &device).require_grad();
            let out = if dropped {
                attention_with_dropout(qkv.clone(), Some(table.clone()), &spec, drop)
            } else {
                attention(qkv.clone(), Some(table.clone()), spec.clone())
            };
            let weights = tensor(
                &normals(8, out.dims().iter().product()),
                out.dims(),
                &device,
            );
            let grads = (out.clone() * weights).sum().backward();
            (read(out.inner()), read(qkv.grad(&grads).unwrap()))
        };
        let ((out, grad), (expected_out, expected_grad)) = (run(true), run(false));
        let what = |name: &str| format!("{name}, window {half_window:?}");
        assert_close(&out, &wide(&expected_out), 1e-5, &what("out"));
        assert_close(&grad, &wide(&expected_grad), 1e-5, &what("gradient"));
    }
}

/// With all values 1, the output is the sum of the remaining probabilities: 1 on average.
#[test]
fn attention_dropout_keeps_the_mean_of_probabilities() {
    let (spec, mut values, shape) = attention_case(None);
    for token in values.chunks_mut(3 * 32) {
        token[64..].fill(1.0);
    }
    let drop = DropoutSpec::new(0.2, [5, 5, 5, 2]).unwrap();
    let table = rotary_table(256, 16, 10_000.0, &device());
    let qkv = tensor(&values, shape, &device());
    let out = read(attention_with_dropout(
        qkv.clone(),
        Some(table.clone()),
        &spec,
        drop,
    ));
    let again = read(attention_with_dropout(qkv, Some(table), &spec, drop));
    assert_eq!(bits(&out), bits(&again));
    // The sixteen values of a token and head are equal. A sequence of one token keeps its only key or drops it.
    let sums: Vec<f64> = out.iter().step_by(16).map(|&x| f64::from(x)).collect();
    assert!(
        sums.iter().any(|sum| (sum - 1.0).abs() > 0.01),
        "some are dropped"
    );
    let long = &sums[2 * 71..];
    let mean = long.iter().sum::<f64>() / long.len() as f64;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
}
