//! The table of a sweep, in Markdown.

use modernbert_cli::text::human_count;

use super::{Report, ReportRow, SeedResult, Spread};

const UNDEFINED: &str = "undefined";

/// Characters of a failure's reason in the table at most.
const LONGEST: usize = 200;

pub(super) fn markdown(report: &Report) -> String {
    let first = report.rows.first().map_or("", |row| row.name.as_str());
    let mut text = format!(
        "| row | held-out loss | difference from `{first}` | p | pairs | tokens/s | memory | parameters | runs |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
    );
    for (number, row) in report.rows.iter().enumerate() {
        let cells = [
            format!("`{}`", row.name),
            row.loss.map_or_else(missing, |loss| spread(loss, false)),
            match row.difference {
                _ if number == 0 => String::new(),
                difference => difference.map_or_else(missing, |found| spread(found, true)),
            },
            match (number, row.difference) {
                (0, _) => String::new(),
                (_, None) => missing(),
                (_, Some(_)) => row
                    .test
                    .map_or_else(|| UNDEFINED.to_owned(), |test| probability(test.p)),
            },
            match number {
                0 => String::new(),
                _ => row.difference.map_or(0, |found| found.count).to_string(),
            },
            row.tokens_per_second
                .map_or_else(missing, |speed| human_count(speed.round() as u64)),
            row.memory_mib.map_or_else(missing, memory),
            row.parameters.map_or_else(missing, human_count),
            runs(row),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text += "\nHeld-out loss at the end: mean ± standard deviation over the finished runs. Differences are taken within a seed; p is that of Student's \
             paired t-test (two-sided), for one comparison. Tokens/s: median of the logged speeds, mean over runs. Memory: the largest logged \
             (reserved on the device; on a CPU resident in the process).\n";
    text
}

fn missing() -> String {
    "–".to_owned()
}

/// Mean and deviation; differences have a sign.
fn spread(found: Spread, signed: bool) -> String {
    let mean = match signed {
        true => format!("{:+.4}", found.mean),
        false => format!("{:.4}", found.mean),
    };
    match found.deviation {
        Some(deviation) => format!("{mean} ± {deviation:.4}"),
        None => format!("{mean} ± {UNDEFINED}"),
    }
}

/// A probability with two significant digits.
pub(super) fn probability(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".to_owned(),
        p if p < 0.001 => format!("{p:.5}"),
        p if p < 0.01 => format!("{p:.4}"),
        p if p < 0.1 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

fn memory(mib: f64) -> String {
    match mib < 1024.0 {
        true => format!("{mib:.0} MiB"),
        false => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// The number of finished runs; of the others state and reason.
fn runs(row: &ReportRow) -> String {
    let is_finished = |seed: &&SeedResult| seed.status == "finished";
    let finished = row.seeds.iter().filter(is_finished).count();
    if finished == row.seeds.len() {
        return finished.to_string();
    }
    let mut parts = vec![format!("{finished} of {}", row.seeds.len())];
    for seed in row.seeds.iter().filter(|seed| !is_finished(seed)) {
        let done = seed
            .done
            .map_or_else(String::new, |done| format!(" at {:.0} %", 100.0 * done));
        parts.push(match &seed.reason {
            Some(reason) => format!("seed {} failed: {}", seed.seed, in_cell(reason)),
            None => format!("seed {} {}{done}", seed.seed, seed.status),
        });
    }
    parts.join("; ")
}

/// A text in a cell of a table: one line, without bars.
fn in_cell(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    if text.chars().count() > LONGEST {
        line.push('…');
    }
    line.replace('|', "\\|")
}
