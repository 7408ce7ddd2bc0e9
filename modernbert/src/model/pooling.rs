//! Pooling: one vector per sequence, from packed hidden states.

use burn::tensor::{Tensor, TensorData};
use std::ops::Range;

use crate::batch::{SequenceLayout, TokenOrder, int_tensor};
use crate::config::Pooling;
use crate::ops::gather_rows::sum_rows;

/// Pools `hidden [total, hidden]` to `[sequences, hidden]`.
///
/// `Cls` takes the first token of each sequence, `Mean` the average over its tokens, `Max` the largest value of each feature,
/// `WeightedMean` the average with weights 1, 2, 3, … by position.
/// There is no padding to exclude. An empty sequence yields zeros.
pub fn pool(hidden: Tensor<2>, layout: &SequenceLayout, pooling: Pooling) -> Tensor<2> {
    let device = hidden.device();
    let [total, width] = hidden.dims();
    let sequences = layout.num_sequences();
    if total == 0 || sequences == 0 {
        return Tensor::zeros([sequences, width], (&device, hidden.dtype()));
    }
    match pooling {
        Pooling::Cls if layout.lengths().all(|length| length > 0) => {
            let first = layout.ranges().map(|range| range.start as i32);
            hidden.select(0, int_tensor(first, &device))
        }
        Pooling::Cls => {
            // An empty sequence reads some row, which is then multiplied by 0.
            let first = layout
                .ranges()
                .map(|range| range.start.min(total - 1) as i32);
            let present = layout.lengths().map(|length| f32::from(length > 0));
            let rows = hidden.clone().select(0, int_tensor(first, &device));
            rows * column(present, &hidden)
        }
        Pooling::Mean => mean(hidden, layout),
        Pooling::WeightedMean => weighted_mean(hidden, layout),
        Pooling::Max => largest(hidden, layout),
    }
}

/// Numbers as a column, `[values, 1]`, on the device and in the dtype of `like`.
fn column(values: impl Iterator<Item = f32>, like: &Tensor<2>) -> Tensor<2> {
    let values: Vec<f32> = values.collect();
    let shape = [values.len(), 1];
    Tensor::from_data(
        TensorData::new(values, shape),
        (&like.device(), like.dtype()),
    )
}

/// The mean over the tokens of each sequence: segment sums in f32, times the inverse lengths.
fn mean(hidden: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
    let dtype = hidden.dtype();
    let sums = sums(hidden, layout);
    let inverse = layout.lengths().map(|length| 1.0 / length.max(1) as f32);
    let inverse = column(inverse, &sums);
    (sums * inverse).cast(dtype)
}

/// The mean over the tokens of each sequence with weights 1, 2, 3, … by position: segment sums in f32 of the weighted tokens.
fn weighted_mean(hidden: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
    let dtype = hidden.dtype();
    let weights = layout.lengths().flat_map(|length| {
        let sum = (length * (length + 1) / 2) as f32;
        (1..=length).map(move |weight| weight as f32 / sum)
    });
    let weights = column(weights, &hidden);
    sums(hidden * weights, layout).cast(dtype)
}

/// The sum over the tokens of each sequence, in f32.
fn sums(hidden: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
    let device = hidden.device();
    let ids: Vec<u32> = layout
        .lengths()
        .enumerate()
        .flat_map(|(sequence, length)| std::iter::repeat_n(sequence as u32, length))
        .collect();
    let places = int_tensor(ids.iter().map(|&id| id as i32), &device);
    sum_rows(hidden, places, TokenOrder::new(ids), layout.num_sequences())
}

