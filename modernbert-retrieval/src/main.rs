//! `modernbert-retrieval`: training, evaluation and search from the command line.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

mod commands;

use clap::{Parser, Subcommand};
use modernbert_cli::main_with;
use std::process::ExitCode;

/// Trains and evaluates retrieval models, and searches vectors.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a code search on the crates in cargo's registry, evaluates it on held-out crates, and builds its index.
    Demo(commands::demo::DemoArgs),
    /// Scores run files, vectors and BM25 on data sets, and prints the paper's results with them.
    Evaluate(commands::evaluate::EvaluateArgs),
    /// Compares two run files query by query, with the significance of their difference.
    Compare(commands::compare::CompareArgs),
    /// Combines run files by reciprocal rank fusion.
    Fuse(commands::fuse::FuseArgs),
    /// Builds and changes an exact vector index.
    Index(commands::index::IndexArgs),
    /// Searches a vector index.
    Search(commands::search::SearchArgs),
    /// Trains a model with a vector per text or per token.
    Train(Box<commands::train::TrainArgs>),
    /// Finds hard negatives for training.
    Mine(commands::mine::MineArgs),
}

fn main() -> ExitCode {
    let cli: Cli = modernbert_cli::parse();
    main_with(|| match cli.command {
        Command::Demo(args) => commands::demo::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Fuse(args) => commands::fuse::run(&args),
        Command::Index(args) => commands::index::run(&args),
        Command::Search(args) => commands::search::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Mine(args) => commands::mine::run(&args),
    })
}
