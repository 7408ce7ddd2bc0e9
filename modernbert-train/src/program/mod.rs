//! The commands, each a struct of its arguments and what it does.

pub(crate) mod show;
pub(crate) mod tokenize;
pub(crate) mod train;

pub(crate) use modernbert_cli::say as print;
