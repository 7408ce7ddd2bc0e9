//! The tables.

use std::fmt::Write;

use modernbert_benches::paper::{TABLE_2, throughput};
use modernbert_benches::record::Leg;

use super::{Records, Row, SETS};

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

pub(super) fn tables(records: &Records) -> String {
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

/// Machines and dates of the rows' measurement.
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
        let mut cells = row.cells();
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
        let published = throughput(&row.encoder);
        let ratio = |a: Option<f64>, b: Option<f64>| cell(a.zip(b).map(|(a, b)| a / b), 3);
        let long = published.and_then(|row| row.long);
        let mut cells = row.cells();
        cells.extend([
            ratio(speed("variable-256"), speed("fixed-512")),
            cell(published.map(|row| row.short[1] / row.short[0]), 3),
            ratio(speed("variable-4096"), speed("fixed-8192")),
            cell(long.map(|long| long[1] / long[0]), 3),
            ratio(speed("fixed-8192"), speed("fixed-512")),
            cell(
                published.and_then(|row| Some(row.long?[0] / row.short[0])),
                3,
            ),
        ]);
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
    for other in rows.iter().filter(|row| row.program != "ours") {
        let size = if other.encoder.contains("large") {
            "large"
        } else {
            "base"
        };
        let ours = Row {
            encoder: format!("ModernBERT {size}"),
            program: "ours".to_owned(),
            dtype: other.dtype.clone(),
        };
        let mut cells = other.cells();
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
            let mut cells = row.cells();
            cells.extend([
                set.to_owned(),
                batch,
                cell(record.driver_mib, 0),
                cell(record.peak_mib, 0),
                cell(record.watts, 0),
                cell(record.clock_mhz, 0),
                cell(record.watt_hours(), 3),
                cell(record.first_s, 1),
            ]);
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
        let mut cells = Row::of(record).cells();
        cells.extend([
            record.variant.clone(),
            record.set.clone(),
            count(record.largest),
            count(record.fails),
            cell(record.driver_mib, 0),
            count(published.map(|batch| batch as usize)),
        ]);
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
        let row = Row::of(record);
        let tokens = tokens_of(&record.set);
        let speed = tokens.zip(record.p50_ms).map(|(tokens, ms)| tokens / ms);
        let mut cells = row.cells();
        cells.extend([
            record.set.clone(),
            cell(record.p50_ms, 3),
            cell(record.p99_ms, 3),
            cell(record.host_ms, 3),
            cell(speed, 1),
        ]);
        line(out, &cells);
    }
}

/// Tokens of `8x32`.
pub(super) fn tokens_of(set: &str) -> Option<f64> {
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
        let whole = records.find(Leg::Layouts, &Row::of(record), &record.set, reference);
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
        let usual = records.speed(&Row::of(record), &record.set);
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

#[cfg(test)]
mod tests {
    use super::*;
    use modernbert_benches::record::Measurement;

    fn record(program: &str, leg: Leg, set: &str, variant: &str, speed: f64) -> Measurement {
        let mut record = Measurement::new(program, "ModernBERT base", leg, set, "bf16");
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
        let mut most = Measurement::new("ours", "ModernBERT base", Leg::Largest, "512", "bf16");
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
