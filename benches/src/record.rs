//! Results of the efficiency tables as lines of JSON, of this project's programs and of the PyTorch peers alike.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// Real tokens per second over a set of documents.
    Throughput,
    /// Time of one small batch, until its result is in host memory.
    Latency,
    /// The largest batch of documents of one length.
    Largest,
    /// The same model on padded sequences, and with unpadding in every layer.
    Layouts,
    /// The same model with global attention in all layers.
    Global,
}

/// One measurement. Fields that do not apply to its leg are left out of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Program that computed: `ours`, `torch.compile`, `packed-encoders`, `transformers`.
    pub program: String,
    /// The encoder, such as `ModernBERT base`.
    pub encoder: String,
    /// What was measured.
    pub leg: Leg,
    /// The set of documents, or `512` and `8192` for the largest batch.
    pub set: String,
    /// `bf16`, `f16` or `f32`.
    pub dtype: String,
    /// Variant of the program: attention, layout, cap of the memory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Real tokens per second: mean over the runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok_s: Option<f64>,
    /// Their standard deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// Number of timed runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// Documents of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<usize>,
    /// Documents of one batch (the most of any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Seconds of the first pass, which compiles kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_s: Option<f64>,
    /// Milliseconds of one batch: median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// Milliseconds of one batch: 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Milliseconds until the call returned, before the device was done: median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ms: Option<f64>,
    /// Most documents in a batch that ran, twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<usize>,
    /// Fewest documents that were seen to fail or to exceed the cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<usize>,
    /// Batches of the search that ran: documents, and MiB by the driver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<(usize, f64)>,
    /// Peak memory by the program's own allocator, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// Peak memory by the driver, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_mib: Option<f64>,
    /// Mean power in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
    /// Mean clock in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<f64>,
    /// The device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Versions of driver and libraries.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub software: String,
    /// Day of the measurement, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub date: String,
}

impl Measurement {
    /// A record without results.
    pub fn new(program: &str, encoder: &str, leg: Leg, set: &str, dtype: &str) -> Self {
        Self {
            program: program.to_owned(),
            encoder: encoder.to_owned(),
            leg,
            set: set.to_owned(),
            dtype: dtype.to_owned(),
            variant: String::new(),
            tok_s: None,
            deviation: None,
            runs: None,
            documents: None,
            batch: None,
            first_s: None,
            p50_ms: None,
            p99_ms: None,
            host_ms: None,
            largest: None,
            fails: None,
            points: Vec::new(),
            peak_mib: None,
            driver_mib: None,
            watts: None,
            clock_mhz: None,
            device: String::new(),
            software: String::new(),
            date: String::new(),
        }
    }

    /// Returns whether two records measure the same.
    pub fn same_key(&self, other: &Self) -> bool {
        let key = |of: &Self| {
            let texts =
                [&of.program, &of.encoder, &of.set, &of.dtype, &of.variant].map(Clone::clone);
            (of.leg, texts)
        };
        key(self) == key(other)
    }

    /// Watt hours per million tokens.
    pub fn watt_hours(&self) -> Option<f64> {
        Some(self.watts? / self.tok_s? * 1e6 / 3600.0)
    }
}

/// Reads the lines of a file; a missing file has none.
///
/// # Errors
/// A line that is no record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Measurement>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: can't be read", path.display()))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}:{}: not a measurement", path.display(), index + 1))
        })
        .collect()
}

/// Appends a line to a file.
///
/// # Errors
/// A file that can't be written.
pub fn append(path: &Path, record: &Measurement) -> anyhow::Result<()> {
    let line = serde_json::to_string(record)? + "\n";
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(line.as_bytes())
    };
    write().with_context(|| format!("{}: can't be written", path.display()))
}

/// `year-month-day` of seconds since 1970, UTC.
pub fn day(seconds: u64) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, mut year) = (seconds / 86_400, 1970);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

/// Mean and standard deviation (of a sample) of numbers.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// The smallest value that at least `share` of the values do not exceed.
///
/// # Panics
/// If there are no values.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_only_what_was_measured() {
        let folder = std::env::temp_dir().join(format!("records-{}", std::process::id()));
        let _ = std::fs::remove_file(&folder);
        let mut record = Measurement::new(
            "ours",
            "ModernBERT base",
            Leg::Throughput,
            "fixed-512",
            "bf16",
        );
        (record.tok_s, record.watts) = (Some(1.5e6), Some(600.0));
        append(&folder, &record).unwrap();
        append(&folder, &record).unwrap();
        let text = std::fs::read_to_string(&folder).unwrap();
        assert!(!text.contains("p50"), "{text}");
        assert_eq!(read(&folder).unwrap(), [record.clone(), record.clone()]);
        std::fs::write(&folder, text + "{\"program\": 1}\n").unwrap();
        let message = format!("{:#}", read(&folder).unwrap_err());
        assert!(message.contains(":3: not a measurement"), "{message}");
        std::fs::remove_file(&folder).unwrap();
        // 600 W for a million tokens at 1.5 million a second: 400 joules.
        assert!((record.watt_hours().unwrap() - 400.0 / 3600.0).abs() < 1e-12);
        let other = Measurement {
            dtype: "f32".to_owned(),
            ..record.clone()
        };
        assert!(record.same_key(&record) && !record.same_key(&other));
    }

    #[test]
    fn days_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_796_083_200, "2026-12-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(seconds), expected);
        }
    }

    #[test]
    fn statistics_are_those_of_a_sample() {
        let (mean, deviation) = mean_and_deviation(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((deviation - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_deviation(&[7.0]), (7.0, 0.0));
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(values.clone(), 0.5), 100.0);
        assert_eq!(quantile(values, 0.99), 198.0);
        assert_eq!(quantile(vec![3.0], 0.99), 3.0);
    }
}
