//! Sums over ranks, on the CPU and through host memory.

use super::transport::{GradientSum, Host, SumOrder};
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use ranks::{ConnectOptions, Ranks, World, tree};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

/// Pseudo-random numbers of very different sizes, whose sum depends on the order of addition.
fn leaf(index: usize, length: usize) -> Vec<f32> {
    let mut state = index as u64 + 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 - 8_388_608.0) * f32::powi(2.0, (state >> 33 & 15) as i32)
    };
    (0..length).map(|_| next()).collect()
}

/// Bits of the sum of `leaves` leaves of `length` numbers that each rank receives.
fn sums(leaves: usize, length: usize, size: usize, order: SumOrder) -> Vec<Vec<u32>> {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let work = |rank: usize| {
        let world = World {
            rank,
            size,
            local_rank: rank,
            port,
            ..World::single()
        };
        let ranks = Ranks::connect(&world, &[], &ConnectOptions::default()).unwrap();
        let device = Device::default();
        // Three pieces, whose ends are not those of the ranks' shares.
        let lengths = [1, length - 3, 2];
        let pieces = |numbers: Vec<f32>| -> Vec<Tensor<1>> {
            let vector = Tensor::<1>::from_data(TensorData::new(numbers, [length]), &device);
            vector.split_with_sizes(lengths.to_vec(), 0)
        };
        let own = tree::range_of_rank(leaves, rank, size);
        let mut accumulator = tree::Accumulator::new(leaves, &own);
        for index in own {
            accumulator.push(pieces(leaf(index, length)), |left, right| {
                let both = left.into_iter().zip(right);
                both.map(|(left, right)| left + right).collect()
            });
        }
        let parts = accumulator.finish();
        let gradients = GradientSum::new(Arc::new(Host), order);
        let sum = gradients.sum(&ranks, leaves, parts, (&lengths, &device));
        let sum = Tensor::cat(sum.unwrap(), 0);
        let numbers = sum.try_into_vec_as::<f32>().unwrap();
        numbers.into_iter().map(f32::to_bits).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| scope.spawn(move || work(rank)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_sum_has_the_same_bits_on_any_number_of_ranks(leaves in 1usize..20, length in 4usize..40) {
        let one = sums(leaves, length, 1, SumOrder::Tree).swap_remove(0);
        for size in 2..=4 {
            let found = sums(leaves, length, size, SumOrder::Tree);
            prop_assert!(found.iter().all(|sum| *sum == one), "{leaves} leaves, {size} ranks");
        }
    }
}

#[test]
fn the_order_of_addition_matters() {
    // Otherwise the test above could not fail.
    let add =
        |a: Vec<f32>, b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let one_by_one = (1..8).fold(leaf(0, 40), |sum, index| add(sum, &leaf(index, 40)));
    let bits: Vec<u32> = one_by_one.into_iter().map(f32::to_bits).collect();
    assert_ne!(sums(8, 40, 1, SumOrder::Tree)[0], bits);
}

#[test]
fn the_library_order_gives_every_rank_the_same_sum() {
    let (leaves, length) = (6, 17);
    let expected = (1..leaves).fold(leaf(0, length), |sum, index| {
        sum.iter()
            .zip(leaf(index, length))
            .map(|(a, b)| a + b)
            .collect()
    });
    let found = sums(leaves, length, 3, SumOrder::Library);
    assert!(found.iter().all(|sum| *sum == found[0]));
    for (bits, expected) in found[0].iter().zip(expected) {
        let error = (f32::from_bits(*bits) - expected).abs();
        assert!(
            error <= 1e-5 * expected.abs().max(1e9),
            "{error} of {expected}"
        );
    }
}
