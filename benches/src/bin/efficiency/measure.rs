//! `efficiency measure`: throughput, latency, largest batch, layouts.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use burn::tensor::{Device, Tensor};
use clap::Args;
use modernbert::batch::PackedBatch;
use modernbert::config::{LayerType, ModernBertConfig};
use modernbert::model::{ModernBert, Precision, initialize};
use modernbert_benches::documents::{Ids, read_rows};
use modernbert_benches::gpu::{self, GpuSampler};
use modernbert_benches::lengths::{LengthSet, select};
use modernbert_benches::padded::{PaddedEncoder, PaddingStrategy};
use modernbert_benches::record::{
    Leg, Measurement, append, day, mean_and_deviation, quantile, read,
};
use modernbert_benches::search::{Attempt, largest};
use modernbert_benches::usage::peak_mib;
use modernbert_cli::{DeviceArgs, describe};

/// Prefix of the line with which an attempt of the search for the largest batch reports its memory.
const USED: &str = "used MiB: ";

/// MiB of an RTX 4090, the paper's card.
const PAPERS_CARD: f64 = 24_564.0;

/// Number of timed single batches of a latency, after the untimed ones.
const CALLS: usize = 200;

#[derive(Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Adds results to this file, and leaves out what it has.
    #[arg(long, value_name = "FILE", required_unless_present = "attempt")]
    results: Option<PathBuf>,
    /// Measures these, separated by commas: throughput, latency, largest, layouts, global.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "throughput,latency,layouts,global,largest"
    )]
    legs: Vec<String>,
    /// Uses the shapes of these presets.
    #[arg(long, value_delimiter = ',', default_value = "base,large")]
    shapes: Vec<String>,
    /// Computes GEMMs and attention in these dtypes.
    #[arg(long, value_delimiter = ',', default_value = "bf16")]
    dtypes: Vec<Precision>,
    /// Measures throughput over these sets or groups of sets of benches/lengths.json.
    #[arg(long, value_delimiter = ',', default_value = "paper")]
    sets: Vec<String>,
    /// Computes batches of whole documents of at most this many tokens.
    #[arg(long, default_value_t = 65_536)]
    tokens: usize,
    /// Times this many runs.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    runs: u32,
    /// Uses the first documents of a set that take about this many seconds a run; 0 for the whole set.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Begins no measurement after this many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Computes one batch of DOCUMENTS x TOKENS and prints the memory in use: an attempt of the search for the largest batch.
    #[arg(long, hide = true, value_name = "DOCUMENTSxTOKENS")]
    attempt: Option<String>,
}

pub(crate) fn run(args: &MeasureArgs) -> anyhow::Result<()> {
    if let Some(attempt) = &args.attempt {
        return attempt_batch(args, attempt);
    }
    let results = args.results.as_deref().context("--results is missing")?;
    let before = gpu::in_use();
    let named = args.device.select()?;
    let dtypes: Vec<&str> = args.dtypes.iter().map(|dtype| dtype.name()).collect();
    println!("{}", describe(&named, &dtypes.join(", ")));
    let card = gpu::card().ok();
    let software = card.as_ref().map(|card| format!("driver {}", card.driver));
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let bench = Bench {
        args,
        device: named.device.clone(),
        before,
        device_name: card.map_or_else(|| named.name.to_string(), |card| card.name),
        software: software.unwrap_or_default(),
        date: day(now),
        results: results.to_path_buf(),
        until: args
            .minutes
            .map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes)),
    };
    for leg in &args.legs {
        for shape in &args.shapes {
            for &precision in &args.dtypes {
                match leg.as_str() {
                    "throughput" => bench.throughput(shape, precision, false)?,
                    "latency" => bench.latency(shape, precision)?,
                    "largest" => bench.largest(shape, precision)?,
                    "layouts" => bench.layouts(shape, precision)?,
                    "global" => bench.throughput(shape, precision, true)?,
                    other => anyhow::bail!(
                        "--legs has {other:?}; known are throughput, latency, largest, layouts, global"
                    ),
                }
            }
        }
    }
    Ok(())
}

struct Bench<'a> {
    args: &'a MeasureArgs,
    device: Device,
    /// MiB of the card in use before this program opened it.
    before: Option<f64>,
    device_name: String,
    software: String,
    date: String,
    results: PathBuf,
    until: Option<Instant>,
}

