//! `modernbert-retrieval demo`: code search over the crates in cargo's registry.

mod clock;
mod files;
mod index;
mod results;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use burn::train::Interrupter;
use clap::Args;
use modernbert::Loader;
use modernbert::checkpoint::read_config;
use modernbert::config::Pooling;
use modernbert::device::{NamedDevice, is_cpu_with_bf16};
use modernbert::model::Precision;
use modernbert::output::OutputCheck;
use modernbert::sentences::Similarity;
use modernbert::tokenizer::Tokenizer;
use modernbert_cli::counter::Counter;
use modernbert_cli::text::{counted, human_count, human_seconds, shown};
use modernbert_cli::{DeviceArgs, INTERRUPTED, describe, say};
use modernbert_retrieval::data::{Dataset, DatasetOptions};
use modernbert_retrieval::functions::{FunctionOptions, Functions, Pairs};
use modernbert_retrieval::train::losses::Loss;
use modernbert_retrieval::train::{
    Embedder, EvalSet, Length, StepOptions, TextOptions, TrainOptions, TrainRows, Training,
    VectorKind,
};
use modernbert_train::corpus::{Origin, RegistryCrate, registry_crates};
use modernbert_train::engine::{GradientSum, Progress, device_peak, stop_on_signals};
use modernbert_train::pretrain::{PretrainEnd, PretrainOptions, pretrain};
use modernbert_train::recipe::{CorpusSource, TrainingPrecision, builtin};
use ranks::Ranks;

use clock::Clock;
use files::Files;
use results::{Results, Row};

/// Tokens of a text at most. The first tokens of a function, its signature, say most; shorter texts leave time for more steps.
const MAX_LENGTH: usize = 64;
/// Peak learning rate.
const LEARNING_RATE: f64 = 2e-3;
/// Rows of a batch, whose functions are each other's negatives.
const BATCH: usize = 128;
/// Passes over the pairs at most: few pairs are learned by heart in many.
const MOST_EPOCHS: u64 = 8;
/// Fewest pairs that are trained on.
const LEAST_PAIRS: usize = 8;
/// Queries of held-out crates at most.
const MOST_QUERIES: usize = 1500;
/// Seed of the order of pairs.
const SEED: u64 = 12;
/// Bytes that the folder has in the end, about.
const NEEDED: u64 = 300_000_000;
/// Searches that are shown at the end.
const SEARCHES: [&str; 3] = [
    "read a file line by line",
    "parse a duration from a string",
    "remove whitespace at both ends",
];

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Writes pairs, models, results and the index into this folder, which is new or empty.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Ends after about this many minutes; the stages get shares of them.
    #[arg(long, value_name = "MINUTES", default_value_t = 8.0)]
    minutes: f64,
    /// Reads the crates in the registry of this cargo home [default: $CARGO_HOME, else .cargo in the home folder].
    #[arg(long, value_name = "FOLDER")]
    cargo_home: Option<PathBuf>,
    /// Prints lines instead of the dashboard on a terminal.
    #[arg(long)]
    lines: bool,
    /// The device argument, which all programs share.
    #[command(flatten)]
    device: DeviceArgs,
}

