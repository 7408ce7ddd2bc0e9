//! Code shared by the finetuning programs: arguments, the opened model, a run with its last lines.

mod args;
mod predictions;
mod session;

pub use args::{FinetuneArgs, GlueArgs};
pub use session::{Session, TaskHead, names};
