//! Curves as a PNG, such as loss over tokens.
//!
//! Title and legend are above the plot, so that they never cover a curve. The font is built in;
//! nothing has to be installed.

mod axis;
mod file;
mod groups;
mod panels;
#[cfg(test)]
mod tests;

pub use file::is_own_picture;
pub use groups::{Bar, Group, plot_groups};
pub use panels::{Panel, plot_panels};

use modernbert_files::output::space_remedy;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Muted colors of reference lines.
const MUTED: [RGBColor; 3] = [
    RGBColor(120, 120, 120),
    RGBColor(150, 100, 70),
    RGBColor(110, 120, 50),
];

const SIZE: (u32, u32) = (1200, 700);
/// Largest number of points that are drawn as dots too; a single point would be invisible otherwise.
const MARKED: usize = 60;
const INK: RGBColor = RGBColor(40, 40, 40);

/// Okabe and Ito's palette without yellow: distinguishable with every kind of color vision, dark enough for thin lines on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, by rising x. Points that are not finite, or beyond ±1e30, are left out.
    pub points: Vec<(f64, f64)>,
    /// Factor on the weight of a neighbor for each step of distance from the averaged point, 0 to 1, such as 0.95: draws the points thin
    /// and pale, and their average bold over them. `None` draws the points without an average.
    pub smoothing: Option<f64>,
}

impl Series {
    /// A curve without smoothing.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            smoothing: None,
        }
    }

    /// The same curve, thin, with its moving average over it; see [`Series::smoothing`].
    #[must_use]
    pub fn smoothed(self, weight: f64) -> Self {
        Self {
            smoothing: Some(weight),
            ..self
        }
    }

    /// The points that can be drawn: finite ones within ±1e30. Beyond that the width of an axis overflows.
    pub fn drawable(&self) -> Vec<(f64, f64)> {
        let drawable = |(x, y): &&(f64, f64)| axis::is_drawable(*x) && axis::is_drawable(*y);
        self.points.iter().filter(drawable).copied().collect()
    }
}

/// Reason why a plot can't be written.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// No series has a point that can be drawn.
    #[error("{path}: there is nothing to draw; no series has a finite point within 1e30", path = .0.display())]
    Empty(PathBuf),
    /// Another process wrote the file meanwhile.
    #[error(
        "{path}: another process wrote it while the picture was drawn; draw again, or give another file", path = .0.display()
    )]
    Changed(PathBuf),
    /// The file could not be written.
    #[error("{path}: {source}{remedy}", path = path.display(), remedy = space_remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The drawing library failed.
    #[error("{path}: {message}", path = path.display())]
    Draw {
        /// The file.
        path: PathBuf,
        /// Its message.
        message: String,
    },
}

/// The points with y averaged over neighbors in both directions, whose weights fall by `weight` with each step of distance. The symmetric
/// average does not lag behind a falling curve; near the ends it has fewer neighbors.
fn moving_average(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let weight = weight.clamp(0.0, 0.999);
    let average = |(i, &(x, y)): (usize, &(f64, f64))| {
        let (mut share, mut sum, mut met) = (weight, y, 1.0);
        for (before, after) in points[..i].iter().rev().zip(&points[i + 1..]) {
            if share < 0.01 {
                break;
            }
            sum += share * (before.1 + after.1);
            met += share * 2.0;
            share *= weight;
        }
        (x, sum / met)
    };
    points.iter().enumerate().map(average).collect()
}

/// Makes Hack the font of all text, once. `false` if the font was refused.
fn font_is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        register_font(
            "sans-serif",
            FontStyle::Normal,
            epaint_default_fonts::HACK_REGULAR,
        )
        .is_ok()
    })
}

/// Draws the series into the PNG `path`, 1200 by 700 pixels; `references` are horizontal dashed lines, each a name and its y.
/// The file appears complete or not at all.
///
/// # Errors
/// No finite point in any series, or a file that cannot be written.
pub fn plot_curves(
    path: &Path,
    title: &str,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    references: &[(&str, f64)],
) -> Result<(), PlotError> {
    if series.iter().all(|s| s.drawable().is_empty()) {
        return Err(PlotError::Empty(path.to_owned()));
    }
    let references: Vec<_> = references
        .iter()
        .filter(|r| axis::is_drawable(r.1))
        .copied()
        .collect();
    file::draw_file(path, SIZE, |pixels| {
        draw(pixels, title, series, x_label, y_label, &references)
    })
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;
type Drawn<'a, T = ()> =
    Result<T, DrawingAreaErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>>;

/// One entry of the legend: name, color, dashed or not.
type Entry<'a> = (&'a str, RGBColor, bool);

