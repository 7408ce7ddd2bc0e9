//! The operations of the model that Burn's tensor API doesn't have, or doesn't have fast or exact enough.
//!
//! Every op folder reads alone: `mod.rs` says what is computed, in which shapes and units, and offers it on
//! [`burn::tensor::Tensor`]; `fallback.rs` computes it with tensor operations every backend has; `autodiff.rs` is its
//! derivative; `flex.rs` is the native CPU version, `cube/` the kernels for GPUs. [`PackedBackend`] ties them together: the model calls the op, the
//! backend of the tensor decides which version runs.
//!
//! This room knows tensors and sequence boundaries, never the model.

pub mod attention;
mod backend;
pub mod cross_entropy;
#[cfg(all(test, feature = "kernel-sources"))]
mod cuda_sources;
pub mod dropout;
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
#[cfg(feature = "cube")]
mod rows;
#[cfg(feature = "flex")]
mod simd;
pub mod sum;
#[cfg(all(test, any(feature = "cuda", feature = "wgpu")))]
mod test_device;

pub use backend::{Op, PackedBackend, UnknownOp, use_fallback};

/// Ends a call in f64 on a device whose exponentials are wrong in it; see [`crate::device::computes_in`].
///
/// # Panics
/// On such a device.
#[track_caller]
fn refuse_f64(device: &burn::tensor::Device, dtype: burn::tensor::DType, op: &str) {
    let refused = dtype == burn::tensor::DType::F64 && !crate::device::computes_in(device, dtype);
    assert!(
        !refused,
        "{op} in f64 is not to be had on {device:?}: graphics APIs have no exponential in f64; cast to f32, or use the \
         `flex` or `cuda` device"
    );
}

/// The version of each op that runs on `device`, for the line programs print at start.
pub fn kernels_in_use(device: &burn::tensor::Device) -> &'static str {
    backend::kernels_in_use(device)
}
