//! Captured graphs of an encoder's small batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use burn::tensor::Tensor;

use super::ModernBert;
use crate::batch::{PackedBatch, SequenceLayout};
use crate::graph::{CapturedForward, Size};

/// Sizes in tokens: a batch is padded to the next size, by a third at most from 64 tokens on.
const TOKENS: [usize; 13] = [
    16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
];
/// Batches of sequences up to this length have their own graphs. From 384 tokens on, attention of global layers is a different kernel, and a
/// graph for sequences of any length launches both.
const SHORT: usize = 256;
/// A batch whose sequences are shorter than this on average may have more sequences than its size allows.
const SHORTEST: usize = 8;
/// Number of batches of one size that run without a graph before a graph is captured: the capture costs four passes.
const FIRST: u32 = 1;

/// Largest number of entries, over all threads and sizes: a program that starts a thread for each request would otherwise capture an
/// unlimited number of graphs.
const MOST: usize = 128;

/// The graphs of an encoder, captured as they are needed; clones of the encoder share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Graphs {
    /// `None` for an encoder whose weights may change.
    slots: Option<Arc<Mutex<Slots>>>,
}

/// The graph of each thread and size.
type Slots = HashMap<(ThreadId, Size), Slot>;

#[derive(Debug)]
enum Slot {
    /// Batches seen so far.
    Seen(u32),
    Captured(CapturedForward),
    /// The device doesn't capture graphs, or the graph's first result was wrong.
    Without,
}

impl Graphs {
    /// Graphs for an encoder whose weights do not change any more.
    pub(super) fn enabled() -> Self {
        Self {
            slots: Some(Arc::default()),
        }
    }

    /// An empty cache, because the encoder has changed; disabled if it was disabled.
    pub(super) fn renewed(&self) -> Self {
        Self {
            slots: self.slots.as_ref().map(|_| Arc::default()),
        }
    }

    /// The smallest size that a batch fits in.
    fn size(layout: &SequenceLayout) -> Option<Size> {
        let total = layout.total_tokens();
        let tokens = *TOKENS.iter().find(|&&tokens| tokens >= total.max(1))?;
        let longest = match layout.max_seqlen() <= SHORT {
            true => SHORT.min(tokens),
            false => tokens,
        };
        let size = Size {
            tokens,
            longest,
            sequences: tokens / SHORTEST,
        };
        size.fits(layout).then_some(size)
    }

    /// Hidden states of a small batch by the graph of its size; `None` where there is none.
    pub(super) fn run(&self, model: &ModernBert, batch: &PackedBatch) -> Option<Tensor<2>> {
        let slots = self.slots.as_ref()?;
        let size = Self::size(&batch.layout)?;
        let ids = batch.order.ids();
        if ids.len() != batch.layout.total_tokens() || batch.dropout.is_some() {
            return None;
        }
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (std::thread::current().id(), size);
        if slots.len() >= MOST && !slots.contains_key(&key) {
            return None;
        }
        let slot = slots.entry(key).or_insert(Slot::Seen(0));
        if let Slot::Seen(count) = slot {
            *count += 1;
            if *count <= FIRST {
                return None;
            }
            // The closure owns a model without graphs, so that it does not own itself.
            let inner = model.clone().without_graphs();
            let filler = model.config().pad_token_id.unwrap_or(0);
            let forward = move |batch: &PackedBatch| inner.forward(batch);
            let captured = CapturedForward::capture(&model.device(), size, filler, forward);
            let checked = captured.and_then(|mut captured| {
                let found = captured.run(ids, &batch.layout);
                agree(found, model.launch(batch)).then_some(captured)
            });
            *slot = checked.map_or(Slot::Without, Slot::Captured);
        }
        match slot {
            Slot::Captured(captured) => Some(captured.run(ids, &batch.layout)),
            Slot::Seen(_) | Slot::Without => None,
        }
    }
}

/// Returns whether the first result of a graph is that of the launches, up to the rounding of matrix multiplications with another number of rows. A
/// launch that a driver refuses inside a graph is detected only here.
fn agree(found: Tensor<2>, expected: Tensor<2>) -> bool {
    let read = |tensor: Tensor<2>| tensor.try_into_vec_as::<f32>();
    let (Ok(found), Ok(expected)) = (read(found), read(expected)) else {
        return false;
    };
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.02 * largest;
    found.len() == expected.len() && found.iter().zip(&expected).all(close)
}

#[cfg(test)]
mod tests {
    use super::{Graphs, Size, agree};
    use crate::batch::SequenceLayout;
    use burn::tensor::{Device, Tensor};

    #[test]
    fn a_batch_has_the_smallest_size_it_fits_in() {
        let of = |lengths: &[usize]| {
            let layout = SequenceLayout::from_lengths(lengths.iter().copied()).expect("lengths");
            Graphs::size(&layout)
        };
        let size = |tokens, longest| {
            let sequences = tokens / 8;
            Some(Size {
                tokens,
                longest,
                sequences,
            })
        };
        assert_eq!(of(&[1]), size(16, 16));
        assert_eq!(of(&[16, 17]), size(64, 64));
        assert_eq!(of(&[256, 256]), size(512, 256));
        assert_eq!(of(&[257]), size(384, 384));
        assert_eq!(of(&[2000, 48]), size(2048, 2048));
        assert_eq!(of(&[2049]), None);
        // Three sequences of one token are more than a graph of 16 tokens takes.
        assert_eq!(of(&[1, 1, 1]), None);
    }

    #[test]
    fn results_agree_up_to_rounding() {
        let of =
            |values: [f32; 4]| Tensor::<1>::from_floats(values, &Device::default()).reshape([2, 2]);
        let expected = [1.0, -2.0, 0.5, 0.0];
        assert!(agree(of([1.0, -2.03, 0.51, 0.02]), of(expected)));
        assert!(!agree(of([1.0, -2.0, 0.5, 0.1]), of(expected)));
        assert!(!agree(of([1.0, -2.0, 0.5, f32::NAN]), of(expected)));
    }
}
