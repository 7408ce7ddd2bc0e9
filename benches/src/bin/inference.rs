//! Speed of the encoder without a head.
//!
//! ```text
//! cargo run --release -p modernbert-benches --bin inference -- --device flex --dtype f32 --shape base
//! ```
//!
//! Weights are random, which does not change the time. Documents are packed, ids are uniform in [100, 16000).

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Tensor;
use clap::Parser;
use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::model::{ModernBert, Precision, initialize};
use modernbert_benches::documents::{Ids, read_rows};
use modernbert_benches::lengths::{LengthSet, select};
use modernbert_benches::row::{Row, heading, median};
use modernbert_benches::usage::{cpu_seconds, peak_mib};
use modernbert_cli::{DeviceArgs, describe, main_with};

/// Measures the encoder without a head: tokens per second over sets of document lengths.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Computes GEMMs and attention in this dtype: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// On the CPU: computes the GEMMs of the layers in int8, attention in bf16.
    #[arg(long, conflicts_with_all = ["dtype", "half_residual"])]
    int8: bool,
    /// On NVIDIA GPUs of compute capability 9.0: computes the GEMMs of the layers in fp8, the rest in `--dtype`, and prints how far the hidden states are from those
    /// without fp8.
    #[arg(long, conflicts_with = "int8")]
    fp8: bool,
    /// Uses the shape of this preset: base, large or another one.
    #[arg(long, default_value = "base")]
    shape: String,
    /// Measures these sets or groups of sets of benches/lengths.json, separated by commas; `cpu` on a CPU, otherwise `paper,queries`.
    #[arg(long, value_delimiter = ',')]
    sets: Option<Vec<String>>,
    /// Uses batches of this many documents instead of each set's own number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Uses only this many first documents of each set.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    documents: Option<u32>,
    /// Uses one batch per set, of the whole documents that fit into this many tokens, instead of the set's own batches.
    #[arg(long, conflicts_with_all = ["batch", "documents"])]
    tokens: Option<usize>,
    /// Times this many passes and prints their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Runs this many untimed passes before.
    #[arg(long, default_value_t = 1)]
    warm_up: u32,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Launches every kernel of a small batch instead of replaying a captured graph.
    #[arg(long)]
    without_graphs: bool,
    /// Keeps the residual stream in the dtype of `--dtype` instead of f32, and prints how far the hidden states are from those with f32.
    #[arg(long, conflicts_with = "turns")]
    half_residual: bool,
    /// Reads names of sets from standard input, one per line, and prints a timed pass as a line of JSON for each: a script can
    /// alternate between programs in this mode.
    #[arg(long, conflicts_with_all = ["json", "sets"])]
    turns: bool,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select()?;
    let config = ModernBertConfig::preset(&args.shape)?;
    let model = initialize(ModernBert::new(&config, &named.device)?, &config, 0);
    let model = model
        .with_precision(args.dtype)
        .with_half_residual(args.half_residual)
        .with_int8(args.int8);
    anyhow::ensure!(
        !args.fp8 || model.supports_fp8(),
        "--fp8 is supported on NVIDIA GPUs of compute capability 9.0 with --dtype bf16 or f16"
    );
    let exact = (args.half_residual || args.fp8).then(|| model.clone().with_half_residual(false));
    let model = model.with_fp8(args.fp8);
    let bench = Bench {
        exact,
        model: match args.without_graphs {
            false => model.for_inference(),
            true => model.for_inference().without_graphs(),
        },
        config,
    };
    anyhow::ensure!(
        !args.int8 || bench.model.packed_for().is_some(),
        "--int8 is supported on the CPU; choose --device flex"
    );
    if args.turns {
        return bench.take_turns(args);
    }
    let dtype = match (args.int8, args.fp8) {
        (true, _) => "int8",
        (_, true) => "fp8",
        _ => args.dtype.name(),
    };
    println!("{}", describe(&named, dtype));
    if let Some(unit) = bench.model.packed_for() {
        println!("GEMMs on {unit}");
    }
    println!(
        "shape {}, {} timed passes after {} to warm up, {} threads",
        args.shape,
        args.runs,
        args.warm_up,
        std::thread::available_parallelism()?
    );
    let names = match &args.sets {
        Some(names) => names.clone(),
        None if named.name == "flex" => vec!["cpu".to_owned()],
        None => vec!["paper".to_owned(), "queries".to_owned()],
    };
    println!("{}", heading());
    let mut rows = Vec::new();
    for set in select(&names)? {
        let prepared = bench.prepare(set, args)?;
        for _ in 0..args.warm_up {
            bench.pass(&prepared)?;
        }
        bench.check(&prepared)?;
        let timed: Vec<(f64, Option<f64>)> = (0..args.runs)
            .map(|_| bench.pass(&prepared))
            .collect::<anyhow::Result<_>>()?;
        let ms = median(timed.iter().map(|(ms, _)| *ms).collect());
        let cpu: Option<Vec<f64>> = timed.into_iter().map(|(_, cpu)| cpu).collect();
        let row = bench.row(&prepared, ms, cpu.map(median));
        println!("{}", row.line());
        if let Some(exact) = &bench.exact {
            println!("  {}", bench.accuracy(exact, &prepared)?);
        }
        rows.push(row);
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

struct Bench {
    model: ModernBert,
    /// The model in the same precision without fp8 and with its residual stream in f32, where the timed model is another one.
    exact: Option<ModernBert>,
    config: ModernBertConfig,
}

/// A set of documents and its batches on the device.
struct Prepared {
    set: LengthSet,
    batches: Vec<PackedBatch>,
}

impl Bench {
    /// Cosine similarity of each token's hidden state of the first batch with that of the exact model: least and mean.
    fn accuracy(&self, exact: &ModernBert, prepared: &Prepared) -> anyhow::Result<String> {
        let Some(batch) = prepared.batches.first() else {
            return Ok("no batch".to_owned());
        };
        let found = self.model.clone().without_graphs().forward(batch);
        let expected = exact.forward(batch);
        let dot = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(1);
        let norms = dot(&found, &found) * dot(&expected, &expected);
        let cosines = dot(&found, &expected) / norms.sqrt();
        let cosines = cosines.try_into_vec_as::<f32>()?;
        let least = cosines.iter().copied().fold(1.0, f32::min);
        let mean = cosines.iter().map(|&x| f64::from(x)).sum::<f64>() / cosines.len() as f64;
        Ok(format!(
            "cosine with the same precision, no fp8 and an f32 residual stream: mean {mean:.6}, least {least:.6}"
        ))
    }

    fn prepare(&self, mut set: LengthSet, args: &Args) -> anyhow::Result<Prepared> {
        if let Some(batch) = args.batch {
            set.batch = batch as usize;
        }
        if let Some(documents) = args.documents {
            set.lengths.truncate(documents as usize);
        }
        if let Some(tokens) = args.tokens {
            let mut total = 0;
            let fitting = set.lengths.iter().take_while(|&&length| {
                total += length;
                total <= tokens
            });
            let count = fitting.count();
            anyhow::ensure!(
                count > 0,
                "--tokens {tokens} is less than the first document of set {}; raise it",
                set.name
            );
            set.lengths.truncate(count);
            set.batch = count;
        }
        let device = self.model.device();
        let mut ids = Ids::new(1);
        let batches = set
            .batches()
            .map(|lengths| ids.batch(lengths, &device))
            .collect::<anyhow::Result<_>>()?;
        Ok(Prepared { set, batches })
    }

    /// Returns wall-clock and CPU milliseconds of one pass over the set.
    fn pass(&self, prepared: &Prepared) -> anyhow::Result<(f64, Option<f64>)> {
        let device = self.model.device();
        device.sync()?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        // Kept until the device is done: an operation whose result is dropped earlier may not be run at all.
        let mut last = None;
        for batch in &prepared.batches {
            last = Some(self.model.forward(batch));
        }
        device.sync()?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        drop(last);
        let cpu = cpu.zip(cpu_seconds()).map(|(a, b)| (b - a) * 1e3);
        Ok((ms, cpu))
    }

    /// Reads values back and fails if they are not finite (a failed launch leaves NaN), or far from those of a pass without a captured graph.
    fn check(&self, prepared: &Prepared) -> anyhow::Result<()> {
        let launched = self.model.clone().without_graphs();
        for batch in &prepared.batches {
            // All values of a small batch, the only kind that has a graph; the first row of a large one.
            let rows = match batch.layout.total_tokens() {
                total if total <= 4096 => total,
                _ => 1,
            };
            let read = |model: &ModernBert| read_rows(model.forward(batch), rows);
            let values = read(&self.model)?;
            // A graph that is not full computes a larger batch: other numbers of rows may be rounded otherwise.
            let expected = read(&launched)?;
            let pairs = || values.iter().zip(&expected);
            let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let error = pairs().fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest;
            let limit = match self.model.precision() {
                Precision::F32 => 1e-5,
                Precision::Bf16 | Precision::F16 => 1e-2,
            };
            anyhow::ensure!(
                error <= limit,
                "set {}: the captured graph gives other values than the launches, by {error:e}",
                prepared.set.name
            );
            if pairs().any(|(a, b)| a.to_bits() != b.to_bits()) {
                eprintln!(
                    "set {}: the captured graph differs from the launches by {error:e} of the largest value",
                    prepared.set.name
                );
            }
        }
        Ok(())
    }

    fn row(&self, prepared: &Prepared, ms: f64, cpu_ms: Option<f64>) -> Row {
        let set = &prepared.set;
        Row {
            set: set.name.clone(),
            op: "encoder".to_owned(),
            pass: "forward",
            ms,
            tok_s: set.tokens() as f64 / ms * 1e3,
            tflops: self.config.forward_flops(&set.lengths, 0) as f64 / ms / 1e9,
            gbs: None,
            peak_mib: peak_mib(&self.model.device()),
            cpu_ms,
        }
    }

    fn take_turns(&self, args: &Args) -> anyhow::Result<()> {
        let mut known: Vec<Prepared> = Vec::new();
        for line in std::io::stdin().lock().lines() {
            let name = line?.trim().to_owned();
            let index = match known.iter().position(|prepared| prepared.set.name == name) {
                Some(index) => index,
                None => {
                    for set in select(std::slice::from_ref(&name))? {
                        let prepared = self.prepare(set, args)?;
                        for _ in 0..args.warm_up {
                            self.pass(&prepared)?;
                        }
                        known.push(prepared);
                    }
                    known.len() - 1
                }
            };
            let (ms, cpu_ms) = self.pass(&known[index])?;
            println!(
                "{}",
                serde_json::to_string(&self.row(&known[index], ms, cpu_ms))?
            );
        }
        Ok(())
    }
}
