//! Collective operations of NCCL on the tensors of Burn's CUDA backend, for one process per GPU.
//!
//! Burn's `all_reduce` serves the GPUs of one process. Here each process joins a [`Communicator`] with its one GPU. Rank 0 makes the
//! identifier ([`unique_id`]) and sends its bytes to the others.
//!
//! | operation | what it does |
//! |---|---|
//! | [`Communicator::all_reduce_by`] | sums by a function of the caller, so in the caller's order |
//! | [`Communicator::all_reduce`] | sums in an order that NCCL chooses |
//!
//! A vector consists of one or more tensors, its pieces: the gradients of a model. An operation copies them into one flat tensor on the device, sends
//! parts of that, and returns views of a flat tensor. One message is several times as fast as one for each piece.
//!
//! # Memory and streams
//!
//! Burn's CUDA backend executes lazily on its own streams. An operation here takes the buffer of a tensor after all work on the device
//! is done, runs NCCL on a stream of the communicator and waits for that stream; Burn may use the result from then on. The wait polls an event, so
//! that the caller can end the operation: the wait for a peer that is gone would never end.
//!
//! Without the feature `nccl` every function returns [`NcclError::NotCompiled`].

#[cfg(not(feature = "nccl"))]
mod absent;
#[cfg(feature = "nccl")]
mod buffer;
#[cfg(feature = "nccl")]
mod communicator;
#[cfg(any(feature = "nccl", test))]
mod layout;

#[cfg(not(feature = "nccl"))]
pub use absent::{Communicator, unique_id};
#[cfg(feature = "nccl")]
pub use communicator::{Communicator, unique_id};

/// Bytes of an identifier of a communicator.
pub const ID_BYTES: usize = 128;

/// True if NCCL is compiled in.
pub const COMPILED: bool = cfg!(feature = "nccl");

/// Called while an operation waits: a reason to end it, such as a process of the run that has ended.
pub type AbortCheck<'a> = &'a dyn Fn() -> Option<String>;

/// Reasons why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum NcclError {
    /// The program was built without the feature.
    #[error("this program was built without NCCL; rebuild it with `--features nccl`")]
    NotCompiled,
    /// The library can't be loaded.
    #[error(
        "libnccl.so was not found; put its folder into LD_LIBRARY_PATH (PyPI's package has only `libnccl.so.2`: link it as `libnccl.so`)"
    )]
    Library,
    /// A tensor or device of another backend.
    #[error("NCCL needs a CUDA device with Burn's fusion; this tensor is on {0}")]
    Device(String),
    /// A tensor of another dtype.
    #[error("NCCL operations here take f32 tensors, not {0}")]
    DType(String),
    /// Pieces or a sum of other lengths than the operation's.
    #[error("a tensor of another length than expected; give every rank pieces of the same lengths")]
    Lengths,
    /// NCCL refused or failed.
    #[error("NCCL: {call} failed: {reason}")]
    Nccl {
        /// The function.
        call: &'static str,
        /// NCCL's words.
        reason: String,
    },
    /// The CUDA driver refused or failed.
    #[error("CUDA: {0}")]
    Driver(String),
    /// The caller's function ended the operation.
    #[error("{0}")]
    Ended(String),
}
