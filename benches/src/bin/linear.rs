//! Speed of the GEMMs of `linear`: forward pass and both gradients, in the shapes of base and large; and of the MLP's forward pass, as one op
//! (`MLP fused`) and as its three (`MLP composed`).
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda --bin linear -- --json rows.json
//! ```
//!
//! Each GEMM is checked against an f32 GEMM before it is timed. `benches/peers/linear.py` measures cuBLAS on
//! the same shapes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use burn::tensor::{DType, Device, Distribution, Tensor};
use clap::Parser;
use modernbert::model::Precision;
use modernbert::ops::geglu::{geglu, geglu_mlp};
use modernbert::ops::linear::{Transpose, gemm, gemm_f32};
use modernbert_benches::row::{Row, heading, median};
use modernbert_cli::{DeviceArgs, describe, main_with};

/// Measures the GEMMs of `linear`: milliseconds and TFLOP/s, after checking each against f32.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Uses operands in this dtype: bf16, f16 or f32.
    #[arg(long, default_value = "bf16")]
    dtype: Precision,
    /// Measures the shapes of these models, separated by commas: base, large.
    #[arg(long, value_delimiter = ',', default_value = "base,large")]
    shape: Vec<String>,
    /// Measures only GEMMs whose name and pass contain this, such as "Wi d_input".
    #[arg(long, default_value = "")]
    only: String,
    /// Uses this many tokens.
    #[arg(long, default_value_t = 65_536)]
    tokens: usize,
    /// Makes this many calls per run; a run ends with a synchronization.
    #[arg(long, default_value_t = 50)]
    calls: u32,
    /// Times this many runs and prints their median.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Lets the device idle for this many milliseconds before each GEMM, so that the load before does not slow it down.
    #[arg(long, default_value_t = 0)]
    rest: u64,
    /// Times a single run instead of `--runs`, to see only the checks.
    #[arg(long)]
    check_only: bool,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

/// Name, share of the tokens (in tenths), input width, output width.
fn shapes(model: &str) -> anyhow::Result<Vec<(String, usize, usize, usize)>> {
    let (hidden, inner) = match model {
        "base" => (768, 1152),
        "large" => (1024, 2624),
        other => bail!("--shape takes base and large, not {other}"),
    };
    Ok([
        ("Wqkv", 10, hidden, 3 * hidden),
        ("attn.Wo", 10, hidden, hidden),
        ("Wi", 10, hidden, 2 * inner),
        ("mlp.Wo", 10, inner, hidden),
        ("MLP", 10, hidden, inner),
        ("decoder", 3, hidden, 50368),
    ]
    .map(|(name, share, input, output)| (format!("{model} {name}"), share, input, output))
    .to_vec())
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select_for_training()?;
    println!("{}", describe(&named, args.dtype.name()));
    println!("{}  {:>9}", heading(), "error");
    let mut rows = Vec::new();
    for model in &args.shape {
        for (name, share, input, output) in shapes(model)? {
            let tokens = args.tokens * share / 10;
            for pass in ["forward", "d_input", "d_weight", "fused", "composed"] {
                if matches!(pass, "fused" | "composed") != (name.ends_with("MLP")) {
                    continue;
                }
                if !format!("{name} {pass}").contains(&args.only) {
                    continue;
                }
                let sizes = [tokens, input, output];
                let measured = match name.ends_with("MLP") {
                    true => measure_mlp(args, &named.device, &name, pass, sizes),
                    false => measure(args, &named.device, &name, pass, sizes),
                };
                let (row, error) = measured.with_context(|| format!("{name}, {pass}"))?;
                println!("{}  {error:>9.1e}", row.line());
                rows.push(row);
            }
        }
    }
    ensure!(
        !rows.is_empty(),
        "--only: no GEMM of {} contains \"{}\" in its name; names look like \"large Wi d_input\"",
        args.shape.join(" or "),
        args.only
    );
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(
    args: &Args,
    device: &Device,
    name: &str,
    pass: &'static str,
    [tokens, input, output]: [usize; 3],
) -> anyhow::Result<(Row, f64)> {
    let dtype: DType = args.dtype.dtype();
    let random = |shape: [usize; 2]| -> Tensor<2> {
        Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device).cast(dtype)
    };
    let x = random([tokens, input]);
    let weight = random([output, input]);
    let (lhs, rhs, transpose) = match pass {
        "forward" => (x, weight, Transpose::Rhs),
        "d_input" => (random([tokens, output]), weight, Transpose::None),
        _ => (random([tokens, output]), x, Transpose::Lhs),
    };
    let call = || match pass {
        // Gradients of f32 weights are f32.
        "d_weight" => gemm_f32(lhs.clone(), rhs.clone(), transpose),
        _ => gemm(lhs.clone(), rhs.clone(), transpose),
    };
    let found = call().cast(DType::F32);
    let expected = gemm(
        lhs.clone().cast(DType::F32),
        rhs.clone().cast(DType::F32),
        transpose,
    );
    let bound = if dtype == DType::F32 { 1e-5 } else { 4e-3 };
    let error = error(found, expected, bound)?;
    let ms = time(args, device, || drop(call()))?;
    let flops = 2.0 * (tokens * input * output) as f64;
    Ok((row(name, ("linear", pass), tokens, ms, flops), error))
}

