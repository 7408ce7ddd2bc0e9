//! What data loaders and kernels both know of a packed batch: where its sequences begin and end, and the key of its dropout.
//! Host memory alone; no tensor library.

mod dropout;
mod layout;

pub use dropout::{Dropout, DropoutRates};
pub use layout::{LayoutError, SequenceLayout};
