//! Forward passes of small batches as captured device graphs.
//!
//! A forward pass of a small batch is bound by its launches: some 200 kernels, each of which costs the host more time than the device. A
//! device graph (a CUDA graph) replays all of them with one call. A graph records addresses and grids, so that all its batches have one size, a
//! [bucket](crate::batch::Bucket): a number of tokens, the longest sequence and a number of sequences. A smaller batch is padded to the bucket's
//! size with additional sequences; ids and the boundaries of the sequences are written into the graph's buffers before each
//! replay. The graph has the kernels of a pass without a graph over the padded batch.
//!
//! A graph belongs to the thread that captured it, because each host thread has its own stream on the device.

#[cfg(all(feature = "cuda", feature = "fusion"))]
mod captured;

#[cfg(not(all(feature = "cuda", feature = "fusion")))]
pub use absent::CapturedForward;
#[cfg(all(feature = "cuda", feature = "fusion"))]
pub use captured::CapturedForward;

#[cfg(not(all(feature = "cuda", feature = "fusion")))]
mod absent {
    use burn::tensor::{Device, Tensor};

    use super::Size;
    use crate::batch::{PackedBatch, SequenceLayout};

    /// A captured forward pass, which no backend of this build has.
    #[derive(Debug)]
    pub enum CapturedForward {}

    impl CapturedForward {
        /// Returns `None`: no backend of this build captures graphs.
        pub fn capture(
            _device: &Device,
            _size: Size,
            _filler: u32,
            _forward: impl Fn(&PackedBatch) -> Tensor<2> + Send + 'static,
        ) -> Option<Self> {
            None
        }

        /// Never called.
        pub fn run(&mut self, _ids: &[u32], _layout: &SequenceLayout) -> Tensor<2> {
            match *self {}
        }
    }
}

/// Sizes of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Tokens of a batch at most.
    pub tokens: usize,
    /// Tokens of a sequence at most.
    pub longest: usize,
    /// Sequences of a batch at most.
    pub sequences: usize,
}

impl Size {
    /// Returns whether a batch of this layout fits.
    pub fn fits(&self, layout: &SequenceLayout) -> bool {
        layout.total_tokens() <= self.tokens
            && layout.max_seqlen() <= self.longest
            && layout.num_sequences() <= self.sequences
    }

    /// Number of sequences with which a batch is padded, at most.
    #[cfg(all(feature = "cuda", feature = "fusion"))]
    fn fillers(&self) -> usize {
        self.tokens / self.longest.max(1) + 1
    }
}

use crate::batch::SequenceLayout;
