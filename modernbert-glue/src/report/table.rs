//! The report in Markdown.

use std::fmt::Write;

use modernbert_train::snapshot::hex;
use sha2::{Digest, Sha256};

use super::{JobView, holm, seed_values, tasks_of, welch};
use crate::metrics::sample::{mean, variance};
use crate::results::TaskResult;
use crate::task::Task;
use crate::task::paper::ModelSize;

/// Adjusted p-value below which a difference counts as significant.
const LEVEL: f64 = 0.05;

/// Two significant digits: `0.0022`, `7.5e-8`.
fn two_digits(p: f64) -> String {
    match p {
        0.995.. => format!("{p:.1}"),
        0.1.. => format!("{p:.2}"),
        0.01.. => format!("{p:.3}"),
        0.001.. => format!("{p:.4}"),
        _ => format!("{p:.1e}"),
    }
}

/// The first lines of every report.
const HEAD: &str = "# GLUE\n\n";

/// Prefix of the last line, which contains the hash of the text above it.
const MARK: &str = "<!-- sha256 of the text above: ";

fn mark(text: &str) -> String {
    format!("{MARK}{} -->\n", hex(&Sha256::digest(text)))
}

/// Returns true if a file is a report that [`markdown`] made and nobody changed: another file must not be replaced.
pub fn is_own_page(path: &std::path::Path) -> bool {
    let text = modernbert::read::text(path).unwrap_or_default();
    let above = text.rfind(MARK).map(|place| &text[..place]);
    above.is_some_and(|above| text.starts_with(HEAD) && text == format!("{above}{}", mark(above)))
}

/// The report on `views`, each beside the paper's rows; with `against` also the difference to that job.
///
/// A star marks tasks with less than the official data. The mean is over the paper's eight tasks and is given only if a job has
/// all of them; WNLI, which is in no table of the paper, is never in it.
pub fn markdown(views: &[JobView], against: Option<&JobView>) -> String {
    let all: Vec<&JobView> = views.iter().chain(against).collect();
    let mut text = String::from(HEAD);
    scores(&mut text, &all);
    if let Some(against) = against {
        for view in views {
            difference(&mut text, view, against);
        }
    }
    data(&mut text, &all);
    for view in &all {
        settings(&mut text, view);
    }
    failures(&mut text, &all);
    let mark = mark(&text);
    text.push_str(&mark);
    text
}

fn percent(score: Option<f64>) -> String {
    score.map_or_else(|| "n/a".to_string(), |s| format!("{:.1}", 100.0 * s))
}

/// `61.2 ± 0.8 (60.4, 62.0)`.
fn cell(result: Option<&TaskResult>, metric: &str) -> String {
    let Some(result) = result else {
        return "–".to_string();
    };
    let Some(mean) = result.metrics.get(metric) else {
        return "n/a".to_string();
    };
    let mut text = percent(Some(mean));
    if let Some(spread) = result.spread.get(metric) {
        let _ = write!(text, " ± {:.1}", 100.0 * spread);
    }
    if let Some(values) = seed_values(result, metric).filter(|values| values.len() > 1) {
        let values: Vec<String> = values.iter().map(|&v| percent(Some(v))).collect();
        let _ = write!(text, " ({})", values.join(", "));
    }
    text
}

fn star(views: &[&JobView], task: Task) -> &'static str {
    let partial = |view: &&JobView| view.result(task).is_some_and(|result| result.partial);
    if views.iter().any(partial) { "\\*" } else { "" }
}

/// Names of the scores of a task in any of the jobs, the main one first.
fn metrics_of(views: &[&JobView], task: Task) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for view in views {
        let result = view.result(task);
        for (name, _) in result.iter().flat_map(|r| r.baseline.iter()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_string());
            }
        }
    }
    names
}

fn scores(text: &mut String, views: &[&JobView]) {
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    let _ = writeln!(
        text,
        "| task | metric | constant answer | {} | paper, base | paper, large |",
        names.join(" | ")
    );
    let _ = writeln!(
        text,
        "| --- | --- | ---: |{} ---: | ---: |",
        " --- |".repeat(names.len())
    );
    for task in tasks_of(views.iter().copied()) {
        for (i, metric) in metrics_of(views, task).iter().enumerate() {
            let main = task.main_metric().name() == metric;
            let paper = |size| match task.paper_score(size).filter(|_| main) {
                Some(score) => format!("{score:.1}"),
                None => String::new(),
            };
            let cells: Vec<String> = views
                .iter()
                .map(|view| cell(view.result(task), metric))
                .collect();
            let baseline = views
                .iter()
                .find_map(|view| view.result(task)?.baseline.get(metric));
            let name = if i == 0 {
                format!("{}{}", task.folder(), star(views, task))
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "| {name} | {metric} | {} | {} | {} | {} |",
                percent(baseline),
                cells.join(" | "),
                paper(ModelSize::Base),
                paper(ModelSize::Large)
            );
        }
    }
    if views.iter().any(|view| view.results.average().is_some()) {
        let cells: Vec<String> = views
            .iter()
            .map(|view| match view.results.average() {
                Some(average) => percent(Some(average)),
                None => "–".to_string(),
            })
            .collect();
        let _ = writeln!(
            text,
            "| mean of the paper's 8 | | | {} | 88.4 | 90.4 |",
            cells.join(" | ")
        );
    }
    text.push_str(
        "\nScores on the dev sets, times 100: mean ± standard deviation over the seeds (each seed). The paper gives one number per \
         task; for MRPC and QQP it does not say which metric that is (F1 and accuracy assumed). WNLI is in no table of the paper \
         and not in the mean.\n",
    );
    if tasks_of(views.iter().copied())
        .iter()
        .any(|task| !star(views, *task).is_empty())
    {
        text.push_str(
            "\n\\* fewer rows than the official GLUE release: not comparable with published scores.\n",
        );
    }
    text.push('\n');
}

