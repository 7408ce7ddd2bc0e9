//! `modernbert-train`: pretraining from the command line.

#![recursion_limit = "256"]

mod program;

use clap::{Parser, Subcommand};
use modernbert_cli::main_with_code;
use program::ranks::supervise;
use program::tokenize::TokenizeArgs;
use program::{arguments, shapes, show, sweep, tokenize};
use std::path::Path;
use std::process::ExitCode;

/// Pretrains ModernBERT encoders.
///
/// A run is a folder with its recipe, its data as tokens, its log, its checkpoints, and at the end its model. Ctrl-C saves it and
/// ends with exit code 130; `resume` continues from there, or from the last checkpoint after a crash, bit-identical to an uninterrupted run.
/// Exit codes: 0 done, 1 runs differ (diff), 2 unusable input or a failure, 130 interrupted and saved.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a small model within minutes on the Rust sources of cargo's registry, and shows predictions on held-out text.
    Demo(arguments::Demo),
    /// Tokenizes text into a folder of token shards.
    Tokenize(Box<TokenizeArgs>),
    /// Runs a recipe: corpus, tokenizer, the phases of training, model folder.
    #[command(after_help = arguments::RUN_HELP)]
    Run(arguments::Run),
    /// Resumes a run from its last checkpoint.
    #[command(after_help = arguments::RESUME_HELP)]
    Resume(arguments::Resume),
    /// Begins a run that continues another from one of its checkpoints with other settings, such as a lower learning rate.
    #[command(after_help = arguments::ROLLBACK_HELP)]
    Rollback(arguments::Rollback),
    /// Begins a run that decays the learning rate from a checkpoint of another run, optionally on other data.
    #[command(after_help = arguments::ANNEAL_HELP)]
    Anneal(arguments::Anneal),
    /// Runs a grid of settings and seeds, resumably, and compares its rows in a table and a picture.
    #[command(after_help = sweep::SWEEP_HELP)]
    Sweep(sweep::Sweep),
    /// Compares two runs bit for bit: weights, optimizer state, and step, tokens and loss of the log.
    Diff(show::Diff),
    /// Writes the mean of checkpoints as a model folder.
    #[command(after_help = show::AVERAGE_HELP)]
    Average(show::Average),
    /// Writes a checkpoint as a model folder that Hugging Face's libraries read.
    Export(show::Export),
    /// Describes a recipe (sizes, steps, memory, work), a run, a checkpoint, a shard or a folder of shards.
    Inspect(show::Inspect),
    /// Scores shapes of encoders by how well their matrices fill GPUs, or searches for such shapes.
    #[command(after_help = shapes::SHAPES_HELP)]
    Shapes(shapes::Shapes),
    /// Converts one of the authors' training files (YAML) to a recipe, and reports every key.
    Convert(show::Convert),
    /// Draws curves of one or several runs into a PNG.
    Plot(show::Plot),
}

fn main() -> ExitCode {
    let cli: Cli = modernbert_cli::parse();
    main_with_code(|| {
        if let Some((nproc, folder)) = cli.command.ranks()
            && let Some(code) = supervise(nproc, folder)?
        {
            return Ok(code);
        }
        match cli.command {
            Command::Demo(demo) => demo.run(),
            Command::Tokenize(args) => tokenize::run(&args),
            Command::Run(run) => run.run(),
            Command::Resume(resume) => resume.run(),
            Command::Rollback(rollback) => rollback.run(),
            Command::Anneal(anneal) => anneal.run(),
            Command::Sweep(sweep) => sweep.run(),
            Command::Diff(diff) => diff.run(),
            Command::Average(average) => average.run(),
            Command::Export(export) => export.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Shapes(shapes) => shapes.run(),
            Command::Convert(convert) => convert.run(),
            Command::Plot(plot) => plot.run(),
        }
    })
}

impl Command {
    /// `--nproc` and the run's folder, of the commands that train.
    fn ranks(&self) -> Option<(Option<u16>, &Path)> {
        match self {
            Self::Demo(demo) => Some(demo.ranks()),
            Self::Run(run) => Some(run.ranks()),
            Self::Resume(resume) => Some(resume.ranks()),
            Self::Rollback(rollback) => Some(rollback.ranks()),
            Self::Anneal(anneal) => Some(anneal.ranks()),
            _ => None,
        }
    }
}
