//! Correlations between two lists of numbers.
//!
//! `None` where SciPy gives NaN or refuses: fewer than two points, lengths that differ, a constant list, a NaN.

/// Pearson's linear correlation, from -1 to 1.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 || is_constant(x) || is_constant(y) {
        return None;
    }
    let (x, y) = (normalized(x), normalized(y));
    let r: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding can exceed the range by the last digit; the clamp keeps NaN.
    Some(r.clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

/// Spearman's rank correlation: Pearson's of the [`ranks`].
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}

/// The rank of each value, from 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        // Ranks before + 1 ..= before + n.
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|i| ranks[*i] = rank);
        before += equal.len();
    }
    ranks
}

fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// Centred on 0 and scaled to length 1.
fn normalized(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let length = centred
        .iter()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    centred.iter().map(|value| value / length).collect()
}
