//! Measurements of kernels, inference and training; the programs live in `src/bin`.

pub mod lengths;
pub mod padded;
pub mod row;
pub mod usage;
