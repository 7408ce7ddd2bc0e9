//! Paired randomization test: the probability of a difference at least this large if both systems were equally good.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Up to this many differing queries all sign patterns are enumerated.
const EXACT_UP_TO: usize = 16;

/// Two systems compared on the same queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Queries that both systems answered.
    pub queries: usize,
    /// Mean of the second system's scores minus the mean of the first's.
    pub difference: f64,
    /// Queries on which the second system scores higher.
    pub better: usize,
    /// Queries on which it scores lower.
    pub worse: usize,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Number of sign patterns tried.
    pub patterns: usize,
    /// `true` if these are all patterns, `false` if they are a random sample.
    pub exact: bool,
}

/// Compares paired scores, one pair `(first, second)` per query.
///
/// Under the null hypothesis the sign of each query's difference is random, + or - with probability 1/2. The p-value is the share of sign patterns whose mean
/// difference is at least as large in magnitude as the observed one: over all patterns up to 16 differing queries, otherwise over
/// `samples` random patterns, the observed pattern included, so that the p-value is never 0.
pub fn compare(pairs: &[(f64, f64)], samples: usize, seed: u64) -> Comparison {
    let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
    let differing: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    // The sum of no differences is -0.
    let sum = differing.iter().fold(0.0, |sum, d| sum + d);
    // Rounding must not decide whether an equally large sum counts.
    let magnitude: f64 = differing.iter().map(|d| d.abs()).sum();
    let bar = sum.abs() - 1e-12 * magnitude;
    let exact = differing.len() <= EXACT_UP_TO;
    let (as_large, patterns) = if exact {
        let patterns = 1usize << differing.len();
        let as_large = (0..patterns).filter(|pattern| {
            let flipped = differing.iter().enumerate();
            let total: f64 = flipped
                .map(|(i, d)| if pattern >> i & 1 == 1 { -d } else { *d })
                .sum();
            total.abs() >= bar
        });
        (as_large.count(), patterns)
    } else {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut as_large = 1;
        for _ in 0..samples {
            let mut total = 0.0;
            for chunk in differing.chunks(64) {
                let signs: u64 = generator.random();
                for (i, d) in chunk.iter().enumerate() {
                    total += if signs >> i & 1 == 1 { -d } else { *d };
                }
            }
            as_large += usize::from(total.abs() >= bar);
        }
        (as_large, samples + 1)
    };
    Comparison {
        queries: pairs.len(),
        difference: if pairs.is_empty() {
            0.0
        } else {
            sum / pairs.len() as f64
        },
        better: differing.iter().filter(|&&d| d > 0.0).count(),
        worse: differing.iter().filter(|&&d| d < 0.0).count(),
        p_value: as_large as f64 / patterns as f64,
        patterns,
        exact,
    }
}