/// Choices that all stages share.
struct Stage<'a> {
    args: &'a DemoArgs,
    clock: Clock,
    device: NamedDevice,
    precision: Precision,
    progress: Progress,
    interrupter: Interrupter,
    files: Files<'a>,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let clock = Clock::start(args.minutes)?;
    OutputCheck::folder(&args.out)
        .inputs(&args.cargo_home)
        .needs(NEEDED)
        .check()?;
    let crates = registry_crates(args.cargo_home.as_deref());
    if crates.is_empty() {
        bail!("{}", no_registry(args));
    }
    let device = args.device.select_for_training()?;
    let precision = match is_cpu_with_bf16(&device.device) {
        true => Precision::Bf16,
        false => Precision::F32,
    };
    say(&describe(&device, precision.name()));
    let interrupter = Interrupter::new();
    stop_on_signals(&interrupter)?;
    let stage = Stage {
        args,
        clock,
        device,
        precision,
        progress: match args.lines {
            true => Progress::Lines,
            false => Progress::detect(),
        },
        interrupter,
        files: Files::new(&args.out),
    };

    stage.say("functions of the crates in cargo's registry");
    let (functions, pairs) = stage.read(&crates)?;
    stage.files.make()?;
    stage.files.write_pairs(&functions, &pairs)?;
    stage.files.write_set(&functions, &pairs, MOST_QUERIES)?;
    stage.write_text(&pairs)?;

    stage.say("masked language modeling on the crates' text");
    stage.pretrain()?;

    let config = read_config(&stage.files.pretrained())?;
    let tokenizer = Tokenizer::from_folder(stage.files.pretrained())?;
    let positions = config.max_position_embeddings;
    let kind = VectorKind::Single {
        pooling: Pooling::Mean,
        normalize: true,
        max_length: MAX_LENGTH.min(positions),
        query_prompt: String::new(),
        document_prompt: String::new(),
    };
    let texts = TextOptions::new(tokenizer.clone(), kind.clone(), positions)?;
    let open = || Dataset::open(&stage.files.set(), &DatasetOptions::default());
    let set = EvalSet::new(open()?, &texts)?;
    let loader = Loader::new(stage.files.pretrained())
        .device(&stage.device.device)
        .precision(stage.precision);
    let (model, _) = Embedder::load(loader, &kind, SEED)?;
    let mut rows = results::bm25_rows(&open()?)?;
    rows.push(Row::of_model("pretrained encoder", &set, &model, &kind)?);

    stage.say("contrastive training on pairs");
    let train_rows = TrainRows::read(&[stage.files.pairs()])?;
    let options = stage.train_options(train_rows.rows.len());
    let mut training = Training::new(train_rows, Vec::new(), options);
    training.progress = stage.progress;
    training.interrupter = stage.interrupter.clone();
    training.peak_flops = device_peak(&stage.device, stage.precision);
    let trained = training.run(model, &texts)?;
    if trained.interrupted.is_some() {
        stage.interrupted();
    }
    say(&format!(
        "{}, {:.0} tokens per second, {}",
        counted(trained.steps, "step", "steps"),
        trained.tokens as f64 / trained.seconds.max(1e-9),
        human_seconds(trained.seconds)
    ));
    let length = tokenizer.with_max_length(positions);
    let folder = stage.files.model();
    trained
        .model
        .save(&folder, &config, &length, &kind, Similarity::Cosine)?;
    rows.push(Row::of_model(
        "trained encoder",
        &set,
        &trained.model,
        &kind,
    )?);
    if let [_, bm25, _, trained] = &rows[..] {
        let fused = Row::fused(&set, [bm25, trained]);
        rows.push(fused);
    }

    stage.say("index of the functions");
    let built = index::build(&stage, &functions)?;

    let results = Results {
        set: results::size(&open()?)?,
        held_out_crates: crates_of(&functions, &pairs.held_out),
        crates: crates_of(&functions, &pairs.train),
        train_pairs: pairs.train.len(),
        steps: trained.steps,
        indexed: built.indexed,
        functions: functions.functions.len(),
        seconds: stage.clock.elapsed().as_secs_f64(),
        rows,
    };
    say("");
    say(&results.markdown());
    stage
        .files
        .write("results.md", results.markdown().as_bytes())?;
    let json = serde_json::to_vec_pretty(&results.json())?;
    stage.files.write("results.json", &json)?;
    for query in SEARCHES {
        built.show(query)?;
    }
    say(&format!(
        "\nsearch with: modernbert-retrieval search {} \"TEXT\"",
        shown(&args.out)
    ));
    say(&results.line(&args.out));
    Ok(())
}

fn no_registry(args: &DemoArgs) -> String {
    let (place, other) = match &args.cargo_home {
        Some(home) => (
            format!("--cargo-home {}", home.display()),
            "name another cargo home",
        ),
        None => (
            "cargo's home".to_string(),
            "name the cargo home with --cargo-home",
        ),
    };
    format!(
        "{place}: no crate's sources are in its folder registry/src; run `cargo fetch` and `cargo build` in a project with dependencies, or {other}"
    )
}

/// Number of the crates that pairs are from.
fn crates_of(functions: &Functions, pairs: &[usize]) -> usize {
    let names = pairs
        .iter()
        .map(|&pair| functions.functions[pair].crate_name.as_str());
    names.collect::<BTreeSet<_>>().len()
}

