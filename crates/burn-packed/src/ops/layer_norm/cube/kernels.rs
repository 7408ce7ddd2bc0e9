//! The kernels: a row to a plane, read once, kept in registers.

use cubecl::prelude::*;

use crate::ops::rows::{Deal, row_sum, within};

/// Where the normalised row comes from in the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// From the input of the norm, whose statistics are taken again.
    Input,
    /// From the output, divided by the weight.
    Output,
}

/// What a backward kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backward {
    pub(super) deal: Deal,
    pub(super) source: Source,
    /// Whether the sum's own gradient is added to what passes through the norm.
    pub(super) joined: bool,
    /// Whether the gradient is written a second time, in the branch's dtype.
    pub(super) split: bool,
}

/// Mean and inverse standard deviation of a row in registers; slots beyond the row hold zeros.
#[cube]
fn statistics<N: Size>(
    values: &Array<Vector<f32, N>>,
    lane: usize,
    eps: f32,
    exchange: &mut Shared<[f32]>,
    #[comptime] deal: Deal,
) -> (f32, f32) {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..comptime!(deal.held()) {
        sum += within::<N>(values[i]);
    }
    let share = comptime!(1.0f32 / deal.width as f32);
    let mean = row_sum(sum, exchange, deal) * share;
    let mut squares = 0.0f32;
    #[unroll]
    for i in 0..comptime!(deal.held()) {
        let centred = values[i] - Vector::new(mean);
        let square = within::<N>(centred * centred);
        let at = lane + comptime!(i * deal.lanes);
        squares += select(at < deal.vectors, square, 0.0f32);
    }
    let variance = row_sum(squares, exchange, deal) * share;
    (mean, 1.0f32 / (variance + eps).sqrt())
}

/// Writes `(values - mean) * inv_std * weight` of a row.
#[cube]
fn write_normed<O: Float, N: Size>(
    values: &Array<Vector<f32, N>>,
    weight: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    start: usize,
    lane: usize,
    mean: f32,
    inv_std: f32,
    #[comptime] deal: Deal,
) {
    #[unroll]
    for i in 0..comptime!(deal.held()) {
        let at = lane + comptime!(i * deal.lanes);
        if at < deal.vectors {
            let y = (values[i] - Vector::new(mean)) * Vector::new(inv_std);
            out[start + at] = Vector::cast_from(y * weight[at]);
        }
    }
}

/// `out = norm(x) * weight`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn forward_kernel<X: Float, O: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    rows: usize,
    eps: f32,
    #[comptime] deal: Deal,
    #[define(X, O)] _dtypes: [ElemType; 2],
) {
    let mut exchange = Shared::<[f32]>::new_slice(deal.exchange());
    let lane = UNIT_POS as usize % deal.lanes;
    let row = CUBE_POS * deal.rows + UNIT_POS as usize / deal.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * deal.vectors;
    let mut values = Array::<Vector<f32, N>>::new(comptime!(deal.held()));
    #[unroll]
    for i in 0..comptime!(deal.held()) {
        let at = lane + comptime!(i * deal.lanes);
        values[i] = Vector::new(0.0f32);
        if at < deal.vectors {
            values[i] = Vector::cast_from(x[start + at]);
        }
    }
    let (mean, inv_std) = statistics::<N>(&values, lane, eps, &mut exchange, deal);
    if inside {
        write_normed::<O, N>(&values, weight, out, start, lane, mean, inv_std, deal);
    }
}

