//! `efficiency report`: tables in Markdown and pictures.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use modernbert_benches::paper::{TABLE_2, throughput};
use modernbert_benches::record::{Leg, Record, read};
use modernbert_cli::plot::{Series, plot_curves};

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

/// A row of a table: encoder, program, dtype.
type Row = (String, String, String);

impl Records {
    fn of(&self, leg: Leg) -> impl Iterator<Item = &Record> {
        self.0.iter().filter(move |record| record.leg == leg)
    }

    /// The rows that have the leg, in the order of the file.
    fn rows(&self, leg: Leg) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for record in self.of(leg) {
            let row = row_of(record);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        // Encoders of one size together, ours first.
        rows.sort_by_key(|row| (row.0.contains("large"), row.0.clone(), row.1 != "ours"));
        rows
    }

    fn find(&self, leg: Leg, row: &Row, set: &str, variant: &str) -> Option<&Record> {
        let of_row = |record: &&Record| row_of(record) == *row && record.set == set;
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

fn row_of(record: &Record) -> Row {
    let program = match record.leg {
        Leg::Throughput | Leg::Latency if !record.variant.is_empty() => {
            format!("{}, {}", record.program, record.variant)
        }
        _ => record.program.clone(),
    };
    (record.encoder.clone(), program, record.dtype.clone())
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn line(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn heading(out: &mut String, title: &str, columns: &[&str]) {
    let _ = writeln!(out, "\n### {title}\n");
    line(
        out,
        &columns
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>(),
    );
    let _ = writeln!(out, "|{}", "---|".repeat(columns.len()));
}

fn tables(records: &Records) -> String {
    let mut out = String::new();
    machine(records, &mut out);
    speeds(records, &mut out);
    paper(&mut out);
    ratios(records, &mut out);
    costs(records, &mut out);
    largest(records, &mut out);
    latency(records, &mut out);
    layouts(records, &mut out);
    out
}

/// Where and when the rows were measured.
fn machine(records: &Records, out: &mut String) {
    let mut seen: Vec<String> = Vec::new();
    for record in &records.0 {
        let place = format!(
            "{}: {}, {}, {}",
            record.program, record.device, record.software, record.date
        );
        if !seen.contains(&place) {
            seen.push(place);
        }
    }
    for place in seen {
        let _ = writeln!(out, "- {place}");
    }
}

fn speeds(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "program",
        "dtype",
        "512",
        "N(256, 64)",
        "8192",
        "N(4096, 1024)",
    ];
    heading(
        out,
        "Thousands of real tokens per second, mean ± standard deviation",
        &columns,
    );
    for row in records.rows(Leg::Throughput) {
        let mut cells = vec![row.0.clone(), row.1.clone(), row.2.clone()];
        for (set, _) in SETS {
            let found = records.find(Leg::Throughput, &row, set, "");
            let both = found.and_then(|record| Some((record.tok_s?, record.deviation?)));
            cells.push(match both {
                Some((speed, deviation)) => format!("{:.1} ± {:.1}", speed / 1e3, deviation / 1e3),
                None => "–".to_owned(),
            });
        }
        line(out, &cells);
    }
}

/// Table 2 as published.
fn paper(out: &mut String) {
    let columns = [
        "encoder",
        "512",
        "N(256, 64)",
        "8192",
        "N(4096, 1024)",
        "batch at 512",
        "batch at 8192",
    ];
    heading(
        out,
        "The paper's table 2: one RTX 4090, thousands of tokens per second",
        &columns,
    );
    for row in &TABLE_2 {
        let long = |column: usize| cell(row.long.map(|long| long[column]), 1);
        let batch = row
            .long_batch
            .map_or_else(|| "–".to_owned(), |batch| batch.to_string());
        let cells = [
            row.encoder.to_owned(),
            cell(Some(row.short[0]), 1),
            cell(Some(row.short[1]), 1),
            long(0),
            long(1),
            row.short_batch.to_string(),
            batch,
        ];
        line(out, &cells);
    }
}

fn ratios(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "program",
        "dtype",
        "N(256) / 512",
        "paper",
        "N(4096) / 8192",
        "paper",
        "8192 / 512",
        "paper",
    ];
    heading(out, "Ratios of throughputs within one program", &columns);
    for row in records.rows(Leg::Throughput) {
        let speed = |set: &str| records.speed(&row, set);
        let published = throughput(&row.0);
        let ratio = |a: Option<f64>, b: Option<f64>| cell(a.zip(b).map(|(a, b)| a / b), 3);
        let long = published.and_then(|row| row.long);
        let cells = [
            row.0.clone(),
            row.1.clone(),
            row.2.clone(),
            ratio(speed("variable-256"), speed("fixed-512")),
            cell(published.map(|row| row.short[1] / row.short[0]), 3),
            ratio(speed("variable-4096"), speed("fixed-8192")),
            cell(long.map(|long| long[1] / long[0]), 3),
            ratio(speed("fixed-8192"), speed("fixed-512")),
            cell(
                published.and_then(|row| Some(row.long?[0] / row.short[0])),
                3,
            ),
        ];
        line(out, &cells);
    }
    let columns = [
        "encoder",
        "compared with",
        "dtype",
        "512",
        "N(256, 64)",
        "8192",
        "N(4096, 1024)",
    ];
    heading(
        out,
        "Our ModernBERT's throughput over that of the others of its size and dtype",
        &columns,
    );
    let rows = records.rows(Leg::Throughput);
    for other in rows.iter().filter(|row| row.1 != "ours") {
        let size = if other.0.contains("large") {
            "large"
        } else {
            "base"
        };
        let ours = (
            format!("ModernBERT {size}"),
            "ours".to_owned(),
            other.2.clone(),
        );
        let mut cells = vec![other.0.clone(), other.1.clone(), other.2.clone()];
        for (set, _) in SETS {
            let both = records.speed(&ours, set).zip(records.speed(other, set));
            cells.push(cell(both.map(|(ours, theirs)| ours / theirs), 2));
        }
        line(out, &cells);
    }
}

fn costs(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "program",
        "dtype",
        "set",
        "documents a batch",
        "peak MiB, driver",
        "peak MiB, allocator",
        "W",
        "MHz",
        "Wh per million tokens",
        "first pass, s",
    ];
    heading(out, "Memory, power, first pass", &columns);
    for row in records.rows(Leg::Throughput) {
        for (set, _) in SETS {
            let Some(record) = records.find(Leg::Throughput, &row, set, "") else {
                continue;
            };
            let batch = record
                .batch
                .map_or_else(|| "–".to_owned(), |batch| batch.to_string());
            let cells = [
                row.0.clone(),
                row.1.clone(),
                row.2.clone(),
                set.to_owned(),
                batch,
                cell(record.driver_mib, 0),
                cell(record.peak_mib, 0),
                cell(record.watts, 0),
                cell(record.clock_mhz, 0),
                cell(record.watt_hours(), 3),
                cell(record.first_s, 1),
            ];
            line(out, &cells);
        }
    }
}

fn largest(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "program",
        "dtype",
        "memory",
        "tokens a document",
        "largest batch",
        "fails at",
        "peak MiB",
        "paper (24 GB)",
    ];
    heading(out, "Largest batch that runs, twice", &columns);
    for record in records.of(Leg::Largest) {
        let published = throughput(&record.encoder).filter(|_| record.variant == "24 GB");
        let published = published.and_then(|row| match record.set.as_str() {
            "512" => Some(row.short_batch),
            _ => row.long_batch,
        });
        let count =
            |value: Option<usize>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let cells = [
            record.encoder.clone(),
            record.program.clone(),
            record.dtype.clone(),
            record.variant.clone(),
            record.set.clone(),
            count(record.largest),
            count(record.fails),
            cell(record.driver_mib, 0),
            count(published.map(|batch| batch as usize)),
        ];
        line(out, &cells);
    }
}

