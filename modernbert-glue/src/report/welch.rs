//! Welch's t-test of two groups of seeds, and Holm's correction for several tasks.

use crate::metrics::sample::{mean, variance};
use modernbert_train::statistics::incomplete_beta;

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
