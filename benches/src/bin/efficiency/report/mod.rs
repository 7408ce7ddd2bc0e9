//! `efficiency report`: tables in Markdown and pictures.

mod tables;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use modernbert_benches::record::{Leg, Record, read};
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

struct Records(Vec<Record>);

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    encoder: String,
    program: String,
    dtype: String,
}

impl Row {
    fn of(record: &Record) -> Self {
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
    fn of(&self, leg: Leg) -> impl Iterator<Item = &Record> {
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

    fn find(&self, leg: Leg, row: &Row, set: &str, variant: &str) -> Option<&Record> {
        let of_row = |record: &&Record| Row::of(record) == *row && record.set == set;
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

fn pictures(records: &Records, out: &Path) -> anyhow::Result<()> {
    let name = |row: &Row| format!("{}, {} ({})", row.encoder, row.program, row.dtype);
    let mut speed = Vec::new();
    // Encoders of all four sets; the others have two points.
    let is_whole = |row: &Row| {
        SETS.iter()
            .all(|(set, _)| records.speed(row, set).is_some())
    };
    for row in records.rows(Leg::Throughput).into_iter().filter(is_whole) {
        let mut points: Vec<(f64, f64)> = SETS
            .iter()
            .filter_map(|(set, length)| Some((*length, records.speed(&row, set)? / 1e3)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        speed.push(Series::new(name(&row), points));
    }
    let mut late = Vec::new();
    for row in records.rows(Leg::Latency) {
        let of_row = records
            .of(Leg::Latency)
            .filter(|record| Row::of(record) == row);
        let mut points: Vec<(f64, f64)> = of_row
            .filter_map(|record| Some((tokens_of(&record.set)?, record.p50_ms?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        late.push(Series::new(name(&row), points));
    }
    let mut memory = Vec::new();
    for record in records
        .of(Leg::Largest)
        .filter(|record| record.variant != "24 GB")
    {
        let length: f64 = record.set.parse().unwrap_or(f64::NAN);
        let points = record
            .points
            .iter()
            .map(|&(documents, mib)| (documents as f64 * length / 1e6, mib / 1024.0));
        memory.push(Series::new(
            format!(
                "{} ({}), {} tokens a document",
                record.encoder, record.program, record.set
            ),
            points.collect(),
        ));
    }
    for (file, title, series, x, y) in [
        (
            "throughput.png",
            "Throughput against length",
            speed,
            "mean tokens of a document",
            "thousand tokens/s",
        ),
        (
            "latency.png",
            "Latency against batch",
            late,
            "tokens of the batch",
            "ms (median)",
        ),
        (
            "memory.png",
            "Memory against batch",
            memory,
            "million tokens of the batch",
            "GiB",
        ),
    ] {
        if series.iter().any(|one| !one.drawable().is_empty()) {
            plot_curves(&out.join(file), title, &series, x, y, &[])?;
        }
    }
    Ok(())
}
