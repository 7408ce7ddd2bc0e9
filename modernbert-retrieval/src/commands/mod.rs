//! One module per command.

pub(crate) mod common;
pub(crate) mod compare;
pub(crate) mod evaluate;
