//! The same interface without NCCL.

use burn::tensor::{Device, Tensor};

use crate::{AbortCheck, ID_BYTES, NcclError};

/// # Errors
/// Always [`NcclError::NotCompiled`].
pub fn unique_id() -> Result<[u8; ID_BYTES], NcclError> {
    Err(NcclError::NotCompiled)
}

/// A communicator, which this build cannot have.
#[derive(Debug)]
pub enum Communicator {}

impl Communicator {
    /// # Errors
    /// Always [`NcclError::NotCompiled`].
    pub fn init_rank(
        _id: &[u8; ID_BYTES],
        _rank: usize,
        _size: usize,
        _device: &Device,
    ) -> Result<Self, NcclError> {
        Err(NcclError::NotCompiled)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn all_reduce_by(
        &self,
        _vectors: Vec<Vec<Tensor<1>>>,
        _lengths: &[usize],
        _receive: &[usize],
        _sum: impl FnOnce(Vec<Tensor<1>>) -> Tensor<1>,
        _abort_check: AbortCheck<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn all_reduce(
        &self,
        _pieces: Vec<Tensor<1>>,
        _abort_check: AbortCheck<'_>,
    ) -> Result<Vec<Tensor<1>>, NcclError> {
        match *self {}
    }
}
