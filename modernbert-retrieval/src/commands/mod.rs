//! One module per command.

pub(crate) mod common;
pub(crate) mod compare;
pub(crate) mod demo;
pub(crate) mod dense;
pub(crate) mod evaluate;
pub(crate) mod fuse;
pub(crate) mod index;
pub(crate) mod mine;
mod report_folder;
pub(crate) mod search;
pub(crate) mod train;
