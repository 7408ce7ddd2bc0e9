//! The driver's view of an NVIDIA GPU (`nvidia-smi`): used memory, power and clock, sampled while something runs.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

/// Pause between two samples. A call of `nvidia-smi` itself takes about 30 ms.
const EVERY: Duration = Duration::from_millis(100);

/// The driver's report at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    memory_mib: f64,
    watts: f64,
    clock_mhz: f64,
}

/// The card and its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Name of the card, such as `NVIDIA H200`.
    pub name: String,
    /// Version of the driver.
    pub driver: String,
}

/// Most memory while [`GpuSampler`] was open, mean power and clock of its timed runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Most memory in use by all processes, in MiB, beyond that of [`in_use`].
    pub memory_mib: f64,
    /// Mean power of the timed runs in watts.
    pub watts: Option<f64>,
    /// Mean clock of the multiprocessors in the timed runs, in MHz.
    pub clock_mhz: Option<f64>,
}

fn query(fields: &str) -> anyhow::Result<String> {
    let arguments = ["--id=0", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi")
        .arg(format!("--query-gpu={fields}"))
        .args(arguments)
        .output()
        .context("nvidia-smi can't be started")?;
    anyhow::ensure!(
        output.status.success(),
        "nvidia-smi failed: {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(line: &str) -> Option<Sample> {
    let mut numbers = line
        .trim()
        .split(',')
        .map(|part| part.trim().parse::<f64>());
    let mut next = || numbers.next()?.ok();
    Some(Sample {
        memory_mib: next()?,
        watts: next()?,
        clock_mhz: next()?,
    })
}

fn sample() -> Option<Sample> {
    parse(&query("memory.used,power.draw,clocks.sm").ok()?)
}

/// Reads the card's name and driver.
///
/// # Errors
/// No `nvidia-smi`.
pub fn card() -> anyhow::Result<Card> {
    let line = query("name,driver_version")?;
    let (name, driver) = line
        .trim()
        .split_once(',')
        .with_context(|| format!("nvidia-smi printed {line:?}"))?;
    Ok(Card {
        name: name.trim().to_owned(),
        driver: driver.trim().to_owned(),
    })
}

/// Memory of the first card in use by all processes, in MiB; `None` without a card.
pub fn in_use() -> Option<f64> {
    Some(sample()?.memory_mib)
}

/// A thread that samples the first card.
pub struct GpuSampler {
    before: Option<f64>,
    open: Arc<AtomicBool>,
    is_timed: Arc<AtomicBool>,
    samples: Option<JoinHandle<Vec<(Sample, bool)>>>,
}

impl GpuSampler {
    /// Starts the thread; `before` MiB, which were in use before the program opened the card, are not counted.
    pub fn begin(before: Option<f64>) -> Self {
        let open = Arc::new(AtomicBool::new(true));
        let is_timed = Arc::new(AtomicBool::new(false));
        let (watched, timed) = (open.clone(), is_timed.clone());
        Self {
            before,
            open,
            is_timed,
            samples: Some(std::thread::spawn(move || {
                let mut samples = Vec::new();
                while watched.load(Ordering::Relaxed) {
                    // A sample that began before the timed runs is not one of theirs.
                    let is_timed = timed.load(Ordering::Relaxed);
                    samples.extend(sample().map(|sample| (sample, is_timed)));
                    std::thread::sleep(EVERY);
                }
                samples
            })),
        }
    }

    /// Begins the timed runs: power and clock are means from here on, memory is the most of the whole watch.
    pub fn begin_timed(&self) {
        self.is_timed.store(true, Ordering::Relaxed);
    }

    /// Ends the thread; `None` without a card or a sample.
    pub fn end(mut self) -> Option<Usage> {
        self.open.store(false, Ordering::Relaxed);
        let samples = self.samples.take()?.join().ok()?;
        usage(self.before?, &samples)
    }
}

fn usage(before: f64, samples: &[(Sample, bool)]) -> Option<Usage> {
    if samples.is_empty() {
        return None;
    }
    let timed: Vec<&Sample> = samples
        .iter()
        .filter(|one| one.1)
        .map(|one| &one.0)
        .collect();
    let mean = |of: fn(&Sample) -> f64| {
        let sum: f64 = timed.iter().map(|one| of(one)).sum();
        (!timed.is_empty()).then(|| sum / timed.len() as f64)
    };
    let most = samples
        .iter()
        .map(|one| one.0.memory_mib)
        .fold(0.0, f64::max);
    Some(Usage {
        memory_mib: most - before,
        watts: mean(|one| one.watts),
        clock_mhz: mean(|one| one.clock_mhz),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_driver_are_read() {
        let sample = parse("2835, 512.30, 1755\n").unwrap();
        assert_eq!(
            (sample.memory_mib, sample.watts, sample.clock_mhz),
            (2835.0, 512.3, 1755.0)
        );
        assert_eq!(parse("2835, [N/A], 1755"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn memory_is_the_most_and_power_the_mean() {
        let one = |memory_mib, watts| Sample {
            memory_mib,
            watts,
            clock_mhz: 1000.0,
        };
        let samples = [
            (one(300.0, 90.0), false),
            (one(250.0, 500.0), true),
            (one(200.0, 700.0), true),
        ];
        let found = usage(100.0, &samples).unwrap();
        assert_eq!((found.memory_mib, found.watts), (200.0, Some(600.0)));
        assert_eq!(usage(100.0, &samples[..1]).unwrap().watts, None);
        assert_eq!(usage(0.0, &[]), None);
    }
}
