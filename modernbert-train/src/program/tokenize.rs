//! `modernbert-train tokenize`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use modernbert::output::OutputCheck;
use modernbert::tokenizer::Tokenizer;

use super::print;
use modernbert_cli::tell;
use modernbert_cli::text::{counted, human_count, human_seconds, shown};
use modernbert_data::formats::{Fields, FileKind, Format, InputFile, find_inputs};
use modernbert_data::mixture::Mixture;
use modernbert_data::shard::{Cut, LongDocuments};
use modernbert_data::tokenize::{
    TokenizeEvent, TokenizeFolderError, TokenizeFolderOptions, TokenizeSource, tokenize,
};

/// Tokenizes text into a folder of token shards that runs read in place.
///
/// Reads files and folders of .txt, .md and source code (a document each), .jsonl, .csv and .tsv (a document a row), each also as .gz
/// or .zst, .parquet (a document a row), and folders of MosaicML's MDS shards with text or tokens. Part of the documents is held out by
/// the hash of their content. The output depends on input and options alone, not on the number of threads. The output appears in its folder
/// when the work is finished; before that, and after Ctrl-C or an error, the folder is unchanged.
///
/// Examples:
///
///   modernbert-train tokenize corpus/ notes.jsonl.gz --tokenizer tokenizer.json --out shards
///
///   modernbert-train tokenize --mixture mixture.toml --tokenizer model/ --out shards --threads 16
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct TokenizeArgs {
    /// Reads these files and folders of text as one source; or use --mixture.
    #[arg(required_unless_present = "mixture", conflicts_with = "mixture")]
    paths: Vec<PathBuf>,
    /// Reads the sources that this TOML file lists with their paths, proportions and licences.
    #[arg(long, value_name = "FILE")]
    mixture: Option<PathBuf>,
    /// Tokenizes with this tokenizer.json, or the one in this folder.
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// Writes the shards, the tokenizer and the index shards.json to this folder.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Reads the text of rows from this field or column [default: text]. (A mixture file names it for each source.)
    #[arg(long, value_name = "NAME", conflicts_with = "mixture")]
    text_field: Option<String>,
    /// Reads token ids of MDS samples without a text from this column [default: input_ids]; not with --mixture.
    #[arg(long, value_name = "NAME", conflicts_with = "mixture")]
    token_field: Option<String>,
    /// Writes these terms of the text into the index. (A mixture file names them for each source.)
    #[arg(
        long,
        value_name = "TERMS",
        default_value = "not stated",
        conflicts_with = "mixture"
    )]
    licence: String,
    /// Holds out this share of the documents for evaluation, at least one of each source; 0 for none.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    eval_fraction: f64,
    /// Chooses held-out documents by this seed.
    #[arg(long, default_value_t = 17)]
    seed: u64,
    /// Cuts documents into samples of this many tokens. By default they are stored whole, and each run cuts them to its own length.
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Cuts documents longer than --max-length into several samples, or keeps only their beginning.
    #[arg(long, value_enum, default_value = "split", requires = "max_length")]
    long_documents: Long,
    /// Drops documents with fewer tokens, [CLS] and [SEP] included.
    #[arg(long, value_name = "TOKENS", default_value_t = 8)]
    min_length: usize,
    /// Ends a shard when it has this many tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 100_000_000)]
    shard_tokens: u64,
    /// Uses this many threads; one per core by default. The output is the same for any number.
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
    /// Skips rows that can't be read, and names and counts them, instead of stopping at the first.
    #[arg(long)]
    skip_unreadable: bool,
    /// Replaces an existing set of shards when the new one is finished.
    #[arg(long)]
    overwrite: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Long {
    Split,
    Truncate,
}

/// Number of unreadable rows that are named; the others are counted.
const NAMED: u64 = 20;