/// The tasks that both jobs have, with the main score of each seed.
fn shared(both: [&JobView; 2]) -> Vec<(Task, [Vec<f64>; 2])> {
    let values = |task: Task| {
        let [mine, theirs] = both.map(|view| {
            let result = view.result(task);
            result.and_then(|result| seed_values(result, task.main_metric().name()))
        });
        let (mine, theirs) = (mine?, theirs?);
        (!mine.is_empty() && !theirs.is_empty()).then_some((task, [mine, theirs]))
    };
    tasks_of(both.into_iter())
        .into_iter()
        .filter_map(values)
        .collect()
}

fn difference(text: &mut String, view: &JobView, against: &JobView) {
    let both = [view, against];
    let tasks = shared(both);
    let tests: Vec<_> = tasks.iter().map(|(_, [a, b])| welch(a, b)).collect();
    let ps: Vec<f64> = tests.iter().flatten().map(|test| test.p).collect();
    let mut adjusted = holm(&ps).into_iter();
    let _ = writeln!(text, "## {} against {}\n", view.name, against.name);
    text.push_str(
        "| task | metric | difference | deviations | seeds | p | p, adjusted | verdict |\n",
    );
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for ((task, [mine, theirs]), test) in tasks.iter().zip(&tests) {
        let difference = mean(mine) - mean(theirs);
        let deviation = |values: &[f64]| match variance(values) {
            None => "n/a".to_string(),
            Some(variance) => format!("{:.1}", 100.0 * variance.sqrt()),
        };
        let adjusted = test.and_then(|_| adjusted.next());
        let shown = |p: Option<f64>| p.map_or_else(|| "n/a".to_string(), two_digits);
        let verdict = match adjusted {
            None => "not tested",
            Some(p) if p >= LEVEL => "no difference shown",
            Some(_) if difference > 0.0 => "better",
            Some(_) => "worse",
        };
        let _ = writeln!(
            text,
            "| {}{} | {} | {:+.1} | {} and {} | {} and {} | {} | {} | {verdict} |",
            task.folder(),
            star(&both, *task),
            task.main_metric().name(),
            100.0 * difference,
            deviation(mine),
            deviation(theirs),
            mine.len(),
            theirs.len(),
            shown(test.map(|test| test.p)),
            shown(adjusted),
        );
    }
    let _ = writeln!(
        text,
        "\nWelch's two-sided t-test over the seeds; adjusted by Holm's method for the tasks of this table, with a verdict where that is below {LEVEL}. \
         Not tested: fewer than two seeds, or no deviation.\n"
    );
}

fn data(text: &mut String, views: &[&JobView]) {
    text.push_str("## Data\n\n");
    let mut lines: Vec<String> = Vec::new();
    for task in tasks_of(views.iter().copied()) {
        for result in views.iter().filter_map(|view| view.result(task)) {
            let notes = if result.notes.is_empty() {
                "complete".to_string()
            } else {
                result.notes.join("; ")
            };
            let line = format!(
                "- {}: {} training and {} dev rows; {notes}",
                task.folder(),
                result.train_rows,
                result.dev_rows
            );
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    let _ = writeln!(text, "{}\n", lines.join("\n"));
}

fn settings(text: &mut String, view: &JobView) {
    let mut records = view.records.values().flatten();
    let Some(first) = records.next() else {
        return;
    };
    let _ = writeln!(
        text,
        "## {}\n\nModel {}, device {}.\n",
        view.name, first.model, first.device
    );
    text.push_str(
        "| task | start | epochs | batch | learning rate | weight decay | dtype | seeds | best at | steps/s | scored/s |\n",
    );
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: | --- | --- | --- | ---: | ---: |\n");
    for (task, records) in &view.records {
        let Some(first) = records.first() else {
            continue;
        };
        let settings = &first.settings;
        let seeds: Vec<String> = records
            .iter()
            .map(|r| r.settings.seed.to_string())
            .collect();
        let best: Vec<String> = records
            .iter()
            .map(|r| format!("{} of {}", r.best_step, r.planned_steps))
            .collect();
        let sum = |pick: fn(&crate::run::RunRecord) -> f64| records.iter().map(pick).sum::<f64>();
        let steps = sum(|r| r.steps as f64) / sum(|r| r.train_seconds).max(1e-9);
        let scored = sum(|r| r.evaluated as f64) / sum(|r| r.eval_seconds).max(1e-9);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.2e} | {:.0e} | {} | {} | {} | {steps:.2} | {scored:.0} |",
            task.folder(),
            settings.start,
            settings.epochs,
            settings.batch_size,
            settings.learning_rate,
            settings.weight_decay,
            settings.precision,
            seeds.join(", "),
            best.join(", ")
        );
    }
    let _ = writeln!(
        text,
        "\nWeights started from (SHA-256): {}\n",
        starts(view).join(", ")
    );
}

fn starts(view: &JobView) -> Vec<String> {
    let mut starts: Vec<String> = Vec::new();
    for record in view.records.values().flatten() {
        let settings = &record.settings;
        let hash: String = settings.start_sha256.chars().take(16).collect();
        let text = format!("{} {hash}…", settings.start);
        if !starts.contains(&text) {
            starts.push(text);
        }
    }
    starts
}

fn failures(text: &mut String, views: &[&JobView]) {
    let mut lines = Vec::new();
    for view in views {
        for (task, result) in &view.results.tasks {
            for failed in &result.failed {
                lines.push(format!("- {}, {}: {failed}", view.name, task.folder()));
            }
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "## Failed\n\n{}\n", lines.join("\n"));
    }
}
