//! Plots of the final scores (bars) and of the scores during training (curves).

pub use modernbert_cli::plot::PlotError;
use modernbert_cli::plot::{Bar, Group, Panel, Series, plot_groups, plot_panels};
use std::path::{Path, PathBuf};

use super::{JobView, seed_values, tasks_of};
use crate::task::paper::ModelSize;

/// Names of the pictures.
pub const PICTURES: [&str; 2] = ["glue-scores.png", "glue-curves.png"];

/// Draws `glue-scores.png` (main scores with spread and seeds, the paper's as lines) and `glue-curves.png` (main dev score over the
/// steps, a curve per seed) into `folder`, which must exist.
///
/// # Errors
/// Nothing to draw, or a file that can't be written.
pub fn pictures(
    folder: &Path,
    views: &[&JobView],
    size: ModelSize,
) -> Result<Vec<PathBuf>, PlotError> {
    let scores = folder.join(PICTURES[0]);
    let tasks = tasks_of(views.iter().copied());
    let names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let percent = |value: f64| 100.0 * value;
    let partial = |task| {
        let of_task = views.iter().filter_map(|view| view.result(task));
        of_task.into_iter().any(|result| result.partial)
    };
    let groups: Vec<Group> = tasks
        .iter()
        .map(|&task| {
            let metric = task.main_metric().name();
            let bars = views.iter().map(|view| {
                let result = view.result(task)?;
                Some(Bar {
                    value: percent(result.metrics.get(metric)?),
                    spread: result.spread.get(metric).map(percent),
                    points: seed_values(result, metric)?
                        .into_iter()
                        .map(percent)
                        .collect(),
                })
            });
            Group {
                name: format!("{}{}", task.folder(), if partial(task) { "*" } else { "" }),
                bars: bars.collect(),
                reference: task.paper_score(size),
            }
        })
        .collect();
    let reference = match size {
        ModelSize::Base => "ModernBERT-base in the paper",
        ModelSize::Large => "ModernBERT-large in the paper",
    };
    let title = "GLUE dev scores: mean, standard deviation and each seed (* partial data)";
    plot_groups(
        &scores,
        title,
        &names,
        &groups,
        reference,
        "main metric, times 100",
    )?;

    let curves = folder.join(PICTURES[1]);
    let panels: Vec<Panel> = tasks
        .iter()
        .map(|&task| {
            let metric = task.main_metric().name();
            let of_view = |view: &&JobView| {
                let name = view.name.clone();
                let records = view.records.get(&task).cloned().unwrap_or_default();
                let series = records.into_iter().map(move |record| {
                    let point = |row: &crate::run::EvaluationRecord| {
                        Some((row.step as f64, 100.0 * row.metrics.get(metric)?))
                    };
                    let points = record.evaluations.iter().filter_map(point).collect();
                    Series::new(name.clone(), points)
                });
                series.collect::<Vec<_>>()
            };
            Panel {
                title: format!(
                    "{}{}, {metric}",
                    task.folder(),
                    if partial(task) { "*" } else { "" }
                ),
                series: views.iter().flat_map(of_view).collect(),
            }
        })
        .collect();
    plot_panels(
        &curves,
        "Dev score while finetuning, a curve per seed",
        &panels,
        "step",
    )?;
    Ok(vec![scores, curves])
}
