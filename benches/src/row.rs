//! Results as rows of a table and as JSON.

use serde::Serialize;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which documents.
    pub set: String,
    /// What was computed.
    pub op: String,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Milliseconds of one pass over the set, by the clock.
    pub ms: f64,
    /// Tokens (padding not counted) per second.
    pub tok_s: f64,
    /// Operations of the model's formula (a multiply-add counts as two) per second, in 10¹².
    pub tflops: f64,
    /// Least memory traffic per second, in 10⁹ bytes, where that is what limits the operation.
    pub gbs: Option<f64>,
    /// Most memory held so far, in MiB: of the process on a CPU, of the device's pools elsewhere.
    pub peak_mib: Option<f64>,
    /// Milliseconds of processor time of all threads together: says more than `ms` where the machine is shared.
    pub cpu_ms: Option<f64>,
}

/// The head of the table that [`Row::line`] fills.
pub fn heading() -> String {
    format!(
        "{:<14} {:<10} {:<8} {:>11} {:>11} {:>9} {:>8} {:>9} {:>11}",
        "set", "op", "pass", "ms", "tok/s", "TFLOP/s", "GB/s", "MiB", "cpu ms"
    )
}

impl Row {
    /// The row as a line of the table.
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

/// The middle one of some measurements; the lower of the two in the middle where their number is even.
///
/// # Panics
/// Without any measurement.
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
