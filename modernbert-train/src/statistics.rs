//! Statistics of a few numbers: mean, deviation, Student's paired t-test.

/// The mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

/// The standard deviation of a sample (n - 1); `None` for fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let middle = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|x| (x - middle).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Student's paired t-test of the mean of differences against 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// The mean difference in units of its standard error.
    pub t: f64,
    /// Degrees of freedom: the number of pairs less one.
    pub freedom: usize,
    /// Two-sided probability of a mean at least this far from 0 where the true one is 0.
    pub p: f64,
}

/// Student's paired t-test of these differences, two-sided. `None` for fewer than two pairs, and where all differences are equal: their
/// deviation is then unknown.
pub fn paired_test(differences: &[f64]) -> Option<PairedTest> {
    let (mean, deviation) = (mean(differences)?, deviation(differences)?);
    if deviation <= 0.0 || !deviation.is_finite() {
        return None;
    }
    let t = mean / (deviation / (differences.len() as f64).sqrt());
    let freedom = differences.len() - 1;
    let n = freedom as f64;
    Some(PairedTest {
        t,
        freedom,
        p: incomplete_beta(n / (n + t * t), 0.5 * n, 0.5),
    })
}

/// The regularized incomplete beta function `I_x(a, b)`, by its continued fraction (Lentz's method).
pub fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast for `x` below the mean of the distribution; above the mean, `1 - I_(1-x)(b, a)` does.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let tiny = 1e-300;
    let kept = |value: f64| if value.abs() < tiny { tiny } else { value };
    let (mut c, mut d) = (1.0, 1.0 / kept(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / kept(1.0 + term * d);
            c = kept(1.0 + term / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// The logarithm of the gamma function for `x > 0` (Stirling's series, after a shift to `x >= 10`).
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
    ];
    let series = series
        .iter()
        .rev()
        .fold(0.0, |sum, term| sum * inverse + term)
        / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn means_and_deviations_are_those_of_a_sample() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(deviation(&[1.0, 2.0, 6.0]), Some(7f64.sqrt()));
        assert_eq!((deviation(&[4.0]), deviation(&[])), (None, None));
    }

    /// With one degree of freedom p is `1 - 2 atan(|t|) / π`, with two `1 - |t| / √(2 + t²)`.
    #[test]
    fn the_paired_test_equals_its_closed_forms() {
        // Mean 2, deviation √2, standard error 1.
        let two = paired_test(&[1.0, 3.0]).unwrap();
        assert!((two.t - 2.0).abs() < 1e-12 && two.freedom == 1, "{two:?}");
        let p = 1.0 - 2.0 * 2f64.atan() / std::f64::consts::PI;
        assert!((two.p - p).abs() < 1e-12, "{two:?} and {p}");
        // Mean 2, deviation 1, standard error 1/√3: t = 2√3.
        let three = paired_test(&[1.0, 2.0, 3.0]).unwrap();
        let t = 12f64.sqrt();
        assert!((three.t - t).abs() < 1e-12, "{three:?}");
        let p = 1.0 - t / (2.0 + t * t).sqrt();
        assert!((three.p - p).abs() < 1e-12, "{three:?} and {p}");
        let mirrored = paired_test(&[-1.0, -2.0, -3.0]).unwrap();
        assert_eq!((mirrored.t, mirrored.p), (-three.t, three.p));
        assert_eq!(paired_test(&[1.0, -1.0]).unwrap().p, 1.0);
    }

    /// With four degrees of freedom `p = 1 - 3/4 s (1 - t² / (12 (1 + t²/4)))`, `s = t / √(1 + t²/4)`; here t = 3√2 and p = 0.01324.
    #[test]
    fn the_paired_test_of_five_pairs_is_the_tabulated_one() {
        let found = paired_test(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let t = 18f64.sqrt();
        assert!((found.t - t).abs() < 1e-12, "{found:?}");
        let scale = 1.0 + t * t / 4.0;
        let p = 1.0 - 0.75 * t / scale.sqrt() * (1.0 - t * t / (12.0 * scale));
        assert!((found.p - p).abs() < 1e-12, "{found:?} and {p}");
        assert!((p - 0.013_236).abs() < 1e-5, "{p}");
        // Of three seeds that rise in the same direction: p of docs/runs/2026-11-30-ablations.md, which SciPy gives too.
        let found = paired_test(&[0.373, 0.400, 0.382]).unwrap();
        assert!((found.p - 0.0004).abs() < 5e-5, "{found:?}");
    }

    #[test]
    fn one_pair_and_equal_differences_have_no_test() {
        assert_eq!(paired_test(&[]), None);
        assert_eq!(paired_test(&[0.3]), None);
        assert_eq!(paired_test(&[0.0, 0.0, 0.0]), None);
        assert_eq!(paired_test(&[f64::NAN, 1.0]), None);
    }
}
