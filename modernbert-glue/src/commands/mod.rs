//! The commands: arguments and output; the library does the work.

pub(crate) mod common;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sweep;
pub(crate) mod watch;
