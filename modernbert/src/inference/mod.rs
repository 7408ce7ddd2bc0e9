//! Using a model: texts in, answers out.

mod fill_mask;

pub use fill_mask::{Candidate, FillMaskError, fill_mask};
