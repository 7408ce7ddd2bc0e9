//! Ranges of axes and the text at their ticks.

use std::ops::Range;

/// Largest magnitude that is drawn.
const LARGEST: f64 = 1e30;

/// Returns true if a number can be a coordinate: finite, and small enough that sums and widths stay finite.
pub(super) fn is_drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= LARGEST
}

/// The range that holds all values, widened by `margin` of its width on both sides. Never empty: the range of a single value is widened too.
pub(super) fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 0.0..1.0;
    }
    let width = high - low;
    // Ticks of a narrower range would be lost in rounding, and those of denormal numbers don't advance.
    if width <= (low.abs().max(high.abs()) * 1e-9).max(1e-30) {
        let room = if low.abs() <= 1e-30 {
            1.0
        } else {
            low.abs() * 0.1
        };
        return low - room..high + room;
    }
    low - width * margin..high + width * margin
}

/// Format of the numbers along one axis: one unit and one number of decimals for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ticks {
    divisor: f64,
    unit: &'static str,
    decimals: usize,
}

impl Ticks {
    /// For about `count` ticks over `range`.
    pub(super) fn over(range: &Range<f64>, count: u32) -> Self {
        let largest = range.start.abs().max(range.end.abs());
        let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")];
        let (from, unit) = units
            .into_iter()
            .find(|(from, _)| largest >= *from)
            .unwrap_or((1.0, ""));
        let divisor = if unit == "k" { 1e3 } else { from };
        let step = (range.end - range.start) / divisor / f64::from(count);
        // A step of 0.2 or 0.25 needs up to two decimals, one of 20 none.
        let decimals = (-step.max(1e-12).log10() + 0.7).ceil().clamp(0.0, 9.0) as usize;
        Self {
            divisor,
            unit,
            decimals,
        }
    }

    /// The text at `value`: `1.2M`, `0.05`, `-3`.
    pub(super) fn label(&self, value: f64) -> String {
        let scaled = value / self.divisor;
        let number = format!("{scaled:.*}", self.decimals);
        if number
            .trim_start_matches('-')
            .chars()
            .all(|c| "0.".contains(c))
        {
            return "0".to_owned();
        }
        let short = if self.decimals > 0 {
            number.trim_end_matches('0').trim_end_matches('.')
        } else {
            &number
        };
        format!("{short}{}", self.unit)
    }
}