fn latency(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "program",
        "dtype",
        "documents x tokens",
        "p50 ms",
        "p99 ms",
        "host ms",
        "thousand tokens/s",
    ];
    heading(out, "Small batches", &columns);
    for record in records.of(Leg::Latency) {
        let row = row_of(record);
        let tokens = tokens_of(&record.set);
        let speed = tokens.zip(record.p50_ms).map(|(tokens, ms)| tokens / ms);
        let cells = [
            row.0,
            row.1,
            row.2,
            record.set.clone(),
            cell(record.p50_ms, 3),
            cell(record.p99_ms, 3),
            cell(record.host_ms, 3),
            cell(speed, 1),
        ];
        line(out, &cells);
    }
}

/// Tokens of `8x32`.
fn tokens_of(set: &str) -> Option<f64> {
    let (documents, length) = set.split_once('x')?;
    Some(documents.parse::<f64>().ok()? * length.parse::<f64>().ok()?)
}

fn layouts(records: &Records, out: &mut String) {
    let columns = [
        "encoder",
        "dtype",
        "set",
        "layout",
        "thousand real tokens/s",
        "relative to unpadded",
    ];
    heading(out, "Padding, with the same attention kernels", &columns);
    for record in records.of(Leg::Layouts) {
        let reference = match record.variant.starts_with("composed") {
            true => "composed, unpadded once",
            false => "unpadded",
        };
        let whole = records.find(Leg::Layouts, &row_of(record), &record.set, reference);
        let relative = record.tok_s.zip(whole.and_then(|whole| whole.tok_s));
        let cells = [
            record.encoder.clone(),
            record.dtype.clone(),
            record.set.clone(),
            record.variant.clone(),
            cell(record.tok_s.map(|speed| speed / 1e3), 1),
            cell(relative.map(|(part, whole)| part / whole), 3),
        ];
        line(out, &cells);
    }
    let columns = [
        "encoder",
        "dtype",
        "set",
        "thousand tokens/s",
        "local and global layers over this",
    ];
    heading(out, "Global attention in all layers", &columns);
    for record in records.of(Leg::Global) {
        let usual = records.speed(&row_of(record), &record.set);
        let cells = [
            record.encoder.clone(),
            record.dtype.clone(),
            record.set.clone(),
            cell(record.tok_s.map(|speed| speed / 1e3), 1),
            cell(
                usual
                    .zip(record.tok_s)
                    .map(|(usual, global)| usual / global),
                2,
            ),
        ];
        line(out, &cells);
    }
}

