//! Time of summing a step's gradients over ranks.
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda,nccl --bin collectives -- --nproc 2
//! ```
//!
//! Every rank has one vector, by default as long as base's gradients. The time includes the waits for the device that a training step
//! has; the bandwidth is the algorithm's, `2 (n - 1) / n` times the bytes of the vector per second, as NCCL's own tests give it ("busbw").

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use burn::tensor::{DType, Device, Distribution, Tensor};
use clap::{Parser, ValueEnum};
use modernbert::config::ModernBertConfig;
use modernbert_benches::row::median;
use modernbert_cli::{DeviceArgs, main_with_code};
use modernbert_train::engine::{GradientSum, Host, Nccl, SumOrder, Transport};
use ranks::spawn::Local;
use ranks::{ConnectOptions, Ranks, World};
use serde_json::json;

/// Transport of gradients between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportChoice {
    Host,
    Nccl,
}

/// Measures the sum of a vector over ranks: milliseconds and bandwidth, for each transport and order.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Starts this many ranks; under torchrun, srun or mpirun leave it out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    nproc: Option<u16>,
    /// Sums vectors of this number of f32; by default the number of parameters of base.
    #[arg(long, value_parser = clap::value_parser!(u64).range(64..=4_000_000_000))]
    numbers: Option<u64>,
    /// Measures these transports, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "nccl")]
    ways: Vec<TransportChoice>,
    /// Times this many sums and prints their median.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_with_code(|| {
        let world = World::from_environment()?;
        let size = usize::from(args.nproc.unwrap_or(1));
        if size > 1 && world.size == 1 {
            return start(size);
        }
        run(&args, &world)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Starts the same command as `size` ranks.
fn start(size: usize) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let logs = std::env::temp_dir().join(format!("collectives-{}", std::process::id()));
    let local = Local::start(size, &logs, || {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        command
    })?;
    let ended = local.wait(Duration::from_secs(20), |_| {})?;
    if !ended.status.success() && ended.rank > 0 {
        let log = logs.join(format!("rank-{}.log", ended.rank));
        eprint!("{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    // Nothing else is in the folder.
    let _ = std::fs::remove_dir_all(&logs);
    let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(2)))
}

fn run(args: &Args, world: &World) -> anyhow::Result<()> {
    let device = args.device.of_rank(world.local_rank)?;
    let ranks = Ranks::connect(world, &[], &ConnectOptions::default())?;
    let base = ModernBertConfig::preset("base").context("the preset base")?;
    let numbers = args.numbers.unwrap_or(base.mlm_parameters());
    let length = usize::try_from(numbers)?;
    let mut expected: Option<Vec<f32>> = None;
    for way in &args.ways {
        let begun = Instant::now();
        let transport: Arc<dyn Transport> = match way {
            TransportChoice::Host => Arc::new(Host),
            TransportChoice::Nccl => Arc::new(Nccl::connect(&ranks, &device.device)?),
        };
        let connected = begun.elapsed();
        for order in [SumOrder::Tree, SumOrder::Library] {
            let sum = GradientSum::new(transport.clone(), order);
            let (times, found) = time(&sum, &ranks, length, args.runs, &device.device)?;
            // Every transport and order gives the same sum but for rounding.
            let expected = expected.get_or_insert_with(|| found.clone());
            let error = (expected.iter().zip(&found))
                .fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            ensure!(
                error < 1e-4,
                "{} differs by {error:e} from the first sum",
                sum.describe()
            );
            if ranks.is_first() {
                report(&sum, &times, (length, ranks.size()), connected);
            }
        }
    }
    Ok(())
}

/// Milliseconds of each sum, and the first and last thousand numbers of the result.
fn time(
    sum: &GradientSum,
    ranks: &Ranks,
    length: usize,
    runs: u32,
    device: &Device,
) -> anyhow::Result<(Vec<f64>, Vec<f32>)> {
    device.seed(ranks.rank() as u64);
    let own = Tensor::<1>::random([length], Distribution::Default, (device, DType::F32));
    // The number of base's tensors (an embedding table and 136 matrices and vectors), in pieces of equal length.
    let pieces: Vec<usize> = (0..137)
        .map(|i| length * (i + 1) / 137 - length * i / 137)
        .collect();
    let own = own.split_with_sizes(pieces.clone(), 0);
    let once = || sum.sum(ranks, ranks.size(), vec![own.clone()], (&pieces, device));
    let first = Tensor::cat(once()?, 0);
    let kept = length.min(1000);
    let ends = [
        first.clone().slice(0..kept),
        first.slice(length - kept..length),
    ];
    let ends = Tensor::cat(ends.to_vec(), 0).try_into_vec_as::<f32>();
    let ends = ends.map_err(|error| anyhow::anyhow!("the sum can't be read: {error}"))?;
    let mut times = Vec::new();
    for _ in 0..runs {
        ranks.barrier()?;
        let begun = Instant::now();
        let done = once()?;
        device.sync()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(done);
    }
    Ok((times, ends))
}

fn report(sum: &GradientSum, times: &[f64], (length, size): (usize, usize), connected: Duration) {
    let ms = median(times.to_vec());
    let bytes = 4.0 * length as f64;
    let bandwidth = 2.0 * (size - 1) as f64 / size as f64 * bytes / ms / 1e6;
    println!(
        "{}: {size} ranks, {:.0} MB, {ms:.2} ms, {bandwidth:.1} GB/s (connected in {:.1} s)",
        sum.describe(),
        bytes / 1e6,
        connected.as_secs_f64()
    );
    let row = json!({ "sum": sum.describe(), "ranks": size, "bytes": bytes, "ms": ms, "busbw_gb_s": bandwidth });
    println!("{row}");
}
