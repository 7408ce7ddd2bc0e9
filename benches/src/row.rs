//! Results as rows of a table and as JSON.

use serde::Serialize;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the set of documents, or of the model's shape.
    pub set: String,
    /// Name of the operation.
    pub op: String,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Wall-clock milliseconds of one pass over the set.
    pub ms: f64,
    /// Tokens (padding not counted) per second.
    pub tok_s: f64,
    /// FLOP of the model's formula (a multiply-add counts as two) per second, in 10¹².
    pub tflops: f64,
    /// Minimal memory traffic per second, in 10⁹ bytes, for memory-bound operations.
    pub gbs: Option<f64>,
    /// Peak memory so far, in MiB: of the process on a CPU, of the device's memory pools otherwise.
    pub peak_mib: Option<f64>,
    /// CPU milliseconds of all threads together; more reliable than `ms` on a shared machine.
    pub cpu_ms: Option<f64>,
}

/// Returns the heading of the table whose lines [`Row::line`] returns.
pub fn heading() -> String {
    format!(
        "{:<14} {:<10} {:<8} {:>11} {:>11} {:>9} {:>8} {:>9} {:>11}",
        "set", "op", "pass", "ms", "tok/s", "TFLOP/s", "GB/s", "MiB", "cpu ms"
    )
}

impl Row {
    /// Returns the row as a line of the table.
    pub fn line(&self) -> String {
        let optional = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
        };
        format!(
            "{:<14} {:<10} {:<8} {:>11.2} {:>11.1} {:>9.3} {:>8} {:>9} {:>11}",
            self.set,
            self.op,
            self.pass,
            self.ms,
            self.tok_s,
            self.tflops,
            optional(self.gbs),
            optional(self.peak_mib),
            optional(self.cpu_ms)
        )
    }
}

/// Returns the median; of an even number of values the lower of the middle two.
///
/// # Panics
/// If there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
    }
}
