//! Quantization to e4m3 and GEMMs on its codes, against the definition in f64.

use burn::tensor::{DType, FloatDType, Tensor};
use burn_packed::ops::fp8::{Product, Quantized, add_layer_norm, linear};
use burn_packed::ops::layer_norm;

use test_support::{computes_in, device, normals, read, tensor};

/// Every finite number of e4m3 that is not negative, in ascending order.
fn numbers() -> Vec<f64> {
    let subnormal = (0..8).map(|mantissa| f64::from(mantissa) * 2f64.powi(-9));
    let normal = (1..16).flat_map(|exponent| {
        (0..8).map(move |mantissa| f64::from(8 + mantissa) * 2f64.powi(exponent - 10))
    });
    // The last one would be 480, which is NaN.
    subnormal.chain(normal).take(127).collect()
}

/// The quantized values of rows in f64: the number nearest to `448 x / max`, times `max / 448`. Between two numbers at the same distance up to
/// rounding either is right, so `found` decides.
fn check_quantized(rows: &[f32], width: usize, found: &[f32], what: &str) {
    let numbers = numbers();
    for (r, (row, found)) in rows.chunks(width).zip(found.chunks(width)).enumerate() {
        let most = row
            .iter()
            .fold(0.0f64, |most, &x| most.max(f64::from(x).abs()));
        for (k, (&x, &value)) in row.iter().zip(found).enumerate() {
            let code = f64::from(x).abs() * 448.0 / most;
            let best = numbers
                .iter()
                .map(|number| (number - code).abs())
                .fold(f64::INFINITY, f64::min);
            let value = f64::from(value) * 448.0 / most;
            let distance = (value.abs() - code).abs();
            assert!(
                distance <= best + 1e-6 * code
                    && (value == 0.0 || value.signum() == f64::from(x).signum()),
                "{what}: row {r}, column {k}: {x} became {value} of 448, best {best}"
            );
            let is_number = numbers.iter().any(|n| (n - value.abs()).abs() <= 1e-6 * n);
            assert!(
                is_number,
                "{what}: row {r}, column {k}: {value} is no number of e4m3"
            );
        }
    }
}

/// Normal numbers whose rows have different magnitudes, from 1e-4 to 1e4.
fn rows(seed: u64, count: usize, width: usize) -> Vec<f32> {
    rows_between(seed, count, width, 4)
}

/// Normal numbers whose rows have different magnitudes, from `10^-most` to `10^most`.
fn rows_between(seed: u64, count: usize, width: usize, most: i32) -> Vec<f32> {
    let mut values = normals(seed, count * width);
    for (r, row) in values.chunks_mut(width).enumerate() {
        let factor = 10f32.powi(r as i32 % (2 * most + 1) - most);
        row.iter_mut().for_each(|x| *x *= factor);
    }
    values
}

fn quantized(values: &[f32], width: usize) -> Quantized {
    let shape = [values.len() / width, width];
    Quantized::new(tensor(values, shape, &device()))
}

const SIZES: [[usize; 2]; 6] = [[1, 16], [3, 48], [7, 768], [130, 64], [33, 1152], [5, 2624]];

#[test]
fn every_value_is_the_nearest_number() {
    for [count, width] in SIZES {
        let values = rows(1, count, width);
        let found = quantized(&values, width).values().unwrap();
        check_quantized(&values, width, &found, &format!("{count} x {width}"));
    }
}

#[test]
fn half_precision_inputs_are_quantized_from_their_values() {
    for half in halves() {
        let dtype = half.dtype;
        let input = tensor(&normals(2, 9 * 64), [9, 64], &device()).cast(dtype);
        let rounded = read(input.clone().cast(FloatDType::F32));
        let found = Quantized::new(input).values().unwrap();
        check_quantized(&rounded, 64, &found, &format!("{dtype:?}"));
    }
}

#[test]
fn zeros_stay_zeros_and_tiny_rows_become_zeros() {
    let mut values = vec![0.0f32; 3 * 32];
    values[32] = 1e-38;
    values[64] = 1.0;
    let found = quantized(&values, 32).values().unwrap();
    assert!(found[..64].iter().all(|&x| x == 0.0));
    assert_eq!(found[64], 1.0);
}

