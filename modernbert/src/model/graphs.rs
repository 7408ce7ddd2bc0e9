//! Captured graphs of an encoder's small batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use burn::tensor::Tensor;

use super::ModernBert;
use crate::batch::PackedBatch;
use crate::graph::{CapturedForward, Size};

/// Sizes in tokens: a batch is filled up to the next one, by a third at most from 64 tokens on.
const TOKENS: [usize; 13] = [
    16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
];
/// Longest sequence of a graph. From 384 tokens on, attention of global layers is a different kernel.
const LONGEST: usize = 256;
/// A batch whose sequences are shorter than this on average may have more sequences than its size allows.
const SHORTEST: usize = 8;
/// Batches of one size that run without a graph first: capturing one costs four passes.
const FIRST: u32 = 1;

/// Sizes of all threads that are kept: a program that starts a thread for each request would capture graphs without end.
const MOST: usize = 128;

/// The graphs of an encoder, captured as they are needed; clones of the encoder share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Graphs {
    /// `None` for an encoder whose weights may change.
    slots: Option<Arc<Mutex<Slots>>>,
}

/// The graph of each thread and number of tokens.
type Slots = HashMap<(ThreadId, usize), Slot>;

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

    /// Graphs that are captured anew, because the encoder has changed; still none where there were none.
    pub(super) fn renewed(&self) -> Self {
        Self {
            slots: self.slots.as_ref().map(|_| Arc::default()),
        }
    }

    /// The smallest size that a batch fits in.
    fn size(batch: &PackedBatch) -> Option<Size> {
        let total = batch.layout.total_tokens();
        let tokens = *TOKENS.iter().find(|&&tokens| tokens >= total.max(1))?;
        let size = Size {
            tokens,
            longest: LONGEST.min(tokens),
            sequences: tokens / SHORTEST,
        };
        (batch.dropout.is_none() && size.fits(&batch.layout)).then_some(size)
    }

    /// Hidden states of a small batch by the graph of its size; `None` where there is none.
    pub(super) fn run(&self, model: &ModernBert, batch: &PackedBatch) -> Option<Tensor<2>> {
        let slots = self.slots.as_ref()?;
        let size = Self::size(batch)?;
        let ids = batch.order.ids();
        if ids.len() != batch.layout.total_tokens() {
            return None;
        }
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (std::thread::current().id(), size.tokens);
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

/// Whether the first result of a graph is that of the launches, up to the rounding of matrix multiplications with another number of rows. A
/// launch that a driver refuses inside a graph shows here and nowhere else.
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
    use super::agree;
    use burn::tensor::{Device, Tensor};

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
