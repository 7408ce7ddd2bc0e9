//! Share of the CPU's peak that each operation of the encoder reaches, by dtype and batch.
//!
//! ```text
//! cargo run --release -p modernbert-benches --bin cpu-roofline -- --out roofline.png --json roofline.json
//! ```
//!
//! The peak of a dtype is what its kernel reaches here when all operands are in the L1 cache, on all threads. Weights are random.

use anyhow::Context;
use clap::Parser;
use cpu_encoder::{Builder, EncoderDtype, EncoderSizes, Layer, Op, PackedEncoder, WeightMatrix};
use cpu_gemm::aligned::Aligned;
use cpu_gemm::kernel::{MicrokernelArgs, Multiply, PANEL, ROWS};
use cpu_gemm::pack::step_len;
use cpu_gemm::{Element, InstructionSet, Team};
use half::bf16;
use modernbert::config::ModernBertConfig;
use modernbert_benches::lengths::select;
use modernbert_cli::main_with;
use modernbert_cli::plot::{Bar, Group, plot_groups};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measures the share of the CPU's peak that each operation of the encoder reaches.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Uses the shape of this preset: base, large or another one.
    #[arg(long, default_value = "base")]
    shape: String,
    /// Measures these sets or groups of sets of benches/lengths.json, separated by commas; only the first batch of each.
    #[arg(long, value_delimiter = ',', default_value = "1x16,16x32,8x128")]
    sets: Vec<String>,
    /// Measures these dtypes, separated by commas: f32, bf16, int8.
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16,int8")]
    dtypes: Vec<String>,
    /// Computes on this many threads; by default one for each core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Times this many passes, after one to warm up, and takes the fastest.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Draws the shares of the peak, by operation, into this PNG.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Sums of a set's passes.
