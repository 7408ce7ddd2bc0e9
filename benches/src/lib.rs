//! Measurements of kernels, inference and training; the programs live in `src/bin`.
