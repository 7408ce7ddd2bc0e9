//! Speed of packed attention in isolation, forward and backward pass.
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda --bin attention -- --json rows.json
//! ```
//!
//! Each set of documents is one batch of the whole documents that fit into `--tokens`. FLOP are counted exactly for the visible pairs:
//! 4 × pairs × head size × heads forward, 2.5 times that backward. The floor is the time to move each tensor once at `--bandwidth`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use burn::tensor::{DType, Device, Distribution, Tensor};
use clap::Parser;
use modernbert::batch::SequenceLayout;
use modernbert::model::Precision;
use modernbert::ops::attention::{
    AttentionSpec, attention_backward, attention_forward, rotary_table,
};
use modernbert_benches::lengths::{LengthSet, select};
use modernbert_benches::row::{Row, heading, median};
use modernbert_cli::{DeviceArgs, describe, main_with};

/// Measures packed attention: milliseconds, TFLOP/s of the visible pairs, GB/s and the floor set by memory bandwidth.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Uses q, k and v in this dtype: bf16, f16 or f32.
    #[arg(long, default_value = "bf16")]
    dtype: Precision,
    /// Uses this many heads.
    #[arg(long, default_value_t = 12)]
    heads: usize,
    /// Uses heads of this size.
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    /// Uses batches of at most this many tokens.
    #[arg(long, default_value_t = 65_536)]
    tokens: usize,
    /// Measures these sets or groups of sets of benches/lengths.json, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "paper,queries")]
    sets: Vec<String>,
    /// Makes this many calls per run; a run ends with a synchronization.
    #[arg(long, default_value_t = 20)]
    calls: u32,
    /// Times this many runs and prints their median.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Prints the seconds of kernel compilation first: what the first forward and backward pass of each op takes beyond the second.
    /// Kernels that an earlier run cached on disk are not compiled again; docs/performance.md says how to start without them.
    #[arg(long)]
    cold: bool,
    /// Computes the floor for this memory bandwidth, in GB/s.
    #[arg(long, default_value_t = 3000.0)]
    bandwidth: f64,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Half the window of ModernBERT's local layers: visible keys on each side.