/// Runs the subcommand; its last line on standard output is for programs.
///
/// # Errors
/// Input that can't be read, invalid settings, a folder that can't be written.
pub(crate) fn run(args: &TokenizeArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let options = options(args)?;
    check_fields(args)?;
    let sources = match &args.mixture {
        Some(path) => TokenizeSource::of_mixture(Mixture::from_file(path)?),
        None => vec![TokenizeSource {
            name: "text".into(),
            paths: args.paths.clone(),
            proportion: 1.0,
            licence: args.licence.clone(),
            fields: Fields {
                text: args.text_field.clone().unwrap_or_else(|| "text".into()),
                tokens: args
                    .token_field
                    .clone()
                    .unwrap_or_else(|| "input_ids".into()),
                ..Fields::default()
            },
        }],
    };
    let tokenizer = if args.tokenizer.is_dir() {
        Tokenizer::from_folder(&args.tokenizer)?
    } else {
        Tokenizer::from_file(&args.tokenizer)?
    };
    let read = sources.iter().flat_map(|source| source.paths.iter());
    // `tokenize` itself checks the content of an existing folder.
    OutputCheck::folder(&args.out)
        .inputs(read.chain([&args.tokenizer]).chain(&args.mixture))
        .replaces(|_| true)
        .check()?;
    // Drawn on standard error, and only on a terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{prefix} {bar:30} {bytes}/{total_bytes} read, {msg}, {eta} left",
    )?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let (mut documents, mut tokens, mut unreadable) = (0u64, 0u64, 0u64);
    let interrupted = interrupt_flag()?;
    let mut see = |event: TokenizeEvent| {
        match event {
            TokenizeEvent::Source(name, bytes) => {
                bar.reset();
                bar.set_prefix(name.to_owned());
                bar.set_length(bytes);
            }
            TokenizeEvent::Done(more_documents, more_tokens, bytes) => {
                documents += more_documents;
                tokens += more_tokens;
                let speed = tokens as f64 / started.elapsed().as_secs_f64().max(1e-9);
                bar.set_message(format!(
                    "{}, {} tokens, {} tok/s",
                    counted(documents, "document", "documents"),
                    human_count(tokens),
                    human_count(speed as u64)
                ));
                bar.inc(bytes);
            }
            TokenizeEvent::Unreadable(error) => {
                unreadable += 1;
                if unreadable <= NAMED {
                    bar.suspend(|| tell(&format!("skipped: {error}")));
                }
            }
        }
        if interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let report = match tokenize(&tokenizer, &sources, &args.out, &options, &mut see) {
        Err(TokenizeFolderError::Interrupted) => {
            bar.finish_and_clear();
            tell("interrupted; nothing was written");
            return Ok(ExitCode::from(modernbert_cli::INTERRUPTED));
        }
        other => other?,
    };
    bar.finish_and_clear();
    if unreadable > NAMED {
        tell(&format!(
            "{} more were skipped",
            counted(unreadable - NAMED, "row", "rows")
        ));
    }
    if report.skipped_files > 0 {
        print(&format!(
            "left out: {} of other kinds",
            counted(report.skipped_files, "file", "files")
        ));
    }
    if report.repeated_files > 0 {
        print(&format!(
            "left out: {} to files that are read under another name",
            counted(report.repeated_files, "link", "links")
        ));
    }
    let (mut train, mut eval) = (0, 0);
    for source in &report.index.sources {
        train += source.train.tokens;
        eval += source.eval.tokens;
        print(&format!(
            "{}: {}, {} tokens in {} to train on ({} of the mixture); {}, {} tokens held out; licence: {}",
            source.name,
            counted(source.train.documents, "document", "documents"),
            human_count(source.train.tokens),
            counted(source.train.shards.len(), "shard", "shards"),
            source.proportion,
            counted(source.eval.documents, "document", "documents"),
            human_count(source.eval.tokens),
            source.licence,
        ));
    }
    let seconds = started.elapsed().as_secs_f64();
    print(&format!(
        "{} on {}",
        human_seconds(seconds),
        counted(options.threads, "thread", "threads")
    ));
    print(&format!(
        "tokenize: documents={documents} train_tokens={train} eval_tokens={eval} unreadable={unreadable} tok_s={:.0} seconds={seconds:.1} out={}",
        tokens as f64 / seconds.max(1e-9),
        shown(&args.out)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Refuses names of fields for files that have none. A path that can't be read is reported later.
fn check_fields(args: &TokenizeArgs) -> anyhow::Result<()> {
    let found = args.paths.iter().filter_map(|path| find_inputs(path).ok());
    let inputs: Vec<InputFile> = found.flat_map(|found| found.inputs).collect();
    let is_text = |input: &InputFile| {
        let kind = FileKind::of(&input.path);
        !input.is_mds && kind.is_some_and(|kind| kind.format == Format::Text)
    };
    if inputs.is_empty() {
        return Ok(());
    }
    if args.text_field.is_some() && inputs.iter().all(is_text) {
        bail!(
            "--text-field has no effect, since each file is one text without fields; leave it out"
        );
    }
    if args.token_field.is_some() && !inputs.iter().any(|input| input.is_mds) {
        bail!(
            "--token-field has no effect, since no input is a folder of MDS shards; leave it out"
        );
    }
    Ok(())
}

/// A flag that the first Ctrl-C (or SIGTERM, SIGHUP) sets; the second ends the process, whose temporary folder the next run removes.
#[cfg(unix)]
fn interrupt_flag() -> std::io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = modernbert_cli::INTERRUPTED.into();
        signal_hook::flag::register_conditional_shutdown(signal, code, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}

#[cfg(not(unix))]
fn interrupt_flag() -> std::io::Result<Arc<AtomicBool>> {
    Ok(Arc::default())
}

fn options(args: &TokenizeArgs) -> anyhow::Result<TokenizeFolderOptions> {
    let cut = match args.max_length {
        Some(length) if length < 3 => {
            bail!(
                "--max-length {length}: [CLS], text and [SEP] need at least 3 tokens; set 3 or more"
            )
        }
        Some(length) if length < args.min_length => {
            bail!(
                "--max-length {length}: documents are cut to that many tokens, and --min-length {} drops them all; lower --min-length, or raise \
                 --max-length",
                args.min_length
            )
        }
        Some(max_length) => Some(Cut {
            max_length,
            min_length: args.min_length,
            long_documents: match args.long_documents {
                Long::Split => LongDocuments::Split,
                Long::Truncate => LongDocuments::Truncate,
            },
        }),
        None => None,
    };
    if args.licence.trim().is_empty() || args.licence.chars().any(char::is_control) {
        bail!(
            "--licence {:?}: write the terms in one line, without control characters, or leave it out",
            args.licence
        );
    }
    if args.shard_tokens == 0 {
        bail!("--shard-tokens is 0; set 1 or more");
    }
    if let Some(threads) = args.threads.filter(|threads| !(1..=1024).contains(threads)) {
        bail!("--threads is {threads}; set 1 to 1024, or leave it out to use all cores");
    }
    let defaults = TokenizeFolderOptions::default();
    Ok(TokenizeFolderOptions {
        cut,
        min_length: args.min_length,
        eval_fraction: args.eval_fraction,
        seed: args.seed,
        shard_tokens: args.shard_tokens,
        threads: args.threads.unwrap_or(defaults.threads),
        skip_unreadable: args.skip_unreadable,
        overwrite: args.overwrite,
    })
}
