//! Speed of a training step of masked language modeling.
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda --bin training -- --dtype bf16 --shape base
//! ```
//!
//! A step is the forward pass, the loss over the labelled tokens (30 % of a batch of whole documents), the backward pass and StableAdamW,
//! without a readback until the end of a run. The parts are timed in separate runs with a synchronization after each part, so
//! their sum is somewhat more than a step. Weights and ids are random, which does not change the time.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use burn::optim::GradientsParams;
use burn::tensor::Device;
use clap::Parser;
use modernbert::batch::PackedBatch;
use modernbert::batch::SequenceLayout;
use modernbert::config::ModernBertConfig;
use modernbert::device::count_launches;
use modernbert::model::{MaskedLm, MaskedTokens, Precision, initialize};
use modernbert::ops::{Op, use_fallback};
use modernbert_benches::lengths::{LengthSet, select};
use modernbert_benches::row::{Row, heading, median};
use modernbert_benches::usage::peak_mib;
use modernbert_cli::{DeviceArgs, describe, main_with};
use modernbert_train::optim::{NamedOptimizer, StableAdamWConfig};

/// Measures a training step of masked language modeling: tokens per second, model TFLOP/s, and the time of each part.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Computes GEMMs and attention in this dtype: bf16, f16 or f32.
    #[arg(long, default_value = "bf16")]
    dtype: Precision,
    /// Uses the shape of this preset: base, large or another one.
    #[arg(long, default_value = "base")]
    shape: String,
    /// Uses this many layers instead of the preset's; for small machines.
    #[arg(long)]
    layers: Option<usize>,
    /// Uses steps of at most this many tokens, in whole documents.
    #[arg(long, default_value_t = 65_536)]
    tokens: usize,
    /// Accumulates gradients over this many micro-batches per step.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    micro_batches: u32,
    /// Labels this share of the tokens.
    #[arg(long, default_value_t = 0.3)]
    predicted: f64,
    /// Measures these sets or groups of sets of benches/lengths.json, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "paper")]
    sets: Vec<String>,
    /// Makes this many steps per run; a run ends with a readback.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Times this many runs and prints their median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Computes MFU (model FLOP utilization) for this peak of the device, in TFLOP/s.
    #[arg(long, default_value_t = 989.0)]
    peak_tflops: f64,
    /// Computes these ops with their fallbacks (Burn's tensor operations) instead of this project's kernels; `all` for every op.
    #[arg(long, value_delimiter = ',', value_name = "OPS")]
    fallback: Vec<String>,
    /// Prints the losses of this many steps on the first set and stops, to compare builds and devices.
    #[arg(long)]
    losses: Option<u32>,
    /// Uses this learning rate; the default is the published one of base. With --losses, a lower one keeps the model from memorizing the
    /// batch.
    #[arg(long, default_value_t = 8e-4)]
    learning_rate: f64,
    /// Uses memory pages of this many MiB on the device; by default the size used in pretraining, 0 for the device's own choice.
    #[arg(long)]
    page_mib: Option<u64>,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select()?;
    let device = named.device.clone().autodiff();
    if args.fallback == ["all"] {
        use_fallback(&Op::ALL);
    } else {
        let ops = args.fallback.iter().map(|name| name.parse());
        let ops: Result<Vec<Op>, _> = ops.collect();
        use_fallback(&ops.context("--fallback")?);
    }
    match args.page_mib {
        None => modernbert::device::pages_for_training(&device),
        Some(0) => None,
        Some(mib) => modernbert::device::page_size(&device, mib << 20),
    };
    let mut config = ModernBertConfig::preset(&args.shape)?;
    if let Some(layers) = args.layers {
        config.layer_types.truncate(layers);
        config.num_hidden_layers = layers;
    }
    println!("{}", describe(&named, args.dtype.name()));
    if args.losses.is_none() {
        println!("{}  {:>6}", heading(), "MFU %");
    }
    let mut rows = Vec::new();
    for set in select(&args.sets)? {
        let mut bench = Bench::new(args, &config, &device, &set)?;
        if let Some(steps) = args.losses {
            for step in 0..steps {
                println!("step {step}  loss {:.8}", bench.step_and_read()?);
            }
            return Ok(());
        }
        for row in bench.measure(args)? {
            let mfu = if row.pass == "step" {
                format!("{:.1}", 100.0 * row.tflops / args.peak_tflops)
            } else {
                "-".to_owned()
            };
            println!("{}  {mfu:>6}", row.line());
            rows.push(row);
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A micro-batch, on the host.
struct Micro {
    ids: Vec<u32>,
    layout: SequenceLayout,
    positions: Vec<u32>,
    labels: Vec<u32>,
}

struct Bench {
    /// Taken out during the update, so that its weights are uniquely owned and updated in place.
    model: Option<MaskedLm>,
    optimizer: NamedOptimizer,
    micro: Vec<Micro>,
    name: String,
    tokens: usize,
    labelled: usize,
    flops: f64,
    learning_rate: f64,
    device: Device,
}

impl Bench {
    fn new(
        args: &Args,
        config: &ModernBertConfig,
        device: &Device,
        set: &LengthSet,
    ) -> anyhow::Result<Self> {
        let model =
            initialize(MaskedLm::new(config, device)?, config, 0).with_precision(args.dtype);
        let optimizer = NamedOptimizer::new(StableAdamWConfig::new(args.learning_rate));
        let per_micro = args.tokens / args.micro_batches as usize;
        // The linear congruential generator of Numerical Recipes: any ids will do, if they are the same in every run.
        let mut state = 1u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let mut documents = set.lengths.iter().copied().cycle().peekable();
        let mut micro = Vec::new();
        for _ in 0..args.micro_batches {
            let mut lengths = Vec::new();
            let mut total = 0;
            while let Some(length) = documents.next_if(|length| total + length <= per_micro) {
                total += length;
                lengths.push(length);
            }
            if lengths.is_empty() {
                bail!(
                    "--tokens: a micro-batch of {per_micro} tokens is less than the first document of set {}; raise it",
                    set.name
                );
            }
            let share = (args.predicted * f64::from(1 << 24)) as u32;
            let positions: Vec<u32> = (0..total as u32).filter(|_| random() < share).collect();
            ensure!(
                !positions.is_empty(),
                "--predicted {} labels no token; raise it",
                args.predicted
            );
            let mut id = || 100 + random() % (config.vocab_size as u32 - 100).min(15_900);
            micro.push(Micro {
                ids: (0..total).map(|_| id()).collect(),
                labels: positions.iter().map(|_| id()).collect(),
                positions,
                layout: SequenceLayout::from_lengths(lengths)?,
            });
        }
        let labelled = micro.iter().map(|m| m.positions.len()).sum();
        let flops = micro
            .iter()
            .map(|m| {
                let lengths: Vec<usize> = m.layout.ranges().map(|range| range.len()).collect();
                3.0 * config.forward_flops(&lengths, m.positions.len()) as f64
            })
            .sum();
        Ok(Self {
            model: Some(model),
            optimizer,
            tokens: micro.iter().map(|m| m.ids.len()).sum(),
            labelled,
            micro,
            name: set.name.clone(),
            flops,
            learning_rate: args.learning_rate,
            device: device.clone(),
        })
    }

    /// Runs a step and returns the sum of the losses, on the device; `after` is called when a part has been submitted to it.
    fn step(&mut self, mut after: impl FnMut(StepPhase, &Device)) -> burn::tensor::Tensor<1> {
        let model = self
            .model
            .take()
            .expect("the model is put back after each step");
        let mut accumulator = burn::optim::GradientsAccumulator::new();
        let mut sum = None;
        for micro in &self.micro {
            let batch = PackedBatch::new(&micro.ids, micro.layout.clone(), &self.device);
            let weights = vec![1.0; micro.positions.len()];
            let masked = MaskedTokens::new(&micro.positions, &micro.labels, &weights, &self.device);
            after(StepPhase::Data, &self.device);
            let output = model.forward(&batch, &masked);
            after(StepPhase::Forward, &self.device);
            let loss = output.loss_sum.clone() / self.labelled as f64;
            let grads = loss.backward();
            let grads = GradientsParams::from_grads(grads, &model);
            accumulator.accumulate(&model, grads);
            let loss = output.loss_sum.inner();
            sum = Some(match sum {
                Some(sum) => sum + loss,
                None => loss,
            });
            after(StepPhase::Backward, &self.device);
        }
        let grads = accumulator.grads();
        self.model = Some(self.optimizer.step(self.learning_rate, model, grads));
        after(StepPhase::Optimizer, &self.device);
        sum.expect("at least one micro-batch")
    }

    fn step_and_read(&mut self) -> anyhow::Result<f64> {
        let labelled = self.labelled as f64;
        let sum = self.step(|_, _| {});
        let loss = f64::from(sum.try_into_scalar::<f32>()?) / labelled;
        ensure!(loss.is_finite(), "the loss is {loss}");
        Ok(loss)
    }

    fn measure(&mut self, args: &Args) -> anyhow::Result<Vec<Row>> {
        let first = Instant::now();
        let loss = self.step_and_read()?;
        self.device.sync()?;
        let first = first.elapsed().as_secs_f64();
        // The first step also allocates the optimizer's moments.
        let (second, launches) = count_launches(|| self.step_and_read());
        second?;
        println!("{}: first step {first:.1} s, loss {loss:.3}", self.name);
        // There are no launches on a CPU.
        if launches > 0 {
            println!("{}: {launches} kernel launches per step", self.name);
        }
        let mut times = Vec::new();
        for _ in 0..args.runs {
            self.device.sync()?;
            let start = Instant::now();
            for _ in 1..args.steps {
                self.step(|_, _| {});
            }
            self.step_and_read()?;
            self.device.sync()?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(args.steps));
            peak_mib(&self.device.clone().inner());
        }
        let mut parts: [Vec<f64>; 4] = Default::default();
        for _ in 0..args.steps {
            let mut spent = [0.0; 4];
            self.device.sync()?;
            let mut start = Instant::now();
            self.step(|part, device| {
                device.sync().expect("the device answers");
                spent[part as usize] += start.elapsed().as_secs_f64() * 1e3;
                start = Instant::now();
            });
            for (all, one) in parts.iter_mut().zip(spent) {
                all.push(one);
            }
        }
        let peak = peak_mib(&self.device.clone().inner());
        let row = |pass: &'static str, ms: f64, flops: f64| Row {
            set: self.name.clone(),
            op: "mlm".to_owned(),
            pass,
            ms,
            tok_s: self.tokens as f64 / ms * 1e3,
            tflops: flops / ms / 1e9,
            gbs: None,
            peak_mib: peak,
            cpu_ms: None,
        };
        let mut rows = vec![row("step", median(times), self.flops)];
        let shares = [0.0, self.flops / 3.0, self.flops * 2.0 / 3.0, 0.0];
        for ((name, times), flops) in ["data", "forward", "backward", "optimizer"]
            .into_iter()
            .zip(parts)
            .zip(shares)
        {
            rows.push(row(name, median(times), flops));
        }
        Ok(rows)
    }
}

/// Parts of a step.
#[derive(Clone, Copy)]
enum StepPhase {
    Data,
    Forward,
    Backward,
    Optimizer,
}
