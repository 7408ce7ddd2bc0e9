//! Documents of random ids.

use burn::tensor::{Device, Tensor};
use modernbert::batch::{PackedBatch, SequenceLayout};

/// Ids in [100, 16000), as in the paper, from the linear congruential generator of Numerical Recipes: any ids will do, if they are the same in
/// every run.
#[derive(Clone, Debug)]
pub struct Ids(u32);

impl Ids {
    /// The ids that follow from a seed.
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// A batch of documents of these lengths.
    ///
    /// # Errors
    /// More tokens than a batch can have.
    pub fn batch(&mut self, lengths: &[usize], device: &Device) -> anyhow::Result<PackedBatch> {
        let layout = SequenceLayout::from_lengths(lengths.iter().copied())?;
        let ids: Vec<u32> = self.by_ref().take(layout.total_tokens()).collect();
        Ok(PackedBatch::new(&ids, layout, device))
    }
}

impl Iterator for Ids {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(100 + (self.0 >> 8) % 15_900)
    }
}

/// Reads the first `rows` rows of hidden states.
///
/// # Errors
/// A device that does not answer; values that are not finite, or all zero, which a failed launch leaves.
pub fn read_rows(hidden: Tensor<2>, rows: usize) -> anyhow::Result<Vec<f32>> {
    let values = hidden.narrow(0, 0, rows).try_into_vec_as::<f32>();
    let values = values.map_err(|error| anyhow::anyhow!("cannot read the result: {error:?}"))?;
    anyhow::ensure!(
        values.iter().all(|x| x.is_finite()) && values.iter().any(|&x| x != 0.0),
        "the encoder's output is not finite"
    );
    Ok(values)
}
