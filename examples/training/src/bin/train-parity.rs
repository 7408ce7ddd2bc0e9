//! Repeats a training that PyTorch has done (`scripts/parity/train.py`), on the same batches and weights, and compares losses and final
//! weights in f32 and bf16.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin train-parity -- FOLDER
//! ```

#![recursion_limit = "256"]

use anyhow::{Context, Result, bail};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use clap::Parser;
use modernbert::Loader;
use modernbert::batch::PackedBatch;
use modernbert::model::{MaskedLm, MaskedTokens, NamedMapper, Precision, map_named};
use modernbert_cli::{DeviceArgs, main_with_code, say};
use modernbert_train::optim::NamedOptimizer;
use modernbert_training_examples::parity::{OptimizerSettings, Tensors};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compares a training with PyTorch's, step by step. The default limits are three times the differences of 100 steps on a CPU (docs/parity.md).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Compares the run in this folder, which scripts/parity/train.py wrote.
    folder: PathBuf,
    /// Allows losses in f32 to differ by this share.
    #[arg(long, default_value_t = 7.5e-7)]
    loss_tol: f64,
    /// Allows the final weights of a tensor in f32 to differ by this share of their change.
    #[arg(long, default_value_t = 5.5e-5)]
    weight_tol: f64,
    /// Allows losses in bf16 to differ by this share.
    #[arg(long, default_value_t = 2.2e-3)]
    bf16_loss_tol: f64,
    /// Allows the final weights of a tensor in bf16 to differ by this share of their change.
    #[arg(long, default_value_t = 0.36)]
    bf16_weight_tol: f64,
    #[command(flatten)]
    device: DeviceArgs,
}

type Weights = BTreeMap<String, Vec<f32>>;

fn main() -> ExitCode {
    main_with_code(|| run(&modernbert_cli::parse::<Args>()))
}

fn run(args: &Args) -> Result<ExitCode> {
    let device = args.device.select()?;
    let batches = Tensors::open(args.folder.join("batches.safetensors"))?;
    let (shape, ids) = batches.integers("ids")?;
    let (_, labels) = batches.integers("labels")?;
    let [steps, rows, width] = *shape.as_slice() else {
        bail!("batches.safetensors: `ids` has shape {shape:?}; [steps, rows, width] is wanted");
    };
    let settings = OptimizerSettings::read(&args.folder)?;
    let settings =
        settings.with_context(|| format!("{}: no training.json", args.folder.display()))?;
    let mut curves = BTreeMap::new();
    let mut passed = true;
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let start =
            MaskedLm::load(Loader::new(&args.folder).device(device.device.clone().autodiff()))?;
        let before = weights(&start);
        let (losses, after) = train(
            start.with_precision(precision),
            &settings,
            (&ids, &labels),
            (steps, rows, width),
        );
        let reference = Tensors::open(args.folder.join(format!("reference-{name}.safetensors")))?;
        let expected = reference.floats("losses")?.1;
        let relative = |(a, b): (&f64, &f32)| (a - f64::from(*b)).abs() / f64::from(*b).abs();
        let differences: Vec<f64> = losses.iter().zip(expected.iter()).map(relative).collect();
        let largest = differences.iter().copied().fold(0.0, f64::max);
        let mean = differences.iter().sum::<f64>() / steps as f64;
        let (mut worst, mut worst_name) = (0.0, String::new());
        for (tensor, found) in &after {
            let expected = reference.floats(tensor)?.1;
            let way = distance(&expected, &before[tensor]);
            let off = distance(found, &expected) / way.max(f64::MIN_POSITIVE);
            if off > worst {
                (worst, worst_name) = (off, tensor.clone());
            }
        }
        let last = steps - 1;
        say(&format!(
            "{name}: {steps} steps, loss {:.4} to {:.4} here and {:.4} in PyTorch; largest difference of a loss {largest:.1e}, mean {mean:.1e}, \
             of the first {:.1e}; of final weights {worst:.1e} of the way ({worst_name}); {} tensors",
            losses[0],
            losses[last],
            expected[last],
            differences[0],
            after.len()
        ));
        let (loss_tol, weight_tol) = match precision {
            Precision::F32 => (args.loss_tol, args.weight_tol),
            _ => (args.bf16_loss_tol, args.bf16_weight_tol),
        };
        // A comparison with NaN is false.
        let close = largest <= loss_tol && worst <= weight_tol;
        if !close {
            say(&format!(
                "{name}: more than allowed, {loss_tol:.1e} of a loss and {weight_tol:.1e} of the change of a tensor's weights"
            ));
        }
        passed &= close;
        curves.insert(name, losses);
    }
    // The level of a curve is the mean of ten steps, because the losses of single batches differ.
    let level = |losses: &[f64]| -> Vec<f64> {
        losses
            .windows(10.min(losses.len()))
            .map(|ten| ten.iter().sum::<f64>() / ten.len() as f64)
            .collect()
    };
    let (exact, half) = (level(&curves["f32"]), level(&curves["bf16"]));
    let apart = exact
        .iter()
        .zip(&half)
        .map(|(a, b)| (a - b).abs() / a)
        .fold(0.0, f64::max);
    say(&format!(
        "bf16 against f32 here: largest difference of the mean of ten losses {apart:.1e}"
    ));
    say(if passed {
        "train-parity: PASS"
    } else {
        "train-parity: FAIL"
    });
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The loss before each update, and the weights after the last one.
fn train(
    mut model: MaskedLm,
    settings: &OptimizerSettings,
    (ids, labels): (&[i64], &[i64]),
    (steps, rows, width): (usize, usize, usize),
) -> (Vec<f64>, Weights) {
    let device = model.model.device();
    let mut optimizer = NamedOptimizer::new(settings.optimizer());
    let mut losses = Vec::with_capacity(steps);
    for step in 0..steps {
        let range = step * rows * width..(step + 1) * rows * width;
        let (batch, masked) = batch(&ids[range.clone()], &labels[range], width, &device);
        let count = masked.order.len() as f64;
        let loss = model.forward(&batch, &masked).loss_sum / count;
        losses.push(loss.clone().into_scalar::<f64>());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(settings.lr, model, gradients);
    }
    let after = weights(&model);
    (losses, after)
}

fn batch(
    ids: &[i64],
    labels: &[i64],
    width: usize,
    device: &Device,
) -> (PackedBatch, MaskedTokens) {
    let rows: Vec<Vec<u32>> = ids
        .chunks(width)
        .map(|row| row.iter().map(|&id| id as u32).collect())
        .collect();
    let batch = PackedBatch::from_sequences(&rows, device).expect("small rows fit a batch");
    let labelled = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
    let (positions, labels): (Vec<u32>, Vec<u32>) = labelled
        .map(|(at, &label)| (at as u32, label as u32))
        .unzip();
    let masked = MaskedTokens::new(&positions, &labels, &vec![1.0; labels.len()], device);
    (batch, masked)
}

fn weights(model: &MaskedLm) -> Weights {
    struct Read(Weights);
    impl NamedMapper for Read {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            let values = value.to_data().try_to_vec().expect("weights are f32");
            self.0.insert(name.to_string(), values);
            value
        }
    }
    let mut read = Read(BTreeMap::new());
    map_named(model.clone(), &mut read);
    read.0
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    squares.sum::<f64>().sqrt()
}
