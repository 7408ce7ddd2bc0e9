//! Compares models with the numbers that transformers computed for them; `docs/parity.md` describes the case folders.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin parity -- cases/*
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::output::OutputCheck;
use modernbert_cli::text::shown;
use modernbert_cli::{BAD_INPUT, DeviceArgs, main_with_code, say, tell};
use modernbert_training_examples::parity::{Report, Tolerances, check, save_copy};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares models with the numbers that transformers computed for them.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Compares the cases in these folders: config.json, model.safetensors, inputs.safetensors, outputs.safetensors.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Allows outputs to differ by this much times max(1, max |reference|).
    #[arg(long, default_value_t = 1e-4)]
    tol: f64,
    /// Allows the difference of a gradient to have this share of the gradient's norm.
    #[arg(long, default_value_t = 1e-4)]
    grad_tol: f64,
    /// Allows losses to differ by this share.
    #[arg(long, default_value_t = 1e-5)]
    loss_tol: f64,
    /// Prints every comparison instead of the worst of each folder.
    #[arg(long)]
    verbose: bool,
    /// Writes the model of the case, which must be the only one, to this folder for another program to load.
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

fn main() -> ExitCode {
    main_with_code(|| compare(&modernbert_cli::parse::<Args>()))
}

fn compare(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(target) = &args.save {
        anyhow::ensure!(
            args.folders.len() == 1,
            "--save is for one case, and {} are given; save them one by one",
            args.folders.len()
        );
        OutputCheck::folder(target)
            .inputs(&args.folders)
            .of_argument("--save")
            .check()?;
    }
    let device = args.device.select()?;
    let tolerances = Tolerances {
        outputs: args.tol,
        gradients: args.grad_tol,
        losses: args.loss_tol,
    };
    let (mut failed, mut refused) = (0, 0);
    let mut cases = Vec::new();
    for folder in &args.folders {
        let started = std::time::Instant::now();
        let result = check(folder, &device.device, &tolerances).and_then(|report| {
            if let Some(target) = &args.save {
                save_copy(folder, target, &device.device)?;
            }
            Ok(report)
        });
        let seconds = started.elapsed().as_secs_f64();
        match &result {
            Ok(report) => failed += usize::from(!report.passes()),
            Err(_) => refused += 1,
        }
        if args.json {
            cases.push(as_json(folder, &result, seconds));
        } else {
            print(folder, &result, args);
        }
    }
    if args.json {
        let all = serde_json::json!({
            "device": device.name, "passed": failed + refused == 0, "failed": failed, "refused": refused, "cases": cases,
        });
        say(&all.to_string());
    }
    Ok(match (refused, failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(BAD_INPUT),
    })
}

fn print(folder: &Path, result: &anyhow::Result<Report>, args: &Args) {
    say(&shown(folder));
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            tell(&format!("error: {}: {error:#}", folder.display()));
            say(&format!(
                "parity: FAIL max_abs=nan tensor=none tol={:e}",
                args.tol
            ));
            return;
        }
    };
    for check in report.checks.iter().filter(|c| args.verbose || !c.passes()) {
        let sign = if check.passes() { "ok" } else { "differs" };
        say(&format!(
            "  {sign} {} {:.3e} (allowed {:.3e})",
            check.tensor, check.max_abs, check.allowed
        ));
    }
    for note in &report.notes {
        say(&format!("  note: {note}"));
    }
    if let Some(place) = &report.first_difference {
        say(&format!("  first difference: {place}"));
    }
    if let Some(worst) = report.worst() {
        let verdict = if report.passes() { "PASS" } else { "FAIL" };
        say(&format!(
            "parity: {verdict} max_abs={:.3e} tensor={} tol={:e}",
            worst.max_abs, worst.tensor, worst.tol
        ));
    }
}

fn as_json(folder: &Path, result: &anyhow::Result<Report>, seconds: f64) -> serde_json::Value {
    let mut value = serde_json::json!({"folder": folder.display().to_string(), "seconds": seconds});
    match result {
        Err(error) => {
            value["passed"] = false.into();
            value["error"] = format!("{error:#}").into();
        }
        Ok(report) => {
            value["passed"] = report.passes().into();
            if let Some(worst) = report.worst() {
                value["max_abs"] = worst.max_abs.into();
                value["tensor"] = worst.tensor.clone().into();
                value["tol"] = worst.tol.into();
            }
            value["report"] = serde_json::json!(report);
        }
    }
    value
}