/// An encoder with random weights.
fn encoder(
    config: &ModernBertConfig,
    precision: Precision,
    device: &Device,
) -> anyhow::Result<ModernBert> {
    let model = initialize(ModernBert::new(config, device)?, config, 0);
    Ok(model.with_precision(precision).for_inference())
}

/// Batches of whole documents, in order, each of at most `tokens` slots; `slots` returns the number of slots of a document.
fn split(lengths: &[usize], tokens: usize, slots: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for &length in lengths {
        let needed = slots(length);
        if batches.is_empty() || used + needed > tokens {
            batches.push(Vec::new());
            used = 0;
        }
        used += needed;
        if let Some(last) = batches.last_mut() {
            last.push(length);
        }
    }
    batches
}

impl Bench<'_> {
    fn record(
        &self,
        shape: &str,
        precision: Precision,
        leg: Leg,
        set: &str,
        variant: &str,
    ) -> Measurement {
        let mut record = Measurement::new(
            "ours",
            &format!("ModernBERT {shape}"),
            leg,
            set,
            precision.name(),
        );
        record.variant = variant.to_owned();
        record.device.clone_from(&self.device_name);
        record.software.clone_from(&self.software);
        record.date.clone_from(&self.date);
        record
    }

    /// Returns whether the measurement is to be made: it is not in the file, and there is time.
    fn is_due(&self, record: &Measurement) -> anyhow::Result<bool> {
        if self.until.is_some_and(|until| Instant::now() > until) {
            return Ok(false);
        }
        Ok(!read(&self.results)?
            .iter()
            .any(|found| found.same_key(record)))
    }

    fn keep(&self, record: &Measurement) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(record)?);
        append(&self.results, record)
    }

    /// Times runs of `pass` over batches and fills in speed, memory and power.
    fn time(
        &self,
        record: &mut Measurement,
        lengths: &[Vec<usize>],
        mut pass: impl FnMut(&PackedBatch) -> anyhow::Result<Tensor<2>>,
    ) -> anyhow::Result<()> {
        let watch = GpuSampler::begin(self.before);
        let first = lengths.first().context("no documents")?;
        let first = Ids::new(1).batch(first, &self.device)?;
        let begun = Instant::now();
        read_rows(pass(&first)?, 1)?;
        record.first_s = Some(begun.elapsed().as_secs_f64());
        self.device.sync()?;
        let begun = Instant::now();
        let kept = pass(&first)?;
        self.device.sync()?;
        drop(kept);
        let one = begun.elapsed().as_secs_f64();
        let count = match self.args.seconds > 0.0 {
            true => ((self.args.seconds / one).ceil() as usize).clamp(1, lengths.len()),
            false => lengths.len(),
        };
        let lengths = &lengths[..count];
        let batches: Vec<PackedBatch> = lengths
            .iter()
            .zip(1..)
            .map(|(lengths, seed)| Ids::new(seed).batch(lengths, &self.device))
            .collect::<anyhow::Result<_>>()?;
        let tokens: usize = lengths.iter().flatten().sum();
        let mut speeds = Vec::new();
        // The first run is not counted: batches of variable lengths compile and choose kernels in it.
        for run in 0..=self.args.runs {
            if run == 1 {
                watch.begin_timed();
            }
            self.device.sync()?;
            let begun = Instant::now();
            let mut last = None;
            for batch in &batches {
                last = Some(pass(batch)?);
            }
            self.device.sync()?;
            if run > 0 {
                speeds.push(tokens as f64 / begun.elapsed().as_secs_f64());
            }
            drop(last);
        }
        let (mean, deviation) = mean_and_deviation(&speeds);
        record.tok_s = Some(mean);
        record.deviation = Some(deviation);
        record.runs = Some(self.args.runs);
        record.documents = Some(lengths.iter().map(Vec::len).sum());
        record.batch = lengths.iter().map(Vec::len).max();
        record.peak_mib = peak_mib(&self.device);
        if let Some(usage) = watch.end() {
            record.driver_mib = Some(usage.memory_mib);
            record.watts = usage.watts;
            record.clock_mhz = usage.clock_mhz;
        }
        Ok(())
    }

    fn sets(&self) -> anyhow::Result<Vec<LengthSet>> {
        select(&self.args.sets)
    }

    /// Throughput over each set; with `all_global` of the same shape with global attention in all layers.
    fn throughput(
        &self,
        shape: &str,
        precision: Precision,
        all_global: bool,
    ) -> anyhow::Result<()> {
        let mut config = ModernBertConfig::preset(shape)?;
        let mut leg = Leg::Throughput;
        if all_global {
            config.layer_types.fill(LayerType::Global);
            leg = Leg::Global;
        }
        for set in self.sets()? {
            let mut record = self.record(shape, precision, leg, &set.name, "");
            if self.is_due(&record)? {
                let model = encoder(&config, precision, &self.device)?;
                let batches = split(&set.lengths, self.args.tokens, |length| length);
                self.time(&mut record, &batches, |batch| Ok(model.forward(batch)))?;
                self.keep(&record)?;
            }
        }
        Ok(())
    }

    /// Sets of variable lengths: the encoder unpadded, the encoder on sequences padded to the set's maximum, and one composition of the
    /// library's ops unpadded once and in every layer.
    fn layouts(&self, shape: &str, precision: Precision) -> anyhow::Result<()> {
        let config = ModernBertConfig::preset(shape)?;
        for set in self.sets()? {
            let full = match set.name.as_str() {
                "variable-256" => 512,
                "variable-4096" => 8192,
                _ => continue,
            };
            let batches = split(&set.lengths, self.args.tokens, |_| full);
            for variant in [
                "unpadded",
                "padded",
                "composed, unpadded once",
                "composed, unpadded per layer",
            ] {
                let mut record = self.record(shape, precision, Leg::Layouts, &set.name, variant);
                if !self.is_due(&record)? {
                    continue;
                }
                let model = encoder(&config, precision, &self.device)?;
                match variant {
                    "unpadded" => {
                        self.time(&mut record, &batches, |batch| Ok(model.forward(batch)))?
                    }
                    "padded" => {
                        // Documents of the full length: padding is computed like text.
                        let rows: Vec<Vec<usize>> = batches
                            .iter()
                            .map(|lengths| vec![full; lengths.len()])
                            .collect();
                        self.time(&mut record, &rows, |batch| Ok(model.forward(batch)))?;
                        // Only real tokens count.
                        let done = record.documents.unwrap_or(0);
                        let real: usize = set.lengths[..done].iter().sum();
                        let share = real as f64 / (done * full) as f64;
                        record.tok_s = record.tok_s.map(|speed| speed * share);
                        record.deviation = record.deviation.map(|speed| speed * share);
                    }
                    _ => {
                        let way = match variant.ends_with("once") {
                            true => PaddingStrategy::Kernel,
                            false => PaddingStrategy::KernelPerLayer,
                        };
                        let composed = PaddedEncoder::new(&model)?;
                        self.time(&mut record, &batches, |batch| composed.forward(batch, way))?;
                    }
                }
                self.keep(&record)?;
            }
        }
        Ok(())
    }

    fn latency(&self, shape: &str, precision: Precision) -> anyhow::Result<()> {
        let config = ModernBertConfig::preset(shape)?;
        for (documents, length) in [(1, 16), (1, 32), (8, 32), (8, 128), (64, 32), (1, 512)] {
            let set = format!("{documents}x{length}");
            let mut record = self.record(shape, precision, Leg::Latency, &set, "");
            if !self.is_due(&record)? {
                continue;
            }
            let model = encoder(&config, precision, &self.device)?;
            let batch = Ids::new(1).batch(&vec![length; documents], &self.device)?;
            let watch = GpuSampler::begin(self.before);
            let begun = Instant::now();
            read_rows(model.forward(&batch), 1)?;
            record.first_s = Some(begun.elapsed().as_secs_f64());
            for _ in 0..20 {
                drop(model.forward(&batch));
                self.device.sync()?;
            }
            let (mut whole, mut host) = (Vec::new(), Vec::new());
            for _ in 0..CALLS {
                let begun = Instant::now();
                let hidden = model.forward(&batch);
                host.push(begun.elapsed().as_secs_f64() * 1e3);
                self.device.sync()?;
                whole.push(begun.elapsed().as_secs_f64() * 1e3);
                drop(hidden);
            }
            record.p50_ms = Some(quantile(whole.clone(), 0.5));
            record.p99_ms = Some(quantile(whole, 0.99));
            record.host_ms = Some(quantile(host, 0.5));
            record.runs = Some(CALLS as u32);
            record.batch = Some(documents);
            record.peak_mib = peak_mib(&self.device);
            record.driver_mib = watch.end().map(|usage| usage.memory_mib);
            self.keep(&record)?;
        }
        Ok(())
    }

    /// Each attempt is a process of its own: one that runs out of memory leaves nothing behind.
    fn largest(&self, shape: &str, precision: Precision) -> anyhow::Result<()> {
        for length in [512usize, 8192] {
            for (cap, variant) in [(PAPERS_CARD, "24 GB"), (f64::INFINITY, "whole card")] {
                let mut record =
                    self.record(shape, precision, Leg::Largest, &length.to_string(), variant);
                if !self.is_due(&record)? {
                    continue;
                }
                let mut points = Vec::new();
                let start = (16_384 / length).max(1);
                // Rows of a tensor are counted in 32 bits.
                let limit = (1 << 24) / length;
                let found = largest(start, limit, cap, |documents| -> anyhow::Result<Attempt> {
                    let attempt = self.spawn(shape, precision, documents, length)?;
                    println!("  {shape}, {documents} x {length}: {attempt:?}");
                    if let Attempt::Ran(mib) = attempt {
                        points.push((documents, mib));
                    }
                    Ok(attempt)
                })?;
                let found = found.with_context(|| {
                    format!("not even {start} documents of {length} tokens fit")
                })?;
                record.largest = Some(found.ran);
                record.fails = found.failed;
                points.sort_by_key(|point| point.0);
                points.dedup_by_key(|point| point.0);
                let used = points.iter().find(|point| point.0 == found.ran);
                record.driver_mib = used.map(|point| point.1);
                record.points = points;
                self.keep(&record)?;
            }
        }
        Ok(())
    }

    fn spawn(
        &self,
        shape: &str,
        precision: Precision,
        documents: usize,
        length: usize,
    ) -> anyhow::Result<Attempt> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["measure", "--shapes", shape, "--dtypes", precision.name()]);
        command.args(["--attempt", &format!("{documents}x{length}")]);
        if let Some(device) = &self.args.device.device {
            command.args(["--device", device]);
        }
        let output = command.output().context("the program can't start itself")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let used = text.lines().find_map(|line| line.strip_prefix(USED));
        if let (true, Some(used)) = (output.status.success(), used) {
            return Ok(Attempt::Ran(used.trim().parse()?));
        }
        let error = String::from_utf8_lossy(&output.stderr);
        // Only a lack of memory is an expected failure; any other error ends the search.
        let of_memory = ["memory", "alloc"]
            .iter()
            .any(|word| error.to_lowercase().contains(word));
        anyhow::ensure!(
            of_memory || output.status.code().is_none(),
            "{documents} documents of {length} tokens: {}",
            error.trim()
        );
        Ok(Attempt::Failed)
    }
}

/// One batch, twice, in a process that may run out of memory.
fn attempt_batch(args: &MeasureArgs, attempt: &str) -> anyhow::Result<()> {
    let parts = attempt
        .split_once('x')
        .context("--attempt is DOCUMENTSxTOKENS")?;
    let (documents, length): (usize, usize) = (parts.0.parse()?, parts.1.parse()?);
    let (shape, precision) = match (&args.shapes[..], &args.dtypes[..]) {
        ([shape], [precision]) => (shape, *precision),
        _ => anyhow::bail!("--attempt needs one shape and one dtype"),
    };
    let before = gpu::in_use();
    let named = args.device.select()?;
    let watch = GpuSampler::begin(before);
    let model = encoder(&ModernBertConfig::preset(shape)?, precision, &named.device)?;
    let batch = Ids::new(1).batch(&vec![length; documents], &named.device)?;
    for _ in 0..2 {
        read_rows(model.forward(&batch), 1)?;
    }
    named.device.sync()?;
    // The driver's figure has the context and the kernels; without a card, the allocator's.
    let used = watch.end().map(|usage| usage.memory_mib);
    let used = used
        .or_else(|| peak_mib(&named.device))
        .context("no memory figure")?;
    println!("{USED}{used:.0}");
    Ok(())
}