fn pictures(records: &Records, out: &Path) -> anyhow::Result<()> {
    let name = |row: &Row| format!("{}, {} ({})", row.0, row.1, row.2);
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
            .filter(|record| row_of(record) == row);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(program: &str, leg: Leg, set: &str, variant: &str, speed: f64) -> Record {
        let mut record = Record::new(program, "ModernBERT base", leg, set, "bf16");
        record.variant = variant.to_owned();
        (record.tok_s, record.deviation) = (Some(speed), Some(1e3));
        record
    }

    #[test]
    fn tables_set_ours_beside_the_paper_and_the_peers() {
        let mut all = vec![
            record("torch.compile", Leg::Throughput, "fixed-512", "", 1e6),
            record("ours", Leg::Throughput, "fixed-512", "", 1.5e6),
            record("ours", Leg::Throughput, "fixed-8192", "", 0.9e6),
            record("ours", Leg::Global, "fixed-8192", "", 0.45e6),
            record("ours", Leg::Layouts, "variable-256", "unpadded", 1e6),
            record("ours", Leg::Layouts, "variable-256", "padded", 0.5e6),
        ];
        let mut most = Record::new("ours", "ModernBERT base", Leg::Largest, "512", "bf16");
        most.variant = "24 GB".to_owned();
        (most.largest, most.fails) = (Some(2000), Some(2010));
        all.push(most);
        let text = tables(&Records(all));
        for expected in [
            "| ModernBERT base | ours | bf16 | 1500.0 ± 1.0 | – | 900.0 ± 1.0 | – |",
            // 0.9 / 1.5 beside the paper's 123.7 / 148.1.
            "| ModernBERT base | ours | bf16 | – | 0.995 | – | 1.082 | 0.600 | 0.835 |",
            "| ModernBERT base | torch.compile | bf16 | 1.50 | – | – | – |",
            "| ModernBERT base | ours | bf16 | 24 GB | 512 | 2000 | 2010 | – | 1604 |",
            "| ModernBERT base | bf16 | variable-256 | padded | 500.0 | 0.500 |",
            "| ModernBERT base | bf16 | fixed-8192 | 450.0 | 2.00 |",
        ] {
            assert!(text.contains(expected), "{text}\nlacks\n{expected}");
        }
    }
}
