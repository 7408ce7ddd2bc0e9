//! The pages that map tensors.

#[path = "../../modernbert/src/checkpoint/error.rs"]
mod error;
#[path = "../../modernbert/src/checkpoint/files.rs"]
mod files;

pub use error::CheckpointError;
pub use files::{ShapedValues, TensorFiles};

pub const CONFIG_FILE: &str = "config.json";
pub const WEIGHTS_FILE: &str = "model.safetensors";
