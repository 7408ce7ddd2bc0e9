//! Results as tables. Scores are shown times 100 with one decimal, as in the paper.

use super::Results;
use crate::task::Task;

const HEAD: [&str; 8] = [
    "task", "metric", "score", "baseline", "delta", "train", "dev", "seeds",
];
/// Columns from here on are numbers and are right-aligned.
const FIRST_NUMBER: usize = 2;
const NOTE: &str =
    "fewer rows than the official GLUE release: not comparable with published scores";

type Row = [String; HEAD.len()];

fn rows(results: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for (task, result) in &results.tasks {
        let runs = if result.metrics.is_empty() {
            &result.baseline
        } else {
            &result.metrics
        };
        for (i, (name, _)) in runs.iter().enumerate() {
            let (score, baseline) = (result.metrics.get(name), result.baseline.get(name));
            let delta = score
                .zip(baseline)
                .map(|(score, baseline)| score - baseline);
            let first = |text: String| if i == 0 { text } else { String::new() };
            rows.push([
                first(format!(
                    "{}{}",
                    task.folder(),
                    if result.partial { "*" } else { "" }
                )),
                name.to_string(),
                times_100(score),
                times_100(baseline),
                delta.map_or_else(
                    || "n/a".to_string(),
                    |delta| format!("{:+.1}", 100.0 * delta),
                ),
                first(result.train_rows.to_string()),
                first(result.dev_rows.to_string()),
                first(result.seeds.len().to_string()),
            ]);
        }
    }
    if let Some(average) = results.average() {
        let partial = Task::PAPER
            .iter()
            .any(|task| results.tasks.get(task).is_some_and(|result| result.partial));
        let mut row = Row::default();
        row[0] = format!("GLUE{}", if partial { "*" } else { "" });
        row[1] = "mean of 8".to_string();
        row[2] = times_100(Some(average));
        rows.push(row);
    }
    rows
}

fn times_100(score: Option<f64>) -> String {
    score.map_or_else(
        || "n/a".to_string(),
        |score| format!("{:.1}", 100.0 * score),
    )
}

fn any_partial(results: &Results) -> bool {
    results.tasks.values().any(|result| result.partial)
}

pub(super) fn text(results: &Results) -> String {
    let rows = rows(results);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let padded: Vec<String> = (cells.iter().zip(&widths).enumerate())
            .map(|(column, (cell, width))| match column < FIRST_NUMBER {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut table = line(&HEAD);
    table += &format!(
        "{}\n",
        "-".repeat(widths.iter().sum::<usize>() + 2 * (HEAD.len() - 1))
    );
    for row in &rows {
        table += &line(&row.each_ref().map(String::as_str));
    }
    if any_partial(results) {
        table += &format!("* {NOTE}\n");
    }
    table
}

pub(super) fn markdown(results: &Results) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let mut rule = [" --- "; HEAD.len()];
    rule[FIRST_NUMBER..].fill(" ---: ");
    let mut table = format!("{}|{}|\n", line(&HEAD), rule.join("|"));
    for row in rows(results) {
        // A bare star would start emphasis.
        let cells = row.map(|cell| cell.replace('*', "\\*"));
        table += &line(&cells.each_ref().map(String::as_str));
    }
    if any_partial(results) {
        table += &format!("\n\\* {NOTE}\n");
    }
    table
}
