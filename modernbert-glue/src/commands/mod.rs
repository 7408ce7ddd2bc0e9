//! The commands: arguments in, lines out. What they do is the library's.

pub(crate) mod common;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sweep;
