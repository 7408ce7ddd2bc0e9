//! Measurements of kernels, inference and training; the programs live in `src/bin`.

pub mod documents;
pub mod gpu;
pub mod lengths;
pub mod padded;
pub mod paper;
pub mod record;
pub mod row;
pub mod search;
pub mod usage;
