//! Every kernel of every instruction set of this processor against sums in f64.

use cpu_gemm::element::{Element, Float, quantize_row};
use cpu_gemm::kernel::{MicrokernelArgs, Multiply, PANEL, ROWS};
use cpu_gemm::{InstructionSet, Panels, Team};
use half::bf16;
use proptest::prelude::*;

fn team() -> Team {
    Team::new(2).expect("threads")
}

/// Values of a hash, in [-1, 1).
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next(&mut state)).collect()
}

/// A left operand with its inner dimension padded to whole steps and its rows to a multiple of 16.
struct Left<E> {
    data: Vec<E>,
    stride: usize,
}

fn left<E: Float>(rows: usize, depth: usize, values: &[f32]) -> Left<E> {
    let stride = depth.next_multiple_of(E::STEP) + 32;
    let mut data = vec![E::of(0.0); rows.next_multiple_of(16) * stride];
    for row in 0..rows {
        E::slice_from_f32(
            &values[row * depth..][..depth],
            &mut data[row * stride..][..depth],
        );
    }
    Left { data, stride }
}

fn product<E: Multiply>(
    isa: InstructionSet,
    left: &Left<E>,
    rows: usize,
    panels: &Panels<E>,
    zero: E::Sum,
) -> Vec<E::Sum> {
    let _guard = isa.enter();
    let columns = panels.count() * PANEL;
    let stride = columns + 16;
    let mut out = vec![zero; rows.next_multiple_of(ROWS) * stride];
    for panel in 0..panels.count() {
        for first in (0..rows).step_by(ROWS) {
            let tile = MicrokernelArgs {
                left: left.data[first * left.stride..].as_ptr(),
                left_stride: left.stride,
                rows: (rows - first).min(ROWS),
                to: out[first * stride + panel * PANEL..].as_mut_ptr(),
                to_stride: stride,
            };
            // SAFETY: `left` pads the rows, `out` has whole tiles, and only supported units are passed.
            unsafe { E::tile(isa, tile, panels.panel(panel)) }
        }
    }
    (0..rows)
        .flat_map(|row| out[row * stride..][..panels.columns()].to_vec())
        .collect()
}