/// `sum = x + branch`, `out = norm(sum) * weight` and the inverse standard deviation of each row.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn add_forward_kernel<B: Float, O: Float, N: Size>(
    x: &[Vector<f32, N>],
    branch: &[Vector<B, N>],
    weight: &[Vector<f32, N>],
    sum: &mut [Vector<f32, N>],
    out: &mut [Vector<O, N>],
    inv_stds: &mut [f32],
    rows: usize,
    eps: f32,
    #[comptime] deal: Deal,
    #[define(B, O)] _dtypes: [ElemType; 2],
) {
    let mut exchange = Shared::<[f32]>::new_slice(deal.exchange());
    let lane = UNIT_POS as usize % deal.lanes;
    let row = CUBE_POS * deal.rows + UNIT_POS as usize / deal.lanes;
    let inside = row < rows;
    let start = select(inside, row, 0usize) * deal.vectors;
    let mut values = Array::<Vector<f32, N>>::new(comptime!(deal.held()));
    #[unroll]
    for i in 0..comptime!(deal.held()) {
        let at = lane + comptime!(i * deal.lanes);
        values[i] = Vector::new(0.0f32);
        if at < deal.vectors {
            values[i] = x[start + at] + Vector::<f32, N>::cast_from(branch[start + at]);
        }
    }
    let (mean, inv_std) = statistics::<N>(&values, lane, eps, &mut exchange, deal);
    if inside {
        #[unroll]
        for i in 0..comptime!(deal.held()) {
            let at = lane + comptime!(i * deal.lanes);
            if at < deal.vectors {
                sum[start + at] = values[i];
            }
        }
        write_normed::<O, N>(&values, weight, out, start, lane, mean, inv_std, deal);
        if lane == 0 {
            inv_stds[row] = inv_std;
        }
    }
}

