//! The picture of a sweep: differences of the held-out losses from the first row, or the losses where there is no difference yet.

use modernbert_cli::plot::{Bar, Group, is_own_picture, plot_groups};
use std::path::Path;

use super::report::differences;
use super::{Report, ReportRow, Spread, SweepError};

/// Draws the picture; nothing before the first run is finished.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), SweepError> {
    let Some(first) = report.rows.first() else {
        return Ok(());
    };
    if path.exists() && !is_own_picture(path) {
        return Err(SweepError::folder(
            path,
            "it is no picture of this program and is not replaced; move it away",
        ));
    }
    let bar = |spread: Option<Spread>, points: Vec<f64>| {
        spread.map(|spread| Bar {
            value: spread.mean,
            spread: spread.deviation,
            points,
        })
    };
    let has_difference = report.rows.iter().any(|row| row.difference.is_some());
    let (rows, bars, label): (&[ReportRow], Vec<Option<Bar>>, String) = match has_difference {
        true => {
            let others = &report.rows[1..];
            let of_row = |row: &ReportRow| bar(row.difference, differences(first, row));
            (
                others,
                others.iter().map(of_row).collect(),
                format!("held-out loss less that of {} (nats)", first.name),
            )
        }
        false => {
            let losses = |row: &ReportRow| row.seeds.iter().filter_map(|seed| seed.loss).collect();
            let of_row = |row: &ReportRow| bar(row.loss, losses(row));
            (
                &report.rows,
                report.rows.iter().map(of_row).collect(),
                "held-out loss (nats)".to_owned(),
            )
        }
    };
    if bars.iter().all(Option::is_none) {
        return Ok(());
    }
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let title = match has_difference {
        true => format!("Held-out loss at the end, difference from {}", first.name),
        false => "Held-out loss at the end".to_owned(),
    };
    let group = Group {
        name: "mean, deviation and values of the seeds".to_owned(),
        bars,
        reference: None,
    };
    Ok(plot_groups(path, &title, &names, &[group], "", &label)?)
}