impl Stage<'_> {
    fn say(&self, title: &str) {
        let seconds = self.clock.elapsed().as_secs_f64();
        say(&format!("\n{} {title}", human_seconds(seconds)));
    }

    /// Ends the process after a signal.
    fn interrupted(&self) -> ! {
        say(&format!(
            "interrupted; remove {} and start the demo again, or give --out a new folder",
            shown(&self.args.out)
        ));
        std::process::exit(INTERRUPTED.into());
    }

    /// Reads the functions of the crates and chooses the pairs.
    fn read(&self, crates: &[RegistryCrate]) -> anyhow::Result<(Functions, Pairs)> {
        let options = FunctionOptions::default();
        let counter = std::sync::Mutex::new(Counter::new("crates", crates.len()));
        let functions = Functions::read(crates, &options, |done| {
            if let Ok(mut counter) = counter.lock() {
                counter.update(done);
            }
            self.clock.is_reading_time()
        });
        drop(counter);
        let functions = functions.context("the threads that read the crates can't be started")?;
        let counts = functions.counts;
        say(&format!(
            "{} of {}, {} of them documented; {} parsed; left out: {} generated, {} not parsed, {} repeated, macros and their calls ({})",
            counted(functions.functions.len() as u64, "function", "functions"),
            counted(counts.crates as u64, "crate", "crates"),
            human_count(functions.documented() as u64),
            counted(counts.files as u64, "file", "files"),
            counted(counts.generated as u64, "file", "files"),
            counted(counts.unparsed as u64, "file", "files"),
            counted(counts.repeated as u64, "function", "functions"),
            human_count(counts.macros as u64),
        ));
        if counts.unread > 0 {
            say(&format!(
                "note: there was no time for {}; give more --minutes",
                counted(counts.unread as u64, "crate", "crates")
            ));
        }
        let pairs = functions.pairs(crates, &options);
        if pairs.train.len() < LEAST_PAIRS || pairs.held_out.is_empty() {
            bail!(
                "{}: {} of a doc comment and a function to train on, {} of held-out crates, and {LEAST_PAIRS} and 1 are needed; fetch more crates \
                 with `cargo fetch` in a project with dependencies, or name another cargo home with --cargo-home",
                crates[0]
                    .folder
                    .parent()
                    .unwrap_or(&crates[0].folder)
                    .display(),
                counted(pairs.train.len() as u64, "pair", "pairs"),
                pairs.held_out.len(),
            );
        }
        let [train, held_out] = [&pairs.train, &pairs.held_out].map(|of| crates_of(&functions, of));
        say(&format!(
            "{} of {train} crates to train on, {} of {} ({:.1} %); {} dropped because other functions have their \
             doc comment",
            counted(pairs.train.len() as u64, "pair", "pairs"),
            human_count(pairs.held_out.len() as u64),
            counted(held_out as u64, "held-out crate", "held-out crates"),
            100.0 * held_out as f64 / (train + held_out) as f64,
            human_count(pairs.repeated as u64),
        ));
        Ok((functions, pairs))
    }

    /// Writes the text of the crates that are not held out, for pretraining.
    fn write_text(&self, pairs: &Pairs) -> anyhow::Result<()> {
        use modernbert_train::corpus::{Corpus, RegistryOptions};
        let defaults = RegistryOptions::default();
        let options = RegistryOptions {
            cargo_home: self.args.cargo_home.clone(),
            without: pairs.held_out_crates.clone(),
            max_bytes: self.clock.text_bytes(defaults.max_bytes),
            ..defaults
        };
        let corpus = Corpus::from_registry(&options)?;
        if !matches!(corpus.origin, Origin::Registry { .. }) {
            bail!("{}", no_registry(self.args));
        }
        self.files.write_text(&corpus)
    }

    /// Trains the tokenizer and pretrains the encoder.
    fn pretrain(&self) -> anyhow::Result<()> {
        const FASTEST: f64 = 300_000.0;
        let mut recipe = builtin("demo").context("there is no recipe demo")??;
        let limit = self.clock.pretraining();
        let text = std::path::absolute(self.files.text())?;
        recipe.data.corpus = CorpusSource::Paths(vec![text]);
        recipe.run.max_seconds = Some((limit.as_secs_f64().round() as u64).max(1));
        // The run is shortened to the time by the speed of its first steps.
        recipe.run.total_tokens = (FASTEST * limit.as_secs_f64()) as u64;
        recipe.run.eval_every_tokens = recipe.run.total_tokens;
        recipe.run.precision = match self.precision {
            Precision::Bf16 => TrainingPrecision::Bf16,
            _ => recipe.run.precision,
        };
        let options = PretrainOptions {
            out: self.files.pretrained(),
            device: self.device.clone(),
            progress: self.progress,
            peak_tflops: None,
            interrupter: self.interrupter.clone(),
            ranks: Arc::new(Ranks::single()),
            gradient_sum: GradientSum::default(),
            restart: false,
        };
        match pretrain(&recipe, &options)? {
            PretrainEnd::Finished(summary) => {
                let loss = summary.state.eval_loss;
                say(&format!(
                    "{} tokens, {:.0} tokens per second, held-out loss {}",
                    human_count(summary.state.tokens),
                    summary.tok_s,
                    loss.map_or("undefined".to_string(), |loss| format!("{loss:.3}")),
                ));
                Ok(())
            }
            PretrainEnd::Followed => Ok(()),
            PretrainEnd::Interrupted { .. } => self.interrupted(),
        }
    }

    fn train_options(&self, rows: usize) -> TrainOptions {
        let batch = BATCH.min(rows / 2).max(2);
        TrainOptions {
            loss: Loss::in_batch(),
            length: Length::Steps(MOST_EPOCHS * (rows / batch).max(1) as u64),
            batch,
            step: StepOptions {
                // One pass.
                token_budget: 4 * BATCH * MAX_LENGTH,
                query_chunk: None,
            },
            learning_rate: LEARNING_RATE,
            seed: SEED,
            evaluate_every: Some(u64::from(u32::MAX)),
            time_limit: Some(self.clock.training()),
            ..TrainOptions::default()
        }
    }
}
