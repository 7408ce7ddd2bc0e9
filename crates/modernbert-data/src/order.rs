//! The order in which an epoch visits its samples.
//!
//! A pure function of `(seed, epoch)`: a resumed run, or another rank, computes the same order without communication. The
//! shuffle is written out here instead of taken from a library, because a library may change the numbers it draws
//! between versions, and because a biased shuffle once ruined ModernBERT's first training run (paper, appendix C.1).

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Purpose of random numbers; the same `(seed, epoch)` gives unrelated numbers for each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of the samples.
    Order = 1,
    /// Choice of the masked tokens.
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

/// The order of one epoch over any number of samples, computed for one position at a time.
///
/// Up to [`TABLE_LIMIT`] samples it is [`epoch_order`], an exact Fisher–Yates shuffle in a table. Beyond that, where a table would
/// take gigabytes, it is a keyed permutation computed at each place: a Feistel network of eight rounds on the next larger
/// power of four, applied repeatedly until the result is below `n` (cycle walking, Black and Rogaway 2002), which is a bijection by
/// construction and indistinguishable from a random one.
#[derive(Debug, Clone)]
pub struct EpochOrder {
    n: u64,
    kind: OrderKind,
}

#[derive(Debug, Clone)]
enum OrderKind {
    Table(Arc<[u32]>),
    Feistel { half_bits: u32, keys: [u64; ROUNDS] },
}

/// More samples than this are shuffled without a table: 64 MiB of it.
pub const TABLE_LIMIT: u64 = 1 << 24;
/// Twice what makes a Feistel network indistinguishable from a random permutation by chosen queries (Luby and Rackoff 1988).
const ROUNDS: usize = 8;

impl EpochOrder {
    /// The order in which `epoch` visits `0..n`. `stream` tells several orders of one seed apart: those of a mixture's sources.
    pub fn new(n: u64, seed: u64, epoch: u64, stream: u64) -> Self {
        let kind = if n <= TABLE_LIMIT {
            OrderKind::Table(shuffled(n as u32, seed, epoch, stream).into())
        } else {
            Self::feistel(n, seed, epoch, stream)
        };
        Self { n, kind }
    }

    fn feistel(n: u64, seed: u64, epoch: u64, stream: u64) -> OrderKind {
        let mut rng = keyed_rng(Purpose::Order, seed, epoch, stream);
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        OrderKind::Feistel {
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| rng.next_u64()),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The sample visited at `place`.
    ///
    /// # Panics
    /// If `place` is not below [`Self::len`].
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.n, "place {place} of {}", self.n);
        match &self.kind {
            OrderKind::Table(order) => u64::from(order[place as usize]),
            OrderKind::Feistel { half_bits, keys } => {
                let mut x = place;
                loop {
                    x = feistel(x, *half_bits, keys);
                    if x < self.n {
                        return x;
                    }
                }
            }
        }
    }
}

/// One pass through the network: a permutation of `0..2^(2 half_bits)` for any round function.
fn feistel(x: u64, half_bits: u32, keys: &[u64; ROUNDS]) -> u64 {
    let mask = (1u64 << half_bits) - 1;
    let (mut left, mut right) = (x >> half_bits, x & mask);
    for key in keys {
        (left, right) = (right, left ^ (mix(right ^ key) & mask));
    }
    (left << half_bits) | right
}

/// A bijection of 64 bits in which every bit of the input changes every bit of the output (the finalizer of SplitMix64, Steele,
/// Lea and Flood 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The numbers `0..n` in the order in which `epoch` visits them.
pub fn epoch_order(n: u32, seed: u64, epoch: u64) -> Vec<u32> {
    shuffled(n, seed, epoch, 0)
}

fn shuffled(n: u32, seed: u64, epoch: u64, stream: u64) -> Vec<u32> {
    let mut rng = keyed_rng(Purpose::Order, seed, epoch, stream);
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

    #[test]
    fn small_orders_are_the_table() {
        let order = EpochOrder::new(1000, 7, 3, 0);
        let found: Vec<u32> = (0..1000).map(|place| order.at(place) as u32).collect();
        assert_eq!(found, epoch_order(1000, 7, 3));
        let other = EpochOrder::new(1000, 7, 3, 1);
        assert!((0..1000).any(|place| other.at(place) != order.at(place)));
    }

    /// A network on a small domain, checked exhaustively: each number once, with cycle walking.
    #[test]
    fn the_network_is_a_bijection() {
        for n in [2u64, 3, 5, 64, 1000, 4096, 4097] {
            let order = EpochOrder {
                n,
                kind: EpochOrder::feistel(n, 9, 4, 0),
            };
            let mut seen: Vec<u64> = (0..n).map(|place| order.at(place)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>(), "{n}");
        }
    }

    /// A sample of a billion: no number twice, all in range, and the numbers at the first positions are uniform, unlike
    /// those of a biased shuffle.
    #[test]
    fn a_billion_samples_are_shuffled_without_bias() {
        let n = 1_000_000_000u64;
        let order = EpochOrder::new(n, 9176, 0, 0);
        let mut seen: Vec<u64> = (0..200_000).map(|i| order.at(i * (n / 200_000))).collect();
        assert!(seen.iter().all(|&x| x < n));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 200_000);

        // 64 cells of the numbers at the first 64 000 places.
        let chi2 = |values: &mut dyn Iterator<Item = u64>, cells: usize, end: u64| {
            let mut counts = vec![0u32; cells];
            let mut total = 0.0;
            for value in values {
                counts[(u128::from(value) * cells as u128 / u128::from(end)) as usize] += 1;
                total += 1.0;
            }
            let expected = total / cells as f64;
            counts
                .iter()
                .map(|&count| (f64::from(count) - expected).powi(2) / expected)
                .sum::<f64>()
        };
        // 63 degrees of freedom: above 103.4 once in a thousand.
        let early = chi2(&mut (0..64_000).map(|place| order.at(place)), 64, n);
        assert!(early < 103.4, "{early}");
        // Differences of successive positions, modulo n, are uniform.
        let steps = chi2(
            &mut (0..64_000).map(|place| (order.at(place + 1) + n - order.at(place)) % n),
            64,
            n,
        );
        assert!(steps < 103.4, "{steps}");
        // The number at the first place over many epochs.
        let first = chi2(
            &mut (0..6400).map(|epoch| EpochOrder::new(n, 9176, epoch, 0).at(0)),
            64,
            n,
        );
        assert!(first < 103.4, "{first}");
        let again = EpochOrder::new(n, 9176, 0, 0);
        assert!((0..100).all(|place| again.at(place) == order.at(place)));
        assert_ne!(EpochOrder::new(n, 9176, 1, 0).at(0), order.at(0));
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
