//! Pictures of a run.

pub mod plot;
