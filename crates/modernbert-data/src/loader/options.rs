//! Settings of a stream.

/// Settings of a stream.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Tokens of a packed row.
    pub row_length: usize,
    /// Micro-batches (rows) of a full step: the packer fills so many rows at once. A smaller step, as in a batch-size warmup, takes
    /// fewer rows of the same stream.
    pub micro_batches: usize,
    /// Padding id.
    pub pad_id: u32,
    /// Seed of order and masks.
    pub seed: u64,
    /// If set, packing is off: a training row contains at most this many sequences and no padding.
    pub sequences: Option<usize>,
}
