//! Operations that Burn's tensor API does not have, or not fast or exact enough for training encoders.
//!
//! Each op is a folder that can be read on its own: `mod.rs` describes formula, shapes, dtypes and units and offers the op on
//! [`burn::tensor::Tensor`]; `fallback.rs` computes it with tensor operations every backend has; `autodiff.rs` is its
//! derivative; `flex.rs` is the native CPU version, `cube/` or `cube.rs` the kernels for GPUs. [`PackedBackend`] connects them: the
//! caller uses the op, and the backend of the tensor selects the version.
//!
//! This module works on tensors and sequence boundaries and contains no model.

pub mod attention;
mod backend;
pub mod convert;
pub mod cross_entropy;
#[cfg(all(test, feature = "kernel-sources"))]
mod cuda_sources;
pub mod dropout;
pub mod fp8;
pub mod gather_rows;
pub mod geglu;
#[cfg(feature = "flex")]
mod host;
pub mod layer_norm;
pub mod linear;
pub mod optimizer;
mod primitive;
#[cfg(feature = "ptx")]
mod ptx;
pub(crate) mod row_moves;
#[cfg(feature = "cube")]
mod rows;
#[cfg(feature = "flex")]
mod simd;
pub mod sum;
#[cfg(all(test, any(feature = "cuda", feature = "wgpu")))]
mod test_device;

#[cfg(all(feature = "cuda", feature = "fusion"))]
pub(crate) use attention::cube::tile_table as graph_tables;
pub use backend::{Op, PackedBackend, UnknownOp, use_fallback};
pub use row_moves::{RowMoves, row_moves};

/// Rejects f64 on a device that computes wrong exponentials in f64; see [`crate::device::computes_in`].
///
/// # Panics
/// On such a device.
#[track_caller]
fn refuse_f64(device: &burn::tensor::Device, dtype: burn::tensor::DType, op: &str) {
    let refused = dtype == burn::tensor::DType::F64 && !crate::device::computes_in(device, dtype);
    assert!(
        !refused,
        "{op}: f64 is not supported on {device:?}, because graphics APIs have no exponential in f64; cast to f32, or use the \
         device `flex` or `cuda`"
    );
}

/// Returns a one-line description of the kernels that `device` uses, for programs to print at start.
pub fn kernels_in_use(device: &burn::tensor::Device) -> &'static str {
    backend::kernels_in_use(device)
}
