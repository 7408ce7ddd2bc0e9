//! Several small plots in one PNG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

use super::file::draw_file;
use super::{COLOURS, Drawn, PlotError, SIZE, Series, axis, headline, legend_places, text_style};

/// One small plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Title above the panel.
    pub title: String,
    /// Its curves. Curves of one name have one colour, on this panel and on the others.
    pub series: Vec<Series>,
}

/// Height of a row of panels.
const ROW: u32 = 320;
const COLUMNS: usize = 3;
/// Height of title and legend above the panels.
pub(super) const HEAD: u32 = 110;
/// Number of lines of the legend that are above the panels; further entries are counted.
pub(super) const LEGEND_ROWS: i32 = 2;

/// Draws panels into the PNG `path`, up to three in a row of 1200 by 320 pixels. The file appears complete or not at all.
///
/// # Errors
/// No finite point in any panel, or a file that cannot be written.
pub fn plot_panels(
    path: &Path,
    title: &str,
    panels: &[Panel],
    x_label: &str,
) -> Result<(), PlotError> {
    let all = || panels.iter().flat_map(|panel| &panel.series);
    if all().all(|series| series.drawable().is_empty()) {
        return Err(PlotError::Empty(path.to_owned()));
    }
    let mut names: Vec<&str> = Vec::new();
    for series in all() {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    draw_file(path, grid(panels.len()).2, |pixels| {
        draw(pixels, title, panels, &names, x_label)
    })
}

/// Columns and rows for this many panels, and the size of the plot in pixels.
fn grid(panels: usize) -> (usize, u32, (u32, u32)) {
    let columns = panels.clamp(1, COLUMNS);
    let rows = panels.div_ceil(columns).max(1) as u32;
    (columns, rows, (SIZE.0, HEAD + ROW * rows))
}

pub(super) fn draw<'a>(
    pixels: &'a mut [u8],
    title: &str,
    panels: &[Panel],
    names: &[&str],
    x_label: &str,
) -> Drawn<'a> {
    let (columns, rows, size) = grid(panels.len());
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    let colour = |name: &str| {
        let i = names.iter().position(|known| *known == name).unwrap_or(0);
        COLOURS[i % COLOURS.len()]
    };
    let entries: Vec<(&str, RGBColor, bool)> = names
        .iter()
        .map(|name| (*name, colour(name), false))
        .collect();
    let (places, _) = legend_places(&root, &entries, LEGEND_ROWS);
    let (head, body) = root.split_vertically(HEAD);
    let title = headline(title, entries.len(), places.len());
    head.draw(&Text::new(title, (90, 20), text_style(24)))?;
    for ((name, colour, _), (x, row)) in entries.iter().zip(places) {
        let y = 66 + 26 * row;
        let line = vec![(x, y), (x + 36, y)];
        head.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        let style = text_style(17).pos(Pos::new(HPos::Left, VPos::Center));
        head.draw(&Text::new((*name).to_owned(), (x + 46, y), style))?;
    }
    for (area, panel) in body
        .split_evenly((rows as usize, columns))
        .iter()
        .zip(panels)
    {
        let points: Vec<_> = panel.series.iter().map(Series::drawable).collect();
        if points.iter().all(Vec::is_empty) {
            continue;
        }
        let (top, plot) = area.split_vertically(34);
        let style = text_style(19).pos(Pos::new(HPos::Left, VPos::Top));
        top.draw(&Text::new(panel.title.clone(), (70, 8), style))?;
        let x_range = axis::range(points.iter().flatten().map(|p| p.0), 0.0);
        let y_range = axis::range(points.iter().flatten().map(|p| p.1), 0.06);
        let x_ticks = axis::Ticks::over(&x_range, 5);
        let y_ticks = axis::Ticks::over(&y_range, 5);
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(24)
            .margin_bottom(12)
            .margin_left(6)
            .x_label_area_size(46)
            .y_label_area_size(58)
            .build_cartesian_2d(x_range, y_range)?;
        chart
            .configure_mesh()
            .x_labels(5)
            .y_labels(6)
            .max_light_lines(0)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(150, 150, 150))
            .label_style(text_style(14))
            .axis_desc_style(text_style(14))
            .x_label_formatter(&|x| x_ticks.label(*x))
            .y_label_formatter(&|y| y_ticks.label(*y))
            .x_desc(x_label)
            .draw()?;
        for (series, points) in panel.series.iter().zip(points) {
            let colour = colour(&series.name);
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 2, colour.filled())))?;
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        }
    }
    root.present()
}