/// With `g = d_out * weight` and `y` the normalised row, `d_x = inv_std * (g - mean(g) - y * mean(g * y))`, plus the sum's own
/// gradient where there is one; and each cube's part of `sum_rows d_out * y`.
///
/// A cube takes every `CUBE_COUNT`-th group of rows, so that the order of the sums depends on the grid alone.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn backward_kernel<G: Float, S: Float, X: Float, B: Float, N: Size>(
    d_out: &[Vector<G, N>],
    saved: &[Vector<S, N>],
    inv_stds: &[f32],
    weight: &[Vector<f32, N>],
    d_sum: &[Vector<X, N>],
    d_x: &mut [Vector<X, N>],
    d_branch: &mut [Vector<B, N>],
    partials: &mut [Vector<f32, N>],
    rows: usize,
    eps: f32,
    #[comptime] spec: Backward,
    #[define(G, S, X, B)] _dtypes: [ElemType; 4],
) {
    let deal = comptime!(spec.deal);
    let held = comptime!(deal.held());
    let mut exchange = Shared::<[f32]>::new_slice(deal.exchange());
    let lane = UNIT_POS as usize % deal.lanes;
    let group = UNIT_POS as usize / deal.lanes;
    let share = comptime!(1.0f32 / deal.width as f32);
    let mut d_weight = Array::<Vector<f32, N>>::new(held);
    let mut grads = Array::<Vector<G, N>>::new(held);
    let mut kept = Array::<Vector<S, N>>::new(held);
    let mut own = Array::<Vector<X, N>>::new(held);
    #[unroll]
    for i in 0..held {
        d_weight[i] = Vector::new(0.0f32);
    }
    let mut first = CUBE_POS * deal.rows;
    while first < rows {
        let row = first + group;
        let inside = row < rows;
        let start = select(inside, row, 0usize) * deal.vectors;
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * deal.lanes);
            grads[i] = Vector::new(G::new(0.0));
            kept[i] = Vector::new(S::new(0.0));
            if comptime!(spec.joined) {
                own[i] = Vector::new(X::new(0.0));
            }
            if at < deal.vectors {
                grads[i] = d_out[start + at];
                kept[i] = saved[start + at];
                if comptime!(spec.joined) {
                    own[i] = d_sum[start + at];
                }
            }
        }
        // `y` is `kept * scale + shift`, times the inverse of the weight where the output was kept.
        let mut inv_std = 0.0f32;
        let mut scale = 1.0f32;
        let mut shift = 0.0f32;
        if comptime!(spec.source == Source::Output) {
            inv_std += inv_stds[select(inside, row, 0usize)];
        } else {
            let mut values = Array::<Vector<f32, N>>::new(held);
            #[unroll]
            for i in 0..held {
                values[i] = Vector::cast_from(kept[i]);
            }
            let (mean, found) = statistics::<N>(&values, lane, eps, &mut exchange, deal);
            inv_std += found;
            scale = found;
            shift = -mean * found;
        }
        let mut sum_g = 0.0f32;
        let mut sum_gy = 0.0f32;
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * deal.lanes);
            if at < deal.vectors {
                let d = Vector::<f32, N>::cast_from(grads[i]);
                let g = d * weight[at];
                let saved = Vector::<f32, N>::cast_from(kept[i]);
                sum_g += within::<N>(g);
                if comptime!(spec.source == Source::Output) {
                    let dy = d * saved;
                    sum_gy += within::<N>(dy);
                    d_weight[i] += select_rows::<N>(inside, dy);
                } else {
                    let y = saved * Vector::new(scale) + Vector::new(shift);
                    sum_gy += within::<N>(g * y);
                    d_weight[i] += select_rows::<N>(inside, d * y);
                }
            }
        }
        let mean_g = row_sum(sum_g, &mut exchange, deal) * share;
        let mean_gy = row_sum(sum_gy, &mut exchange, deal) * share;
        if inside {
            #[unroll]
            for i in 0..held {
                let at = lane + comptime!(i * deal.lanes);
                if at < deal.vectors {
                    let w = weight[at];
                    let g = Vector::<f32, N>::cast_from(grads[i]) * w;
                    let saved = Vector::<f32, N>::cast_from(kept[i]);
                    let mut y = saved * Vector::new(scale) + Vector::new(shift);
                    if comptime!(spec.source == Source::Output) {
                        y = over::<N>(saved, w);
                    }
                    let centred = g - Vector::new(mean_g) - y * Vector::new(mean_gy);
                    let mut d = centred * Vector::new(inv_std);
                    if comptime!(spec.joined) {
                        d += Vector::<f32, N>::cast_from(own[i]);
                    }
                    d_x[start + at] = Vector::cast_from(d);
                    if comptime!(spec.split) {
                        d_branch[start + at] = Vector::cast_from(d);
                    }
                }
            }
        }
        first += CUBE_COUNT * deal.rows;
    }

    // The cube's groups add up one after the other, in shared memory.
    let mut total = Shared::<[Vector<f32, N>]>::new_slice(deal.vectors);
    #[unroll]
    for turn in 0..comptime!(deal.rows) {
        sync_cube();
        if group == turn {
            #[unroll]
            for i in 0..held {
                let at = lane + comptime!(i * deal.lanes);
                if at < deal.vectors {
                    let mut value = d_weight[i];
                    if comptime!(turn > 0) {
                        value += total[at];
                    }
                    if comptime!(turn + 1 == deal.rows) {
                        if comptime!(spec.source == Source::Output) {
                            value = over::<N>(value, weight[at]);
                        }
                        partials[CUBE_POS * deal.vectors + at] = value;
                    } else {
                        total[at] = value;
                    }
                }
            }
        }
    }
}

/// `value`, or zeros in a row that doesn't exist.
#[cube]
fn select_rows<N: Size>(inside: bool, value: Vector<f32, N>) -> Vector<f32, N> {
    value * Vector::new(select(inside, 1.0f32, 0.0f32))
}

/// `a / b` by elements, 0 where `b` is.
#[cube]
fn over<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>) -> Vector<f32, N> {
    let mut quotient = Vector::<f32, N>::empty();
    #[unroll]
    for k in 0..N::value() {
        quotient.insert(k, over_scalar(a.extract(k), b.extract(k)));
    }
    quotient
}

#[cube]
fn over_scalar(a: f32, b: f32) -> f32 {
    let zero = b == 0.0f32;
    select(zero, 0.0f32, a / select(zero, 1.0f32, b))
}
