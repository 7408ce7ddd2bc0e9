//! `efficiency report`: tables in Markdown and pictures.

mod tables;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use modernbert_benches::record::{Leg, Measurement, read};
use modernbert_cli::plot::{Series, plot_curves};

use tables::{tables, tokens_of};

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Reads measurements from these files.
    #[arg(required = true, value_name = "FILE")]
    results: Vec<PathBuf>,
    /// Writes tables.md and the pictures to this folder.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Sets of table 2, in its order, with the mean length of their documents.
const SETS: [(&str, f64); 4] = [
    ("fixed-512", 512.0),
    ("variable-256", 256.0),
    ("fixed-8192", 8192.0),
    ("variable-4096", 4102.0),
];

pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for path in &args.results {
        anyhow::ensure!(path.is_file(), "{}: no such file", path.display());
        all.extend(read(path)?);
    }
    anyhow::ensure!(!all.is_empty(), "the files have no measurement");
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("{}: can't be created", args.out.display()))?;
    let text = tables(&Records(all.clone()));
    let path = args.out.join("tables.md");
    std::fs::write(&path, &text)
        .with_context(|| format!("{}: can't be written", path.display()))?;
    print!("{text}");
    pictures(&Records(all), &args.out)
}

struct Records(Vec<Measurement>);

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    encoder: String,
    program: String,
    dtype: String,
}

impl Row {
    fn of(record: &Measurement) -> Self {
        let program = match record.leg {
            Leg::Throughput | Leg::Latency if !record.variant.is_empty() => {
                format!("{}, {}", record.program, record.variant)
            }
            _ => record.program.clone(),
        };
        Self {
            encoder: record.encoder.clone(),
            program,
            dtype: record.dtype.clone(),
        }
    }

    /// Encoder, program and dtype.
    fn cells(&self) -> Vec<String> {
        vec![
            self.encoder.clone(),
            self.program.clone(),
            self.dtype.clone(),
        ]
    }
}

impl Records {
    fn of(&self, leg: Leg) -> impl Iterator<Item = &Measurement> {
        self.0.iter().filter(move |record| record.leg == leg)
    }

    /// The rows that have the leg, in the order of the file.
    fn rows(&self, leg: Leg) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for record in self.of(leg) {
            let row = Row::of(record);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        // Encoders of one size together, ours first.
        rows.sort_by_key(|row| {
            let is_large = row.encoder.contains("large");
            (is_large, row.encoder.clone(), row.program != "ours")
        });
        rows
    }

    fn find(&self, leg: Leg, row: &Row, set: &str, variant: &str) -> Option<&Measurement> {
        let of_row = |record: &&Measurement| Row::of(record) == *row && record.set == set;
        let mut found = self.of(leg).filter(of_row);
        match leg {
            Leg::Throughput | Leg::Latency | Leg::Global => found.next(),
            Leg::Largest | Leg::Layouts => found.find(|record| record.variant == variant),
        }
    }

    fn speed(&self, row: &Row, set: &str) -> Option<f64> {
        self.find(Leg::Throughput, row, set, "")?.tok_s
    }
}

/// The size in an encoder's name, and the ending of the names of its pictures.
const SIZES: [(&str, &str); 2] = [("base", ""), ("large", "-large")];

/// Draws a picture of throughput, latency and memory for each size of encoder. Rows in bf16 are drawn; transformers' small batches, which take ten times as long as
/// all others, are in the table alone.
fn pictures(records: &Records, out: &Path) -> anyhow::Result<()> {
    for (size, ending) in SIZES {
        let is_drawn = |row: &Row| row.encoder.contains(size) && row.dtype == "bf16";
        let name = |row: &Row| format!("{}, {}", row.encoder, row.program);
        // Encoders of all four sets; the others have two points.
        let is_whole = |row: &Row| {
            SETS.iter()
                .all(|(set, _)| records.speed(row, set).is_some())
        };
        let speed = records.rows(Leg::Throughput).into_iter();
        let speed = speed
            .filter(|row| is_drawn(row) && is_whole(row))
            .map(|row| {
                let speed =
                    |(set, length): &(&str, f64)| Some((*length, records.speed(&row, set)? / 1e3));
                series(name(&row), SETS.iter().filter_map(speed))
            });
        let late = records.rows(Leg::Latency).into_iter();
        let late = late
            .filter(|row| is_drawn(row) && row.program != "transformers")
            .map(|row| {
                let of_row = records
                    .of(Leg::Latency)
                    .filter(|record| Row::of(record) == row);
                let points =
                    of_row.filter_map(|record| Some((tokens_of(&record.set)?, record.p50_ms?)));
                series(name(&row), points)
            });
        let memory = records.of(Leg::Largest);
        let memory = memory
            .filter(|record| record.variant != "24 GB" && record.encoder.contains(size))
            .map(|record| {
                let length: f64 = record.set.parse().unwrap_or(f64::NAN);
                let points = record
                    .points
                    .iter()
                    .map(|&(documents, mib)| (documents as f64 * length / 1e6, mib / 1024.0));
                let name = format!(
                    "{}, {} tokens a document",
                    name(&Row::of(record)),
                    record.set
                );
                series(name, points)
            });
        let pictures: [(_, _, Vec<Series>, _, _); 3] = [
            (
                "throughput",
                "Throughput against length",
                speed.collect(),
                "mean tokens of a document",
                "thousand tokens/s",
            ),
            (
                "latency",
                "Latency against batch",
                late.collect(),
                "tokens of the batch",
                "ms (median)",
            ),
            (
                "memory",
                "Memory against batch",
                memory.collect(),
                "million tokens of the batch",
                "GiB",
            ),
        ];
        for (file, title, series, x, y) in pictures {
            if series.iter().any(|one| !one.drawable().is_empty()) {
                let path = out.join(format!("{file}{ending}.png"));
                plot_curves(&path, &format!("{title} (bf16)"), &series, x, y, &[])?;
            }
        }
    }
    Ok(())
}

/// Points in ascending order.
fn series(name: String, points: impl Iterator<Item = (f64, f64)>) -> Series {
    let mut points: Vec<(f64, f64)> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series::new(name, points)
}