const HALF_WINDOW: usize = 64;

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select()?;
    println!("{}", describe(&named, args.dtype.name()));
    if args.cold {
        compile(args, &named.device)?;
    }
    println!("{}  {:>8}", heading(), "floor ms");
    let mut rows = Vec::new();
    for set in select(&args.sets)? {
        let layout = batch(args, &set)?;
        for window in [None, Some(HALF_WINDOW)] {
            for rotary in [false, true] {
                let problem = Problem::new(args, &named.device, &layout, window, rotary);
                for (pass, row, floor) in problem.measure(args, &set.name)? {
                    println!("{}  {floor:>8.3}", row.line());
                    debug_assert_eq!(pass, row.pass);
                    rows.push(row);
                }
            }
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Returns the lengths of the whole documents of a set that fit into `--tokens`.
fn batch(args: &Args, set: &LengthSet) -> anyhow::Result<SequenceLayout> {
    let mut lengths = Vec::new();
    let mut total = 0;
    for &length in &set.lengths {
        if total + length > args.tokens {
            break;
        }
        total += length;
        lengths.push(length);
    }
    if lengths.is_empty() {
        bail!(
            "--tokens {} is less than the first document of set {}; raise it",
            args.tokens,
            set.name
        );
    }
    Ok(SequenceLayout::from_lengths(lengths)?)
}

/// Prints the compilation time of the first calls. Lengths do not cause recompilation, so a small batch is representative.
fn compile(args: &Args, device: &Device) -> anyhow::Result<()> {
    let layout = SequenceLayout::from_lengths([512, 200])?;
    let mut seconds = 0.0;
    for window in [None, Some(HALF_WINDOW)] {
        for rotary in [false, true] {
            let problem = Problem::new(args, device, &layout, window, rotary);
            // Reading back compiles kernels as well, which do not belong to attention: done before.
            finite(problem.first_row(problem.qkv.clone()))?;
            let once = || -> anyhow::Result<f64> {
                let start = Instant::now();
                let (out, lse) = problem.forward();
                finite(problem.first_row(problem.backward(&out, &lse)))?;
                Ok(start.elapsed().as_secs_f64())
            };
            let (first, second) = (once()?, once()?);
            seconds += first - second;
        }
    }
    println!("compilation of all attention kernels: {seconds:.2} s");
    Ok(())
}

struct Problem {
    qkv: Tensor<4>,
    d_out: Tensor<3>,
    rotary: Option<Tensor<2>>,
    spec: AttentionSpec,
    head_dim: usize,
    device: Device,
}

impl Problem {
    fn new(
        args: &Args,
        device: &Device,
        layout: &SequenceLayout,
        half_window: Option<usize>,
        rotary: bool,
    ) -> Self {
        let total = layout.total_tokens();
        let head_dim = args.head_dim;
        let dtype = args.dtype.dtype();
        let normal = Distribution::Normal(0.0, 1.0);
        let options = || (device, DType::F32);
        Self {
            qkv: Tensor::<4>::random([total, 3, args.heads, head_dim], normal, options())
                .cast(dtype),
            d_out: Tensor::<3>::random([total, args.heads, head_dim], normal, options())
                .cast(dtype),
            rotary: rotary.then(|| rotary_table(layout.max_seqlen(), head_dim, 160_000.0, device)),
            spec: AttentionSpec::new(layout.clone(), half_window, 1.0 / (head_dim as f64).sqrt()),
            head_dim,
            device: device.clone(),
        }
    }

    fn forward(&self) -> (Tensor<3>, Tensor<2>) {
        attention_forward(self.qkv.clone(), self.rotary.clone(), self.spec.clone())
    }

    /// Returns q, k and v of the first head of the first token.
    fn first_row(&self, qkv: Tensor<4>) -> Tensor<4> {
        qkv.slice([0..1, 0..3, 0..1, 0..self.head_dim])
    }

    fn backward(&self, out: &Tensor<3>, lse: &Tensor<2>) -> Tensor<4> {
        attention_backward(
            self.d_out.clone(),
            self.qkv.clone(),
            (out.clone(), lse.clone()),
            self.rotary.clone(),
            self.spec.clone(),
        )
    }

    /// Returns the milliseconds of a call; all results are kept until the end of the run, and a value of the last one is read back.
    fn time<T>(
        &self,
        args: &Args,
        call: impl Fn() -> T,
        finish: impl Fn(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        finish(call())?;
        let mut times = Vec::new();
        for _ in 0..args.runs {
            self.device.sync()?;
            let start = Instant::now();
            for _ in 0..args.calls - 1 {
                drop(call());
            }
            let last = call();
            self.device.sync()?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(args.calls));
            finish(last)?;
        }
        Ok(median(times))
    }

    fn measure(&self, args: &Args, set: &str) -> anyhow::Result<Vec<(&'static str, Row, f64)>> {
        let forward = self.time(
            args,
            || self.forward(),
            |(out, _)| finite(out.slice([0..1, 0..1, 0..self.head_dim])),
        )?;
        let (out, lse) = self.forward();
        let backward = self.time(
            args,
            || self.backward(&out, &lse),
            |grad| finite(self.first_row(grad)),
        )?;
        let total = self.spec.layout.total_tokens();
        let pairs: f64 = self
            .spec
            .layout
            .ranges()
            .map(|range| pairs(range.len(), self.spec.half_window))
            .sum();
        let flops = 4.0 * pairs * (self.head_dim * args.heads) as f64;
        let tensor = (total * args.heads * self.head_dim * self.qkv.dtype().size()) as f64;
        let row = |pass: &'static str, ms: f64, flops: f64, tensors: f64| {
            let bytes = tensors * tensor;
            let op = match (self.spec.half_window, self.rotary.is_some()) {
                (None, false) => "global",
                (None, true) => "global+rot",
                (Some(_), false) => "local",
                (Some(_), true) => "local+rot",
            };
            let row = Row {
                set: set.to_owned(),
                op: op.to_owned(),
                pass,
                ms,
                tok_s: total as f64 / ms * 1e3,
                tflops: flops / ms / 1e9,
                gbs: Some(bytes / ms / 1e6),
                peak_mib: None,
                cpu_ms: None,
            };
            (pass, row, bytes / args.bandwidth / 1e6)
        };
        Ok(vec![
            row("forward", forward, flops, 4.0),
            row("backward", backward, 2.5 * flops, 8.0),
        ])
    }
}

/// Returns the number of pairs of a query and a visible key in a sequence of `length` tokens.
fn pairs(length: usize, half_window: Option<usize>) -> f64 {
    match half_window {
        None => (length * length) as f64,
        Some(w) => (0..length)
            .map(|i| ((i + w).min(length - 1) - i.saturating_sub(w) + 1) as f64)
            .sum(),
    }
}

/// Reads some values back and fails if they are not finite: a failed launch leaves NaN.
fn finite<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<()> {
    let values: Vec<f32> = tensor
        .cast(DType::F32)
        .try_into_data()?
        .try_to_vec()
        .map_err(|error| anyhow::anyhow!("cannot read the result: {error:?}"))?;
    if values.iter().any(|x| !x.is_finite()) || values.iter().all(|&x| x == 0.0) {
        bail!("the kernel's output is not finite");
    }
    Ok(())
}