/// The largest value of each feature. Neighboring sequences of similar length form one tensor `[group, longest, hidden]`; shorter
/// sequences are padded with their first token, which changes no maximum.
fn largest(hidden: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
    let (device, [_, width]) = (hidden.device(), hidden.dims());
    let ranges: Vec<Range<usize>> = layout.ranges().collect();
    let mut pooled = Vec::new();
    let mut rest = ranges.as_slice();
    while !rest.is_empty() {
        // As many of the next sequences as fit a rectangle that is at least half full.
        let (mut count, mut longest, mut tokens) = (0, 0, 0);
        for range in rest {
            let (wide, full) = (longest.max(range.len()), tokens + range.len());
            if count > 0 && (range.is_empty() || longest == 0 || wide * (count + 1) > 2 * full) {
                break;
            }
            (count, longest, tokens) = (count + 1, wide, full);
        }
        let (group, next) = rest.split_at(count);
        rest = next;
        pooled.push(if longest == 0 {
            Tensor::zeros([count, width], (&device, hidden.dtype()))
        } else {
            let rows = group.iter().flat_map(|range| {
                let again = std::iter::repeat_n(range.start, longest - range.len());
                range.clone().chain(again).map(|row| row as i32)
            });
            let rows = hidden.clone().select(0, int_tensor(rows, &device));
            rows.reshape([count, longest, width])
                .max_dim(1)
                .reshape([count, width])
        });
    }
    Tensor::cat(pooled, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(values: &[[f32; 2]], lengths: &[usize], pooling: Pooling) -> Vec<f32> {
        let device = test_support::device();
        let flat = values.concat();
        let hidden = Tensor::from_data(TensorData::new(flat, [values.len(), 2]), &device);
        let layout = SequenceLayout::from_lengths(lengths.iter().copied()).unwrap();
        pool(hidden, &layout, pooling)
            .into_data()
            .try_to_vec()
            .unwrap()
    }

    #[test]
    fn pooling_sees_each_sequence_alone() {
        let values = [[1.0, 4.0], [3.0, 2.0], [-5.0, -6.0]];
        let with_gap = |pooling| pooled(&values, &[2, 0, 1], pooling);
        assert_eq!(with_gap(Pooling::Cls), [1.0, 4.0, 0.0, 0.0, -5.0, -6.0]);
        assert_eq!(with_gap(Pooling::Mean), [2.0, 3.0, 0.0, 0.0, -5.0, -6.0]);
        assert_eq!(with_gap(Pooling::Max), [3.0, 4.0, 0.0, 0.0, -5.0, -6.0]);
        // (1 · 1 + 2 · 3) / 3 and (1 · 4 + 2 · 2) / 3.
        let weighted = with_gap(Pooling::WeightedMean);
        let expected = [7.0 / 3.0, 8.0 / 3.0, 0.0, 0.0, -5.0, -6.0];
        for (found, expected) in weighted.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{weighted:?}");
        }
        let whole = |pooling| pooled(&values, &[1, 2], pooling);
        assert_eq!(whole(Pooling::Cls), [1.0, 4.0, 3.0, 2.0]);
        assert_eq!(whole(Pooling::Max), [1.0, 4.0, 3.0, 2.0]);
    }

    /// 65,536 tokens in sequences of 8: a matrix of sequences by tokens would take 2.1 GB.
    #[test]
    fn the_mean_of_many_short_sequences_is_that_of_a_simple_loop() {
        let lengths = vec![8; 8192];
        let values: Vec<[f32; 2]> = (0..65_536)
            .map(|i| [(i * 37 % 101) as f32, (i * 53 % 89) as f32 - 40.0])
            .collect();
        let expected: Vec<f32> = values
            .chunks(8)
            .flat_map(|tokens| [0, 1].map(|c| tokens.iter().map(|t| t[c]).sum::<f32>() / 8.0))
            .collect();
        assert_eq!(pooled(&values, &lengths, Pooling::Mean), expected);
    }

    #[test]
    fn the_maximum_of_ragged_sequences_is_that_of_a_simple_loop() {
        let lengths = [1, 40, 3, 0, 0, 7, 7, 6, 90, 2];
        let total = lengths.iter().sum::<usize>();
        let values: Vec<[f32; 2]> = (0..total)
            .map(|i| [-((i * 37 % 101) as f32) - 1.0, (i * 53 % 89) as f32 - 200.0])
            .collect();
        let mut rows = values.iter();
        let expected: Vec<f32> = lengths
            .iter()
            .flat_map(|&length| {
                let tokens: Vec<_> = rows.by_ref().take(length).collect();
                [0, 1].map(|c| tokens.iter().map(|t| t[c]).reduce(f32::max).unwrap_or(0.0))
            })
            .collect();
        assert_eq!(pooled(&values, &lengths, Pooling::Max), expected);
    }
}
