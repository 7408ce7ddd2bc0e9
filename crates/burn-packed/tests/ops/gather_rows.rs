//! Row gather: values; gradients of rows that no token, few tokens and very many tokens read.

use burn::tensor::{DType, FloatDType};
use burn_packed::batch::{TokenOrder, int_tensor};
use burn_packed::ops::gather_rows::{gather_rows, gather_rows_backward, sum_rows};
use proptest::prelude::*;

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, ids, normals, read, tensor, wide,
};

/// Output and gradient from the op.
fn run(ids: &[u32], rows: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let device = autodiff_device();
    let table = tensor(&normals(1, rows * width), [rows, width], &device).require_grad();
    let places = int_tensor(ids.iter().map(|&id| id as i32), &device);
    let out = gather_rows(table.clone(), places, TokenOrder::new(ids.to_vec()));
    let d_out = tensor(&normals(2, ids.len() * width), [ids.len(), width], &device);
    let grads = (out.clone() * d_out).sum().backward();
    (read(out.inner()), read(table.grad(&grads).unwrap()))
}

fn check(ids: &[u32], rows: usize, width: usize) {
    let (out, grad) = run(ids, rows, width);
    let (table, d_out) = (normals(1, rows * width), normals(2, ids.len() * width));
    let mut expected = vec![0.0f64; rows * width];
    for (token, &id) in ids.iter().enumerate() {
        let row = id as usize * width;
        assert_eq!(
            bits(&out[token * width..(token + 1) * width]),
            bits(&table[row..row + width]),
            "a lookup copies"
        );
        for j in 0..width {
            expected[row + j] += f64::from(d_out[token * width + j]);
        }
    }
    assert_close(
        &grad,
        &expected,
        1e-6,
        &format!("gradient, {rows} x {width}"),
    );
    for row in (0..rows).filter(|&row| !ids.contains(&(row as u32))) {
        assert!(
            grad[row * width..(row + 1) * width]
                .iter()
                .all(|&g| g == 0.0),
            "row {row} was not read"
        );
    }
}

#[test]
fn values_and_gradients_equal_the_formula() {
    for (tokens, rows, width) in [(1, 1, 1), (5, 3, 4), (40, 7, 33), (17, 100, 768)] {
        check(&ids(3, tokens, rows as u32), rows, width);
    }
}

#[test]
fn long_runs_are_summed_in_pieces() {
    let mut ids = ids(4, 700, 50);
    ids.iter_mut().step_by(2).for_each(|id| *id = 49);
    check(&ids, 50, 36);
    check(&[2; 33], 3, 8);
    check(&[0; 64], 1, 260);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_ids_equal_the_formula(seed in 0u64..1000, tokens in 1usize..300, rows in 1usize..40) {
        check(&ids(seed, tokens, rows as u32), rows, 12);
    }
}

#[test]
fn gradients_of_two_uses_add_up() {
    let device = autodiff_device();
    let table = tensor(&normals(1, 6 * 4), [6, 4], &device).require_grad();
    let order = TokenOrder::new(vec![1, 4, 1]);
    let out = gather_rows(
        table.clone(),
        int_tensor([1, 4, 1].into_iter(), &device),
        order,
    );
    let grads = (out.sum() + (table.clone() * 2.0).sum()).backward();
    let mut expected = vec![2.0; 24];
    expected[4..8].fill(4.0);
    expected[16..20].fill(3.0);
    assert_close(
        &read(table.grad(&grads).unwrap()),
        &expected,
        1e-7,
        "gradient",
    );
}

#[test]
fn half_precision_gradients_are_summed_in_f32() {
    if !computes_in(DType::BF16) {
        return;
    }
    // 1024 ones and a thousandth: a sum in bf16 would stop at 256.
    let (count, width) = (1025, 4);
    let mut d_out = vec![1.0f32; count * width];
    d_out[..width].fill(1.0 / 1024.0);
    let d_out = tensor(&d_out, [count, width], &device()).cast(FloatDType::BF16);
    let places = int_tensor((0..count).map(|_| 1), &device());
    let grad = gather_rows_backward(d_out, places, TokenOrder::new(vec![1; count]), 3);
    assert_eq!(grad.dtype(), DType::F32);
    let total = 1024.0 + 1.0 / 1024.0;
    let expected: Vec<f64> = (0..12)
        .map(|i| if (4..8).contains(&i) { total } else { 0.0 })
        .collect();
    assert_close(
        &read(grad),
        &wide(&expected.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        1e-7,
        "sum",
    );
}

#[test]
fn three_runs_are_bit_identical() {
    let ids = ids(5, 900, 20);
    let run = || bits(&run(&ids, 20, 48).1);
    let first = run();
    assert_eq!(run(), first);
    assert_eq!(run(), first);
}

#[test]
fn empty_ids_give_no_rows() {
    let table = tensor(&normals(1, 12), [3, 4], &device());
    let out = gather_rows(
        table,
        int_tensor([].into_iter(), &device()),
        TokenOrder::new(vec![]),
    );
    assert_eq!(out.dims(), [0, 4]);
}

/// Sums and their gradient: a segment of 300 rows, short ones, and rows that no id names.
#[test]
fn segment_sums_and_their_gradients_equal_the_formula() {
    let device = autodiff_device();
    let (width, rows) = (36, 9);
    let lengths = [(0u32, 1usize), (2, 300), (3, 33), (7, 5)];
    let ids: Vec<u32> = lengths
        .iter()
        .flat_map(|&(id, length)| std::iter::repeat_n(id, length))
        .collect();
    let (values, weights) = (normals(5, ids.len() * width), normals(6, rows * width));
    let x = tensor(&values, [ids.len(), width], &device).require_grad();
    let places = int_tensor(ids.iter().map(|&id| id as i32), &device);
    let sums = sum_rows(x.clone(), places, TokenOrder::new(ids.clone()), rows);
    let grads = (sums.clone() * tensor(&weights, [rows, width], &device))
        .sum()
        .backward();
    let mut expected = vec![0.0f64; rows * width];
    let mut gradient = vec![0.0f32; ids.len() * width];
    for (t, &id) in ids.iter().enumerate() {
        for j in 0..width {
            expected[id as usize * width + j] += f64::from(values[t * width + j]);
            gradient[t * width + j] = weights[id as usize * width + j];
        }
    }
    assert_close(&read(sums.inner()), &expected, 1e-6, "sums");
    assert_eq!(bits(&read(x.grad(&grads).unwrap())), bits(&gradient));
    let none = tensor(&[], [0, 4], &device);
    let no_ids = int_tensor(std::iter::empty(), &device);
    let sums = sum_rows(none, no_ids, TokenOrder::new(vec![]), 2);
    assert_eq!(read(sums.inner()), [0.0; 8]);
}