fn check_float<E: Float + Multiply>(rows: usize, depth: usize, columns: usize, seed: u64) {
    let (a, b) = (
        values(seed, rows * depth),
        values(seed + 1, columns * depth),
    );
    let packed = Panels::<E>::of_rows(&team(), depth, columns, |j| Some(&b[j * depth..][..depth]));
    let left = left::<E>(rows, depth, &a);
    let rounded = |x: &f32| {
        let mut wide = [0.0];
        E::slice_to_f32(&[E::of(*x)], &mut wide);
        f64::from(wide[0])
    };
    for isa in InstructionSet::supported() {
        let found = product(isa, &left, rows, &packed, 0.0);
        for (i, row) in a.chunks(depth).enumerate() {
            for (j, column) in b.chunks(depth).enumerate() {
                let exact: f64 = row
                    .iter()
                    .zip(column)
                    .map(|(x, y)| rounded(x) * rounded(y))
                    .sum();
                let size: f64 = row
                    .iter()
                    .zip(column)
                    .map(|(x, y)| (rounded(x) * rounded(y)).abs())
                    .sum();
                let error = (f64::from(found[i * columns + j]) - exact).abs();
                assert!(
                    error <= 3e-7 * size + 1e-30,
                    "{isa} ({rows}, {depth}, {columns}) at ({i}, {j}): {error:e} of {size:e}"
                );
            }
        }
        let again = product(isa, &left, rows, &packed, 0.0);
        assert!(
            found
                .iter()
                .zip(&again)
                .all(|(x, y)| x.to_bits() == y.to_bits())
        );
        // A row by itself has the same bits: batch-invariant.
        let last = Left {
            data: left.data[(rows - 1) * left.stride..].to_vec(),
            stride: left.stride,
        };
        let mut last = last;
        last.data.resize(16 * left.stride, E::of(0.0));
        let alone = product(isa, &last, 1, &packed, 0.0);
        assert!(
            alone
                .iter()
                .zip(&found[(rows - 1) * columns..])
                .all(|(x, y)| x.to_bits() == y.to_bits())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn f32_products_are_those_of_f64(rows in 1usize..70, depth in 1usize..200, columns in 1usize..100, seed in 0u64..1000) {
        check_float::<f32>(rows, depth, columns, seed);
    }

    #[test]
    fn bf16_products_are_those_of_f64(rows in 1usize..70, depth in 1usize..200, columns in 1usize..100, seed in 0u64..1000) {
        check_float::<bf16>(rows, depth, columns, seed);
    }

    #[test]
    fn i8_products_are_exact(rows in 1usize..70, depth in 1usize..300, columns in 1usize..100, seed in 0u64..1000) {
        let (a, b) = (values(seed, rows * depth), values(seed + 1, columns * depth));
        let packed = Panels::<i8>::quantized(&team(), depth, columns, |j| Some(&b[j * depth..][..depth]));
        let stride = depth.next_multiple_of(i8::STEP);
        let mut left = Left { data: vec![0i8; rows.next_multiple_of(16) * stride], stride };
        for row in 0..rows {
            quantize_row(&a[row * depth..][..depth], &mut left.data[row * stride..][..depth]);
        }
        let mut codes = vec![0i8; depth];
        let right: Vec<Vec<i8>> = b.chunks(depth).map(|row| {
            quantize_row(row, &mut codes);
            codes.clone()
        }).collect();
        for isa in InstructionSet::supported() {
            let found = product(isa, &left, rows, &packed, 0);
            for row in 0..rows {
                for (column, right) in right.iter().enumerate() {
                    let exact: i32 = left.data[row * stride..].iter().zip(right).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
                    prop_assert_eq!(found[row * columns + column], exact, "{} at ({}, {})", isa, row, column);
                }
            }
        }
    }
}

#[test]
fn an_inner_dimension_of_zero_gives_zeros() {
    let packed = Panels::<bf16>::of_rows(&team(), 0, 40, |_| Some(&[]));
    let left = Left {
        data: vec![bf16::ONE; 32 * 32],
        stride: 32,
    };
    for isa in InstructionSet::supported() {
        assert_eq!(product(isa, &left, 20, &packed, 1.0), vec![0.0; 20 * 40]);
    }
}

#[test]
fn operands_packed_by_columns_or_by_rows_are_those_packed_at_once() {
    let (depth, columns) = (64, 70);
    let b = values(3, depth * columns);
    let whole =
        Panels::<bf16>::of_rows(&team(), depth, columns, |j| Some(&b[j * depth..][..depth]));
    let len = whole.count() * whole.steps() * 1024;
    let mut keys = vec![bf16::ZERO; len];
    let mut rounded = vec![bf16::ZERO; whole.count() * PANEL * depth];
    bf16::slice_from_f32(&b, &mut rounded[..columns * depth]);
    for (columns, panel) in rounded
        .chunks_exact(PANEL * depth)
        .zip(keys.chunks_exact_mut(PANEL * depth))
    {
        cpu_gemm::pack::transpose(columns, panel);
    }
    // The same operand from its rows along the inner dimension.
    let mut across = vec![bf16::ZERO; len];
    for first in (0..depth).step_by(2) {
        let rows: Vec<bf16> = [first, first + 1]
            .into_iter()
            .flat_map(|k| (0..columns).map(move |j| (k, j)))
            .map(|(k, j)| bf16::of(b[j * depth + k]))
            .collect();
        let rows: Vec<&[bf16]> = rows.chunks_exact(columns).collect();
        cpu_gemm::pack::pack_group(&mut across, whole.steps(), first, &rows, columns);
    }
    let expected: Vec<bf16> = (0..whole.count())
        .flat_map(|i| whole.panel(i).data().to_vec())
        .collect();
    assert_eq!(keys, expected);
    assert_eq!(across, expected);
}

#[test]
fn rows_of_a_transposed_operand_are_its_columns() {
    for (rows, depth, stride) in [
        (1, 1, 5),
        (16, 32, 16),
        (33, 70, 40),
        (48, 64, 48),
        (5, 96, 7),
    ] {
        let from: Vec<bf16> = values(7, depth * stride)
            .into_iter()
            .map(bf16::of)
            .collect();
        let to_stride = depth.next_multiple_of(32) + 32;
        let mut to = vec![bf16::ZERO; rows * to_stride];
        cpu_gemm::pack::transpose_left(&from, stride, rows, depth, &mut to, to_stride);
        for row in 0..rows {
            for k in 0..to_stride {
                let expected = if k < depth {
                    from[k * stride + row]
                } else {
                    bf16::ZERO
                };
                assert_eq!(
                    to[row * to_stride + k],
                    expected,
                    "{rows} {depth} at ({row}, {k})"
                );
            }
        }
    }
}
