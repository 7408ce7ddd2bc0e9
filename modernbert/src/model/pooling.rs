//! One vector per sequence, straight from packed hidden states.

use burn::tensor::{Tensor, TensorData};

use crate::batch::{SequenceLayout, int_tensor};
use crate::config::Pooling;
use crate::ops::linear::linear;

/// Pools `hidden [total, hidden]` to `[sequences, hidden]`.
///
/// `Cls` takes the first token of each sequence, `Mean` the average over its tokens. There is no padding to exclude. An
/// empty sequence yields zeros.
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
        // An averaging matrix is one product; sums by index would be serial on some backends. Its size is bounded by the
        // batch: sequences × tokens.
        _ => {
            let mut weights = vec![0.0f32; sequences * total];
            for (row, range) in layout.ranges().enumerate() {
                match pooling {
                    Pooling::Cls => {
                        if let Some(first) = range.clone().next() {
                            weights[row * total + first] = 1.0;
                        }
                    }
                    Pooling::Mean => {
                        let share = 1.0 / range.len().max(1) as f32;
                        weights[row * total..][range].fill(share);
                    }
                }
            }
            let weights = Tensor::<2>::from_data(
                TensorData::new(weights, [sequences, total]),
                (&device, hidden.dtype()),
            );
            linear(weights, hidden.transpose(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_sees_each_sequence_alone() {
        let device = burn::tensor::Device::default();
        let hidden = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let layout = SequenceLayout::from_lengths([2, 0, 1]).unwrap();
        let cls: Vec<f32> = pool(hidden.clone(), &layout, Pooling::Cls)
            .into_data()
            .try_to_vec()
            .unwrap();
        assert_eq!(cls, [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
        let mean: Vec<f32> = pool(hidden.clone(), &layout, Pooling::Mean)
            .into_data()
            .try_to_vec()
            .unwrap();
        assert_eq!(mean, [2.0, 3.0, 0.0, 0.0, 5.0, 6.0]);
        let layout = SequenceLayout::from_lengths([1, 2]).unwrap();
        let cls: Vec<f32> = pool(hidden, &layout, Pooling::Cls)
            .into_data()
            .try_to_vec()
            .unwrap();
        assert_eq!(cls, [1.0, 2.0, 3.0, 4.0]);
    }
}
