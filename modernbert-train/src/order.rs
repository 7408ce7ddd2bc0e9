//! The order in which an epoch visits its samples.
//!
//! A pure function of `(seed, epoch)`: a resumed run, or another rank, computes the same order without being told. The
//! shuffle is written out here instead of taken from a library, because a library may change the numbers it draws
//! between versions, and because a biased shuffle once ruined ModernBERT's first training run (paper, appendix C.1).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What random numbers are drawn for; the same `(seed, epoch)` gives unrelated numbers for each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of the samples.
    Order = 1,
    /// Which tokens are masked.
    Mask = 2,
}

/// A generator that is a pure function of its key.
pub(crate) fn keyed_rng(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, value) in key
        .chunks_exact_mut(8)
        .zip([purpose as u64, seed, epoch, index])
    {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A number in `0..end`, every one exactly as likely (Lemire 2019, <https://arxiv.org/abs/1805.10941>).
///
/// `end` must not be 0.
pub(crate) fn below(rng: &mut impl Rng, end: u64) -> u64 {
    debug_assert!(end > 0);
    // 2^64 mod end: the products with a lower half below this are the ones that make some numbers likelier.
    let threshold = end.wrapping_neg() % end;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(end);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// The numbers `0..n` in the order in which `epoch` visits them.
pub fn epoch_order(n: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let mut rng = keyed_rng(Purpose::Order, seed, epoch, 0);
    let mut order: Vec<u32> = (0..n).collect();
    // Fisher-Yates.
    for last in (1..order.len()).rev() {
        let other = below(&mut rng, last as u64 + 1) as usize;
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depends_on_the_key_alone() {
        assert_eq!(epoch_order(1000, 7, 3), epoch_order(1000, 7, 3));
        assert_ne!(epoch_order(1000, 7, 3), epoch_order(1000, 7, 4));
        assert_ne!(epoch_order(1000, 7, 3), epoch_order(1000, 8, 3));
        assert!(epoch_order(0, 7, 3).is_empty());
        assert_eq!(epoch_order(1, 7, 3), [0]);
    }

    /// Runs that were started before must still be resumed in the same order.
    #[test]
    fn stays_the_same_from_version_to_version() {
        assert_eq!(epoch_order(8, 9176, 0), [0, 7, 5, 4, 6, 3, 2, 1]);
    }

    #[test]
    fn every_order_is_as_likely() {
        let epochs = 24_000;
        let mut seen = std::collections::HashMap::new();
        for epoch in 0..epochs {
            *seen.entry(epoch_order(4, 1, epoch)).or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        let expected = epochs as f64 / 24.0;
        let chi2: f64 = seen
            .values()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // 23 degrees of freedom: above 49.7 once in a thousand.
        assert!(chi2 < 49.7, "{chi2}");
    }

    proptest! {
        #[test]
        fn visits_each_sample_once(n in 0u32..500, seed: u64, epoch: u64) {
            let mut order = epoch_order(n, seed, epoch);
            order.sort_unstable();
            prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }
}
