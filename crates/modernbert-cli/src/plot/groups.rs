//! Bars in groups with their spread, such as scores of several runs.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

use super::file::draw_file;
use super::{
    COLOURS, Drawn, INK, LEGEND_ROWS, PlotError, SIZE, axis, headline, legend_places, text_style,
};

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// Half the length of the whisker, if there is one.
    pub spread: Option<f64>,
    /// The single values, drawn as dots.
    pub points: Vec<f64>,
}

/// Bars that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Label below the group.
    pub name: String,
    /// One per series; `None` leaves a gap.
    pub bars: Vec<Option<Bar>>,
    /// A value to compare with, drawn as a black line across the group.
    pub reference: Option<f64>,
}

/// Draws groups of bars into the PNG `path`, 1200 by 700 pixels. `series` names the bars of a group, `reference` the line across
/// it. The file appears complete or not at all.
///
/// # Errors
/// No finite value in any group, or a file that cannot be written.
pub fn plot_groups(
    path: &Path,
    title: &str,
    series: &[String],
    groups: &[Group],
    reference: &str,
    y_label: &str,
) -> Result<(), PlotError> {
    let bars = groups.iter().flat_map(|group| group.bars.iter().flatten());
    if !bars.clone().any(|bar| axis::is_drawable(bar.value)) {
        return Err(PlotError::Empty(path.to_owned()));
    }
    draw_file(path, SIZE, |pixels| {
        draw(pixels, title, series, groups, reference, y_label)
    })
}

fn draw<'a>(
    pixels: &'a mut [u8],
    title: &str,
    series: &[String],
    groups: &[Group],
    reference: &str,
    y_label: &str,
) -> Drawn<'a> {
    let root = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let colour = |i: usize| COLOURS[i % COLOURS.len()];
    let mut entries: Vec<(&str, RGBColor, bool)> = series
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), colour(i), false))
        .collect();
    if groups.iter().any(|group| group.reference.is_some()) {
        entries.push((reference, INK, false));
    }
    let (places, rows) = legend_places(&root, &entries, LEGEND_ROWS);
    let (head, body) = root.split_vertically(62 + 26 * rows);
    let title = headline(title, entries.len(), places.len());
    head.draw(&Text::new(title, (90, 20), text_style(24)))?;
    for ((name, colour, _), (x, row)) in entries.iter().zip(places) {
        let y = 66 + 26 * row;
        let line = vec![(x, y), (x + 36, y)];
        head.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        let style = text_style(17).pos(Pos::new(HPos::Left, VPos::Center));
        head.draw(&Text::new((*name).to_owned(), (x + 46, y), style))?;
    }

    let bars = groups.iter().flat_map(|group| group.bars.iter().flatten());
    let ends = bars.flat_map(|bar| {
        let spread = bar.spread.unwrap_or(0.0);
        let points = bar.points.iter().copied();
        points.chain([bar.value - spread, bar.value + spread, 0.0])
    });
    let ends = ends.chain(groups.iter().filter_map(|group| group.reference));
    let y_range = axis::range(ends.filter(|y| axis::is_drawable(*y)), 0.04);
    let y_ticks = axis::Ticks::over(&y_range, 10);
    let mut chart = ChartBuilder::on(&body)
        .margin_right(40)
        .margin_left(14)
        .x_label_area_size(50)
        .y_label_area_size(86)
        .build_cartesian_2d(0.0..groups.len() as f64, y_range.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(11)
        .max_light_lines(0)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(150, 150, 150))
        .label_style(text_style(16))
        .axis_desc_style(text_style(18))
        .y_label_formatter(&|y| y_ticks.label(*y))
        .y_desc(y_label)
        .draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for (g, group) in groups.iter().enumerate() {
        let left = g as f64 + 0.1;
        for (i, bar) in group.bars.iter().enumerate() {
            let Some(bar) = bar.as_ref().filter(|bar| axis::is_drawable(bar.value)) else {
                continue;
            };
            let (from, to) = (left + width * i as f64, left + width * (i as f64 + 0.92));
            let middle = (from + to) / 2.0;
            let shape = [(from, 0.0), (to, bar.value)];
            chart.draw_series([Rectangle::new(shape, colour(i).mix(0.55).filled())])?;
            if let Some(spread) = bar.spread.filter(|spread| axis::is_drawable(*spread)) {
                let whisker = vec![(middle, bar.value - spread), (middle, bar.value + spread)];
                chart.draw_series([PathElement::new(whisker, INK.stroke_width(2))])?;
            }
            let points = bar.points.iter().filter(|y| axis::is_drawable(**y));
            chart.draw_series(points.map(|&y| Circle::new((middle, y), 3, colour(i).filled())))?;
        }
        if let Some(y) = group.reference.filter(|y| axis::is_drawable(*y)) {
            let line = vec![(left - 0.04, y), (left + 0.84, y)];
            chart.draw_series([PathElement::new(line, INK.stroke_width(2))])?;
        }
        let below = chart.backend_coord(&(g as f64 + 0.5, y_range.start));
        let style = text_style(17).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(
            group.name.clone(),
            (below.0, below.1 + 10),
            style,
        ))?;
    }
    root.present()
}
