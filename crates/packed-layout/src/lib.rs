//! Description of a packed batch that data loaders and kernels share: boundaries of its sequences, and the key of its dropout. The types
//! are in host memory and need no tensor library.

mod dropout;
mod layout;

pub use dropout::{Dropout, DropoutRates};
pub use layout::{Bucket, LayoutError, SequenceLayout};