/// Values of the products in f64, and the sum of their magnitudes, which bounds the rounding.
fn products(left: &[f32], right: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let pairs = left
        .chunks(width)
        .flat_map(|a| right.chunks(width).map(move |b| (a, b)));
    let terms = |(a, b): (&[f32], &[f32])| -> (f64, f64) {
        let terms = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
        terms.fold((0.0, 0.0), |(sum, size), term| {
            (sum + term, size + term.abs())
        })
    };
    pairs.map(terms).unzip()
}

fn gelu(x: f64) -> f64 {
    // Φ by numerical integration of its density from 0 to x (Simpson's rule).
    let steps = 400;
    let h = x / f64::from(steps);
    let density = |i: i32| (-0.5 * (f64::from(i) * h).powi(2)).exp();
    let inner: f64 = (1..steps)
        .map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * density(i))
        .sum();
    let integral = h / 3.0 * (density(0) + inner + density(steps));
    x * (0.5 + integral / (2.0 * std::f64::consts::PI).sqrt())
}

/// A dtype of results, and its rounding.
#[derive(Clone, Copy)]
struct Half {
    dtype: FloatDType,
    /// Largest relative error of a normal number.
    relative: f64,
    /// Largest error of a smaller number.
    absolute: f64,
    /// Operands of magnitude `10^-most` to `10^most` have results that are numbers.
    most: i32,
}

/// The dtypes of results that the device computes in. Burn's casts to others give wrong numbers without an error.
fn halves() -> Vec<Half> {
    let bf16 = Half {
        dtype: FloatDType::BF16,
        relative: 1.0 / 256.0,
        absolute: 0.0,
        most: 4,
    };
    let f16 = Half {
        dtype: FloatDType::F16,
        relative: 1.0 / 2048.0,
        absolute: 2f64.powi(-25),
        most: 1,
    };
    let computed = |half: &Half| computes_in(DType::from(half.dtype));
    [bf16, f16].into_iter().filter(computed).collect()
}

/// Rounding of sums, as a part of the sum of magnitudes. The tensor cores of Hopper cut each addition of 32 products off at about 13 bits below its
/// largest operand; measured at widths up to 2624: 2.6e-4.
const SUMS: f64 = 1.0 / 2048.0;

const GEMMS: [[usize; 3]; 8] = [
    [1, 16, 16],
    [5, 64, 48],
    [130, 128, 256],
    [64, 768, 320],
    [129, 768, 2304],
    [300, 1152, 768],
    [17, 2624, 1024],
    [257, 144, 80],
];

#[test]
fn products_equal_the_definition() {
    for half in halves() {
        for shape in GEMMS {
            check_products(shape, half);
        }
    }
}

fn check_products([tokens, width, outputs]: [usize; 3], half: Half) {
    let input = quantized(&rows_between(3, tokens, width, half.most), width);
    let weight = quantized(&rows_between(4, outputs, width, half.most), width);
    let (exact, sizes) = products(&input.values().unwrap(), &weight.values().unwrap(), width);
    let product = Product {
        geglu: false,
        dtype: half.dtype,
    };
    let found = read(linear(&input, &weight, product).cast(FloatDType::F32));
    for (i, ((&found, exact), size)) in found.iter().zip(&exact).zip(&sizes).enumerate() {
        let allowed = half.relative * exact.abs() + half.absolute + SUMS * size;
        assert!(
            (f64::from(found) - exact).abs() <= allowed,
            "{:?}, {tokens} x {width} x {outputs}, element {i}: {found} instead of {exact}, allowed {allowed}",
            half.dtype
        );
    }
}

#[test]
fn gated_products_equal_the_definition() {
    for half in halves() {
        for shape in [[1, 16, 16], [5, 64, 96], [130, 768, 2304], [70, 144, 160]] {
            check_gated_products(shape, half);
        }
    }
}