fn text_style<'a>(size: u32) -> TextStyle<'a> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Largest number of lines of a legend; further entries are counted.
const LEGEND_ROWS: i32 = 8;

/// Places the legend's entries: left edge and row of each that fits into `most` rows, and the number of rows.
fn legend_places(root: &Area<'_>, entries: &[Entry<'_>], most: i32) -> (Vec<(i32, i32)>, i32) {
    let (mut x, mut row) = (90, 0);
    let mut places = Vec::new();
    for (name, ..) in entries {
        let text = root
            .estimate_text_size(name, &text_style(17))
            .map_or(0, |size| size.0 as i32);
        let width = 46 + text + 34;
        if x > 90 && x + width > SIZE.0 as i32 - 30 {
            (x, row) = (90, row + 1);
        }
        if row == most {
            return (places, row);
        }
        places.push((x, row));
        x += width;
    }
    (places, row + 1)
}

/// The title, with the number of entries that do not fit into the legend.
fn headline(title: &str, entries: usize, placed: usize) -> String {
    match entries - placed {
        0 => title.to_owned(),
        more => format!("{title} (and {more} more)"),
    }
}

fn draw<'a>(
    pixels: &'a mut [u8],
    title: &str,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    references: &[(&str, f64)],
) -> Drawn<'a> {
    let root = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let colour = |i: usize| COLOURS[i % COLOURS.len()];
    let muted = |i: usize| MUTED[i % MUTED.len()];
    let mut entries: Vec<Entry<'_>> = series
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.as_str(), colour(i), false))
        .collect();
    let dashed = references
        .iter()
        .enumerate()
        .map(|(i, (name, _))| (*name, muted(i), true));
    entries.extend(dashed);

    let (places, rows) = legend_places(&root, &entries, LEGEND_ROWS);
    let (head, body) = root.split_vertically(62 + 26 * rows);
    let title = headline(title, entries.len(), places.len());
    head.draw(&Text::new(title, (90, 20), text_style(24)))?;
    for ((name, colour, dashed), (x, row)) in entries.iter().zip(places) {
        let y = 66 + 26 * row;
        let pieces = if *dashed {
            vec![(0, 8), (14, 22), (28, 36)]
        } else {
            vec![(0, 36)]
        };
        for (from, to) in pieces {
            let line = vec![(x + from, y), (x + to, y)];
            head.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        }
        head.draw(&Text::new(
            (*name).to_owned(),
            (x + 46, y),
            text_style(17).pos(Pos::new(HPos::Left, VPos::Center)),
        ))?;
    }

    let points: Vec<_> = series.iter().map(Series::drawable).collect();
    let xs = points.iter().flatten().map(|p| p.0);
    let ys = points
        .iter()
        .flatten()
        .map(|p| p.1)
        .chain(references.iter().map(|r| r.1));
    let (x_range, y_range) = (axis::range(xs, 0.0), axis::range(ys, 0.04));
    let (x_ticks, y_ticks) = (
        axis::Ticks::over(&x_range, 10),
        axis::Ticks::over(&y_range, 8),
    );
    let mut chart = ChartBuilder::on(&body)
        .margin_right(40)
        .margin_bottom(12)
        .margin_left(14)
        .x_label_area_size(58)
        .y_label_area_size(86)
        .build_cartesian_2d(x_range.clone(), y_range)?;
    chart
        .configure_mesh()
        .x_labels(11)
        .y_labels(9)
        .max_light_lines(0)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(150, 150, 150))
        .label_style(text_style(16))
        .axis_desc_style(text_style(18))
        .x_label_formatter(&|x| x_ticks.label(*x))
        .y_label_formatter(&|y| y_ticks.label(*y))
        .x_desc(x_label)
        .y_desc(y_label)
        .draw()?;
    for (i, (_, y)) in references.iter().enumerate() {
        let ends = [(x_range.start, *y), (x_range.end, *y)];
        chart.draw_series(DashedLineSeries::new(ends, 8, 6, muted(i).stroke_width(2)))?;
    }
    for (i, (one, points)) in series.iter().zip(&points).enumerate() {
        let (thin, bold) = (
            colour(i).mix(0.3).stroke_width(1),
            colour(i).stroke_width(3),
        );
        let line = match one.smoothing {
            Some(weight) => {
                chart.draw_series(LineSeries::new(points.iter().copied(), thin))?;
                moving_average(points, weight)
            }
            None => points.clone(),
        };
        if line.len() == 1 || one.smoothing.is_none() && line.len() <= MARKED {
            let mark = |point: &(f64, f64)| Circle::new(*point, 4, colour(i).filled());
            chart.draw_series(line.iter().map(mark))?;
        }
        chart.draw_series(LineSeries::new(line, bold))?;
    }
    root.present()
}
