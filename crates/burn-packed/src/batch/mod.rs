//! Packed batches: the sequences of a batch one after the other, without padding between them.
//!
//! The ops of this crate work on packed batches. A padded batch is unpadded once, before the embedding, and its results are
//! repadded once, at the end; see [`Unpadded`].

mod order;
mod padding;

pub use order::{Runs, TokenOrder};
pub use packed_layout::{Bucket, Dropout, DropoutRates, LayoutError, SequenceLayout};
pub use padding::{NO_LABEL, PaddingError, Unpadded};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids of several sequences, one after the other, on a device, with their boundaries.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// Token ids, `[total]`.
    pub ids: Tensor<1, Int>,
    /// Boundaries of the sequences, on the host, because kernels are chosen and sized from the lengths.
    pub layout: SequenceLayout,
    /// The ids on the host, which the gradient of the embedding sorts at its first use.
    pub order: TokenOrder,
    /// Dropout of a training step; constructors set `None`, no dropout.
    pub dropout: Option<Dropout>,
    /// Type of each token on the host, 0 or 1, for models that have an embedding of token types; constructors set `None`, type 0 for all.
    pub types: Option<TokenOrder>,
}

impl PackedBatch {
    /// Packs sequences of token ids.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] for more than `u32::MAX` tokens.
    pub fn from_sequences<S: AsRef<[u32]>>(
        sequences: &[S],
        device: &Device,
    ) -> Result<Self, LayoutError> {
        let layout = SequenceLayout::from_lengths(sequences.iter().map(|s| s.as_ref().len()))?;
        let ids: Vec<u32> = sequences
            .iter()
            .flat_map(|s| s.as_ref().iter().copied())
            .collect();
        Ok(Self::new(&ids, layout, device))
    }

    /// Returns a batch of ids that are packed already.
    ///
    /// # Panics
    /// If the number of ids differs from the layout's number of tokens.
    pub fn new(ids: &[u32], layout: SequenceLayout, device: &Device) -> Self {
        assert_eq!(
            ids.len(),
            layout.total_tokens(),
            "{} ids for a layout of {} tokens",
            ids.len(),
            layout.total_tokens()
        );
        Self {
            ids: int_tensor(ids.iter().map(|&id| id as i32), device),
            layout,
            order: TokenOrder::new(ids.to_vec()),
            dropout: None,
            types: None,
        }
    }

    /// Returns the batch with the dropout of a training step.
    #[must_use]
    pub fn with_dropout(mut self, dropout: Option<Dropout>) -> Self {
        self.dropout = dropout;
        self
    }

    /// Returns the batch with types of its tokens: in each sequence 0 before its entry of `seconds`, a position in the sequence, and 1 from there on.
    /// The entries of sequences without a second text are their lengths or more.
    ///
    /// # Panics
    /// If there are fewer entries than sequences.
    #[must_use]
    pub fn with_second_texts(mut self, seconds: impl IntoIterator<Item = usize>) -> Self {
        let mut types = vec![0u32; self.layout.total_tokens()];
        let mut seconds = seconds.into_iter();
        let mut any = false;
        for range in self.layout.ranges() {
            let second = seconds.next();
            let second = second.expect("the second text of each sequence of the batch");
            if let Some(second) = types[range].get_mut(second..) {
                any |= !second.is_empty();
                second.fill(1);
            }
        }
        self.types = any.then(|| TokenOrder::new(types));
        self
    }

    /// Returns the batch without autodiff, for a model without gradients.
    #[must_use]
    pub fn inner(self) -> Self {
        Self {
            ids: self.ids.inner(),
            ..self
        }
    }
}

/// Returns a 1-D integer tensor of host values.
pub fn int_tensor(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
