//! Welch's t-test of two groups of seeds, and Holm's correction for several tasks.

use crate::metrics::sample::{mean, variance};

/// A test of the difference of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Degrees of freedom (Welch and Satterthwaite).
    pub freedom: f64,
    /// Two-sided probability of a difference at least this large between groups with the same mean, whose variances may differ.
    pub p: f64,
}

/// Welch's two-sided t-test. `None` if a group has fewer than two values or both variances are 0: the deviation is then unknown.
pub fn welch(a: &[f64], b: &[f64]) -> Option<Welch> {
    // Variance of the mean.
    let error = |values: &[f64]| Some(variance(values)? / values.len() as f64);
    let (of_a, of_b) = (error(a)?, error(b)?);
    let both = of_a + of_b;
    if both <= 0.0 {
        return None;
    }
    let share = |error: f64, count: usize| error.powi(2) / (count - 1) as f64;
    let freedom = both.powi(2) / (share(of_a, a.len()) + share(of_b, b.len()));
    let t2 = (mean(a) - mean(b)).powi(2) / both;
    Some(Welch {
        freedom,
        p: incomplete_beta(freedom / (freedom + t2), 0.5 * freedom, 0.5),
    })
}

/// Holm's adjustment of the p-values of several tests, in the same order: it controls the probability of at least one false positive.
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&i, &j| ps[i].total_cmp(&ps[j]));
    let mut adjusted = vec![0.0; ps.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((ps[i] * (ps.len() - rank) as f64).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

/// The regularized incomplete beta function `I_x(a, b)`, by its continued fraction (Lentz's method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
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
    use super::*;

    /// Values of SciPy 1.17's `ttest_ind(equal_var=False)`.
    #[test]
    fn the_test_equals_scipys() {
        let cases: [(&[f64], &[f64], f64, f64); 4] = [
            (
                &[1.0, 2.0, 3.0],
                &[0.0, 2.828_427_124_746_190_3],
                1.342_465_753_424_657_8,
                0.753_250_225_397_868_1,
            ),
            (
                &[0.40, 0.42, 0.44],
                &[0.10, 0.12, 0.14],
                4.0,
                5.165_036_364_487_925e-5,
            ),
            (
                &[1.0, 2.0, 3.0, 4.0, 9.0],
                &[2.5, 2.5, 7.0],
                5.056_261_970_248_983,
                0.925_920_602_110_265_3,
            ),
            (
                &[76.4, 75.4, 76.6],
                &[18.9, 20.0, 18.6],
                3.927_476_457_265_461,
                7.482_485_225_147_743e-8,
            ),
        ];
        for (a, b, freedom, p) in cases {
            let found = welch(a, b).unwrap();
            assert!(
                (found.freedom - freedom).abs() < 1e-9 * freedom,
                "{found:?}"
            );
            assert!((found.p - p).abs() < 1e-9 * p, "{found:?} and {p}");
        }
        assert_eq!(welch(&[0.6, 0.6, 0.6], &[0.6, 0.61, 0.59]).unwrap().p, 1.0);
        assert_eq!(welch(&[1.0], &[2.0, 3.0]), None);
        assert_eq!(welch(&[1.0, 1.0], &[2.0, 2.0]), None);
    }

    #[test]
    fn holm_multiplies_by_the_tests_that_are_left() {
        assert_eq!(holm(&[0.03, 0.01, 0.04]), [0.06, 0.03, 0.06]);
        assert_eq!(holm(&[0.9, 0.5]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