/// The MLP of a layer of `hidden` and `inner` width, as one op or composed of three.
fn measure_mlp(
    args: &Args,
    device: &Device,
    name: &str,
    pass: &'static str,
    [tokens, hidden, inner]: [usize; 3],
) -> anyhow::Result<(Row, f64)> {
    let dtype: DType = args.dtype.dtype();
    let random = |shape: [usize; 2], width: usize| -> Tensor<2> {
        let normal = Distribution::Normal(0.0, 1.0 / (width as f64).sqrt());
        Tensor::<2>::random(shape, normal, device).cast(dtype)
    };
    let x = random([tokens, hidden], 1);
    let wi = random([2 * inner, hidden], hidden);
    let wo = random([hidden, inner], inner);
    let composed = |x: Tensor<2>, wi: Tensor<2>, wo: Tensor<2>| {
        gemm(geglu(gemm(x, wi, Transpose::Rhs)), wo, Transpose::Rhs)
    };
    let call = || match pass {
        "fused" => geglu_mlp(x.clone(), wi.clone(), wo.clone()),
        _ => composed(x.clone(), wi.clone(), wo.clone()),
    };
    let found = call().cast(DType::F32);
    let wide = |tensor: &Tensor<2>| tensor.clone().cast(DType::F32);
    let expected = composed(wide(&x), wide(&wi), wide(&wo));
    let bound = if dtype == DType::F32 { 1e-5 } else { 8e-3 };
    let error = error(found, expected, bound)?;
    let ms = time(args, device, || drop(call()))?;
    let flops = 6.0 * (tokens * hidden * inner) as f64;
    Ok((row(name, ("geglu_mlp", pass), tokens, ms, flops), error))
}

/// Norm of the difference, relative to the expected norm.
fn error(found: Tensor<2>, expected: Tensor<2>, bound: f64) -> anyhow::Result<f64> {
    let norm = |tensor: Tensor<2>| -> anyhow::Result<f64> {
        let squares = tensor.powf_scalar(2.0).sum_dim(1).sum();
        Ok(f64::from(squares.try_into_scalar::<f32>()?).sqrt())
    };
    let scale = norm(expected.clone())?;
    let error = norm(found - expected)? / scale;
    ensure!(
        scale.is_finite() && scale > 0.0 && error < bound,
        "relative error {error:.1e} (at most {bound:.0e}), norm {scale:.3e}"
    );
    Ok(error)
}

/// Milliseconds of a call: the median of `args.runs` runs.
fn time(args: &Args, device: &Device, call: impl Fn()) -> anyhow::Result<f64> {
    device.sync()?;
    std::thread::sleep(Duration::from_millis(args.rest));
    let mut times = Vec::new();
    for _ in 0..if args.check_only { 1 } else { args.runs } {
        device.sync()?;
        let start = Instant::now();
        for _ in 0..args.calls {
            call();
        }
        device.sync()?;
        times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(args.calls));
    }
    Ok(median(times))
}

fn row(name: &str, (op, pass): (&str, &'static str), tokens: usize, ms: f64, flops: f64) -> Row {
    Row {
        set: name.to_owned(),
        op: op.to_owned(),
        pass,
        ms,
        tok_s: tokens as f64 / ms * 1e3,
        tflops: flops / ms / 1e9,
        gbs: None,
        peak_mib: None,
        cpu_ms: None,
    }
}