struct Row {
    dtype: String,
    set: String,
    tokens: usize,
    op: Op,
    /// Billions of operations per second of all threads, while they were in this operation; `None` for one without GEMMs.
    rate: Option<f64>,
    /// Share of the time of all threads.
    share: f64,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let threads = match args.threads {
        Some(threads) => threads.into(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let isa = InstructionSet::chosen()?;
    let config = ModernBertConfig::preset(&args.shape)?;
    let sets = select(&args.sets)?;
    println!(
        "device=flex instruction_set={isa} threads={threads} shape={}",
        args.shape
    );
    let mut rows = Vec::new();
    let mut peaks = Vec::new();
    for dtype in &args.dtypes {
        let format = match dtype.as_str() {
            "f32" => EncoderDtype::F32,
            "bf16" => EncoderDtype::Bf16,
            "int8" => EncoderDtype::Int8,
            other => {
                anyhow::bail!("--dtypes: unknown dtype `{other}`; known are f32, bf16 and int8")
            }
        };
        let team = || Team::new(threads).context("the system refuses threads");
        let peak = |team: &Team| match format {
            EncoderDtype::F32 => peak::<f32>(isa, team),
            EncoderDtype::Bf16 => peak::<bf16>(isa, team),
            EncoderDtype::Int8 => peak::<i8>(isa, team),
        };
        // The clock of a shared machine changes: the peak is measured again beside every set, and the largest counts.
        let peak_team = team()?;
        let mut best = peak(&peak_team);
        let encoder = encoder(&config, format, isa, team()?);
        let mut found = Vec::new();
        for set in &sets {
            let lengths = set.batches().next().context("a set without documents")?;
            found.push(measure(
                args, &config, &encoder, lengths, dtype, &set.name, threads,
            ));
            best = best.max(peak(&peak_team));
        }
        let peak = best;
        println!("\n{dtype}: {peak:.0} Gop/s with all operands in the L1 cache");
        println!(
            "| set | {} | not in an operation | tokens/s |",
            names(" | ")
        );
        println!("|---|{}---:|---:|", "---:|".repeat(Op::ALL.len()));
        for (set, found) in sets.iter().zip(found) {
            print_set(&found, &set.name, peak);
            rows.extend(found.0);
        }
        peaks.push((dtype.clone(), peak));
    }
    if let Some(path) = &args.json {
        let list: Vec<_> = rows
            .iter()
            .map(|row| {
                let peak = peaks.iter().find(|(dtype, _)| *dtype == row.dtype);
                json!({ "dtype": row.dtype, "set": row.set, "tokens": row.tokens, "op": row.op.name(), "gops": row.rate,
                        "peak_gops": peak.map(|(_, peak)| peak), "time_share": row.share })
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&list)?)
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.out {
        draw(path, args, &rows, &peaks)?;
    }
    Ok(())
}

fn names(separator: &str) -> String {
    Op::ALL.map(Op::name).join(separator)
}

/// Prints a set's row: for each operation its share of the time and, of GEMMs, the share of the peak.
fn print_set((rows, speed): &(Vec<Row>, f64), set: &str, peak: f64) {
    let cells: Vec<String> = rows
        .iter()
        .map(|row| match row.rate {
            Some(rate) => format!("{:.0} %, {:.2}", 100.0 * row.share, rate / peak),
            None => format!("{:.0} %", 100.0 * row.share),
        })
        .collect();
    let rest = 1.0 - rows.iter().map(|row| row.share).sum::<f64>();
    println!(
        "| {set} | {} | {:.0} % | {speed:.0} |",
        cells.join(" | "),
        100.0 * rest
    );
}

/// The rows of a set, and its tokens per second.
fn measure(
    args: &Args,
    config: &ModernBertConfig,
    encoder: &PackedEncoder,
    lengths: &[usize],
    dtype: &str,
    set: &str,
    threads: usize,
) -> (Vec<Row>, f64) {
    let mut cu_seqlens = vec![0];
    let mut total = 0;
    for length in lengths {
        total += length;
        cu_seqlens.push(total as u32);
    }
    let input = values(total * config.hidden_size, 1.0);
    let mut best: Option<cpu_encoder::Profile> = None;
    for run in 0..=args.runs {
        let (_, profile) = encoder.profile(input.clone(), &cu_seqlens);
        if run > 0 && best.as_ref().is_none_or(|best| profile.wall < best.wall) {
            best = Some(profile);
        }
    }
    let best = best.unwrap_or_default();
    let whole = best.wall * threads as u32;
    let (hidden, intermediate_size) = (config.hidden_size, config.intermediate_size);
    let width = config.num_attention_heads * config.head_dim();
    let ops = |op| -> Option<f64> {
        let per_token = match op {
            Op::Qkv => 2 * hidden * 3 * width,
            Op::AttentionOut => 2 * width * hidden,
            Op::Gated => 2 * hidden * 2 * intermediate_size,
            Op::MlpOut => 2 * intermediate_size * hidden,
            Op::Norm | Op::Attention | Op::Quantize => return None,
        };
        Some((per_token * total * config.num_hidden_layers) as f64)
    };
    let rows = Op::ALL
        .into_iter()
        .map(|op| {
            let time = best.time(op);
            Row {
                dtype: dtype.to_string(),
                set: set.to_string(),
                tokens: total,
                op,
                // Threads compute in parallel.
                rate: ops(op).map(|ops| ops / time.as_secs_f64() * threads as f64 / 1e9),
                share: time.as_secs_f64() / whole.as_secs_f64(),
            }
        })
        .collect();
    (rows, total as f64 / best.wall.as_secs_f64())
}

/// Billions of operations per second of a tile whose operands stay in the L1 cache, of all threads: the best of several trials.
fn peak<E: Multiply>(isa: InstructionSet, team: &Team) -> f64 {
    const INNER: usize = 256;
    let left = random::<E>(ROWS * INNER);
    let panel = random::<E>(INNER / E::STEP * step_len::<E>());
    let sums = [0i32; PANEL];
    let repeats = 40_000;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        team.run(&|_| {
            let _guard = isa.enter();
            let mut tile = [E::Sum::default(); ROWS * PANEL];
            for _ in 0..repeats {
                let place = MicrokernelArgs {
                    left: left.as_ptr(),
                    left_stride: INNER,
                    rows: ROWS,
                    to: tile.as_mut_ptr(),
                    to_stride: PANEL,
                };
                let panel = cpu_gemm::pack::Panel::of(&panel).with_sums(&sums);
                // SAFETY: 32 rows of whole steps, a result of 32 × 32 elements, and a unit that this processor has.
                unsafe { E::tile(isa, place, panel) }
            }
            std::hint::black_box(&tile);
        });
        best = best.min(start.elapsed());
    }
    let ops = 2.0 * (ROWS * PANEL * INNER * repeats * team.size()) as f64;
    ops / best.as_secs_f64() / 1e9
}

/// Elements with the bits of a hash; of floats, numbers around 1.
fn random<E: Element>(len: usize) -> Aligned<E> {
    let mut buffer = Aligned::<E>::zeros(len);
    let bytes = size_of::<E>();
    let start = buffer.as_mut_ptr().cast::<u8>();
    for (i, value) in values(len, 1.0).into_iter().enumerate() {
        let value = match bytes {
            4 => value.to_le_bytes().to_vec(),
            2 => bf16::from_f32(value).to_le_bytes().to_vec(),
            _ => ((value * 127.0) as i8).to_le_bytes().to_vec(),
        };
        for (b, byte) in value.into_iter().enumerate() {
            // SAFETY: inside of the buffer of `len` elements of as many bytes, any of whose bits are an element.
            unsafe { start.add(i * bytes + b).write(byte) }
        }
    }
    buffer
}

/// An encoder with random weights.
fn encoder(
    config: &ModernBertConfig,
    format: EncoderDtype,
    isa: InstructionSet,
    team: Team,
) -> PackedEncoder {
    let (hidden, intermediate_size) = (config.hidden_size, config.intermediate_size);
    let width = config.num_attention_heads * config.head_dim();
    let sizes = EncoderSizes {
        hidden,
        heads: config.num_attention_heads,
        head_dim: config.head_dim(),
        intermediate_size,
        eps: config.norm_eps as f32,
    };
    let mut builder = Builder::new(sizes, format, isa, team);
    let scale = 0.02;
    let norm = vec![1.0; hidden];
    let (wqkv, out) = (
        values(3 * width * hidden, scale),
        values(hidden * width, scale),
    );
    let (wi, mlp_out) = (
        values(2 * intermediate_size * hidden, scale),
        values(hidden * intermediate_size, scale),
    );
    for layer in &config.spec().layers {
        let rotary = layer.attention.rotary.as_ref();
        let frequencies = rotary.map(|rotary| rotary.frequencies(1).0);
        builder.push(&Layer {
            half_window: layer.attention.half_window,
            frequencies: frequencies.as_deref(),
            attention_norm: layer.attention_norm.then_some(norm.as_slice()),
            wqkv: WeightMatrix::Float(&wqkv),
            attention_out: WeightMatrix::Float(&out),
            mlp_norm: &norm,
            wi: WeightMatrix::Float(&wi),
            mlp_out: WeightMatrix::Float(&mlp_out),
        });
    }
    builder.build(&norm)
}

/// Values of a hash in [-scale, scale): zeros would take less power.
fn values(len: usize, scale: f32) -> Vec<f32> {
    let hash =
        |i: usize| ((i as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995).wrapping_mul(0x85eb_ca6b);
    (0..len)
        .map(|i| scale * hash(i) as i32 as f32 / i32::MAX as f32)
        .collect()
}

fn draw(
    path: &std::path::Path,
    args: &Args,
    rows: &[Row],
    peaks: &[(String, f64)],
) -> anyhow::Result<()> {
    let ops: Vec<Op> = Op::ALL
        .into_iter()
        .filter(|op| rows.iter().any(|row| row.op == *op && row.rate.is_some()))
        .collect();
    let series: Vec<String> = ops.iter().map(|op| op.name().to_string()).collect();
    let mut groups = Vec::new();
    for (dtype, peak) in peaks {
        let mut sets: Vec<&str> = Vec::new();
        for row in rows.iter().filter(|row| row.dtype == *dtype) {
            if !sets.contains(&row.set.as_str()) {
                sets.push(&row.set);
            }
        }
        for set in sets {
            let bar = |op: &Op| {
                let mut found = rows
                    .iter()
                    .filter(|row| row.dtype == *dtype && row.set == set);
                let rate = found.find(|row| row.op == *op)?.rate?;
                Some(Bar {
                    value: 100.0 * rate / peak,
                    spread: None,
                    points: Vec::new(),
                })
            };
            groups.push(Group {
                name: format!("{dtype} {set}"),
                bars: ops.iter().map(bar).collect(),
                reference: Some(100.0),
            });
        }
    }
    let title = format!(
        "GEMMs of {} on this CPU, share of the kernel's peak",
        args.shape
    );
    plot_groups(
        path,
        &title,
        &series,
        &groups,
        "operands in L1",
        "% of the peak",
    )?;
    Ok(())
}
