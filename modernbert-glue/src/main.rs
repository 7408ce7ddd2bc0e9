//! `modernbert-glue`: finetuning on GLUE from the command line.

#![recursion_limit = "256"]

mod commands;

use clap::{Parser, Subcommand};
use modernbert_cli::main_with_code;
use std::process::ExitCode;

/// Finetunes ModernBERT on GLUE.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finetunes a pretrained model on each task by the paper's settings and scores it on the dev sets. The same command resumes
    /// an interrupted one.
    Run(commands::run::RunArgs),
    /// Tries the paper's learning rates, weight decays and epochs on each task. The same command resumes an
    /// interrupted one.
    Sweep(commands::sweep::SweepArgs),
    /// Finetunes from each checkpoint of a pretraining run as it appears, and draws the scores beside the run's loss. The same command
    /// resumes an interrupted one.
    Watch(commands::watch::WatchArgs),
    /// Compares runs with the paper and with each other, in Markdown and as plots.
    Report(commands::report::ReportArgs),
    /// Predicts the test sets with the models of a run, in the form gluebenchmark.com takes.
    Predict(commands::predict::PredictArgs),
}

fn main() -> ExitCode {
    let cli: Cli = modernbert_cli::parse();
    main_with_code(|| match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Sweep(args) => commands::sweep::run(&args),
        Command::Watch(args) => commands::watch::run(&args),
        Command::Report(args) => commands::report::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Predict(args) => commands::predict::run(&args).map(|()| ExitCode::SUCCESS),
    })
}
