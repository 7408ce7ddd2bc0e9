//! The commands: arguments and function of each.

pub(crate) mod arguments;
mod rank_arguments;
pub(crate) mod ranks;
pub(crate) mod shapes;
pub(crate) mod show;
mod signals;
pub(crate) mod sweep;
pub(crate) mod tokenize;
pub(crate) mod train;

pub(crate) use modernbert_cli::say as print;
