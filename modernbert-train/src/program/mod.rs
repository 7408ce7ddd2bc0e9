//! The commands, each a struct of its arguments and what it does.

pub(crate) mod interrupt;
pub(crate) mod show;
pub(crate) mod tokenize;
pub(crate) mod train;

#[allow(clippy::print_stdout)] // a program's output
pub(crate) fn print(text: &str) {
    println!("{text}");
}
