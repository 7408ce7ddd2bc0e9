//! Graphs of CubeCL's CUDA backend.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Device, Graph, Int, Tensor, TensorData, capture};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::Size;
use crate::batch::{Bucket, PackedBatch, SequenceLayout, TokenOrder};
use crate::ops::graph_tables as tables;

/// A bucket for each graph.
static NEXT: AtomicU64 = AtomicU64::new(0);

type Forward = Box<dyn FnMut() -> Tensor<2> + Send>;

/// A forward pass captured for the batches of a bucket.
pub struct CapturedForward {
    size: Size,
    id: u64,
    /// Id of the tokens that pad a batch to the bucket's size.
    filler: u32,
    /// The ids that the graph reads, `[size.tokens]`.
    ids: CubeTensor,
    graph: Graph<Tensor<2>, Forward>,
}

impl fmt::Debug for CapturedForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturedForward")
            .field("size", &self.size)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl CapturedForward {
    /// Captures `forward`, which computes hidden states `[tokens, width]` of a batch, for all batches of `size`; `filler` is an id of the
    /// vocabulary. Runs the pass several times. `None` if the device doesn't capture graphs.
    ///
    /// The result of `forward` must depend on ids and layout alone, and a row outside attention on no other row.
    pub fn capture(
        device: &Device,
        size: Size,
        filler: u32,
        forward: impl Fn(&PackedBatch) -> Tensor<2> + Send + 'static,
    ) -> Option<Self> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let bucket = Bucket {
            id,
            sequences: size.sequences + size.fillers(),
        };
        let layout = SequenceLayout::of_bucket(size.tokens, size.longest, bucket).ok()?;
        let numbers = vec![filler as i32; size.tokens];
        let ids = Tensor::<1, Int>::from_data(TensorData::new(numbers, [size.tokens]), device);
        let buffer = buffer(ids.clone())?;
        let batch = PackedBatch {
            ids,
            layout,
            order: TokenOrder::new(vec![filler; size.tokens]),
            dropout: None,
            types: None,
        };
        let pass: Forward = Box::new(move || forward(&batch));
        let graph = capture(device, pass);
        let captured = Self {
            size,
            id,
            filler,
            ids: buffer,
            graph,
        };
        captured.graph.is_hardware().then_some(captured)
    }

    /// Hidden states `[total, width]` of a batch that fits the size, in the order of its rows.
    ///
    /// Call it on the thread that captured the graph.
    ///
    /// # Panics
    /// If the batch does not fit, or the number of ids is not that of the layout.
    pub fn run(&mut self, ids: &[u32], layout: &SequenceLayout) -> Tensor<2> {
        assert!(self.size.fits(layout), "a batch larger than the graph's");
        let total = layout.total_tokens();
        assert_eq!(ids.len(), total, "ids of another batch");
        let mut filled = ids.to_vec();
        filled.resize(self.size.tokens, self.filler);
        let (longest, rest) = (self.size.longest, self.size.tokens - total);
        let fillers = std::iter::repeat_n(longest, rest / longest).chain([rest % longest]);
        let layout = SequenceLayout::from_lengths(layout.lengths().chain(fillers))
            .expect("at most as many tokens as the bucket");
        tables::write_numbers(&self.ids, &filled);
        tables::write(self.id, &layout);
        // SAFETY: weights, ids and the batch are owned by the captured closure, the tables by the list of buckets until this value is
        // dropped, the output by the graph. Nothing else writes them, and this thread's stream orders the writes above, the replay and
        // the copy below.
        let output = unsafe { self.graph.replay() };
        // A copy, which a slice of the whole tensor would not be: the next replay overwrites the graph's output.
        output.clone().slice(0..total) * 1.0
    }
}

impl Drop for CapturedForward {
    fn drop(&mut self) {
        tables::forget(self.id);
    }
}

/// The memory of the ids, on a CUDA device.
fn buffer(ids: Tensor<1, Int>) -> Option<CubeTensor> {
    let DispatchTensorKind::Cube(BackendTensor::Int(fused)) = ids.into_dispatch().kind else {
        return None;
    };
    let client = fused.client.clone();
    let tensor = client.resolve_tensor_int::<CubeBackend>(fused);
    matches!(tensor.device, CubeDevice::Cuda(_)).then_some(tensor)
}