fn check_gated_products([tokens, width, outputs]: [usize; 3], half: Half) {
    // Activations of about 1, where GELU is nonlinear.
    let small = |seed, count: usize| -> Vec<f32> {
        let factor = (width as f32).powf(-0.25);
        let values = normals(seed, count * width);
        values.iter().map(|x| x * factor).collect()
    };
    let input = quantized(&small(5, tokens), width);
    let weight = quantized(&small(6, outputs), width);
    let (sums, sizes) = products(&input.values().unwrap(), &weight.values().unwrap(), width);
    let product = Product {
        geglu: true,
        dtype: half.dtype,
    };
    let found = read(linear(&input, &weight, product).cast(FloatDType::F32));
    let columns = outputs / 2;
    assert_eq!(found.len(), tokens * columns);
    for (i, &found) in found.iter().enumerate() {
        let (token, column) = (i / columns, i % columns);
        let (a, g) = (token * outputs + column, token * outputs + columns + column);
        let exact = gelu(sums[a]) * sums[g];
        // GELU's slope is below 1.13.
        let error = SUMS * (1.13 * sizes[a] * sums[g].abs() + gelu(sums[a]).abs() * sizes[g]);
        let allowed = half.relative * exact.abs() + error + 1e-5;
        assert!(
            (f64::from(found) - exact).abs() <= allowed,
            "{:?}, {tokens} x {width} x {outputs}, token {token}, column {column}: {found} instead of {exact}",
            half.dtype
        );
    }
}

#[test]
fn quantized_norm_is_that_of_the_sum() {
    for [count, width] in SIZES {
        let device = device();
        let x = tensor(&normals(7, count * width), [count, width], &device);
        let branch = tensor(&normals(8, count * width), [count, width], &device);
        let weight = tensor(&normals(9, width), [width], &device);
        let (sum, found) = add_layer_norm(x.clone(), branch.clone(), weight.clone(), 1e-5);
        let (expected_sum, normed) =
            layer_norm::add_layer_norm(x, branch, weight, 1e-5, burn::tensor::DType::F32);
        assert_eq!(read(sum), read(expected_sum), "{count} x {width}");
        let found = found.values().unwrap();
        // A norm that differs in its last bit may be nearer to another number.
        let expected = Quantized::new(normed.clone()).values().unwrap();
        let normed = read(normed);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let step = (normed[i].abs() / 8.0).max(1e-2);
            assert!(
                (found - expected).abs() <= step,
                "{count} x {width}, element {i}: {found} instead of {expected}"
            );
        }
        let equal = found.iter().zip(&expected).filter(|(a, b)| a == b).count();
        assert!(
            equal * 100 >= 99 * found.len(),
            "{equal} of {}",
            found.len()
        );
    }
}

#[test]
fn a_row_depends_on_itself_alone() {
    let (width, outputs) = (768, 256);
    for half in halves() {
        let values = rows_between(10, 300, width, half.most);
        let weight = quantized(&rows_between(11, outputs, width, half.most), width);
        let product = Product {
            geglu: false,
            dtype: half.dtype,
        };
        let run = |rows: &[f32]| -> Vec<f32> {
            read(linear(&quantized(rows, width), &weight, product).cast(FloatDType::F32))
        };
        let all = run(&values);
        for (first, count) in [(0, 1), (17, 3), (128, 129)] {
            let alone = run(&values[first * width..(first + count) * width]);
            let found = &all[first * outputs..(first + count) * outputs];
            let differs = alone.iter().zip(found).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{:?}, row {first}", half.dtype);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_reach_the_result_of_their_row_alone() {
    for half in halves() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = normals(12, 5 * 64);
            values[2 * 64 + 9] = bad;
            let weight = quantized(&normals(13, 32 * 64), 64);
            let product = Product {
                geglu: false,
                dtype: half.dtype,
            };
            let out = read(linear(&quantized(&values, 64), &weight, product).cast(FloatDType::F32));
            for (row, values) in out.chunks(32).enumerate() {
                let wanted = row != 2;
                assert!(
                    values.iter().all(|x| x.is_finite() == wanted),
                    "{:?}, {bad}, row {row}",
                    half.dtype
                );
            }
        }
    }
}

#[test]
fn no_rows_give_no_rows() {
    let device = device();
    let empty = Quantized::new(Tensor::zeros([0, 64], &device));
    let weight = quantized(&normals(14, 32 * 64), 64);
    let product = Product {
        geglu: true,
        dtype: FloatDType::F16,
    };
    assert_eq!(linear(&empty, &weight, product).dims(), [0, 16]);
}
