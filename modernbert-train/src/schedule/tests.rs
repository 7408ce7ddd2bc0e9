#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const TOTAL: u64 = 1_000_000;

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
}

fn trapezoid(decay: DecayShape, final_fraction: f64) -> Schedule {
    Schedule::WarmupStableDecay {
        warmup_tokens: TokenSpan::Tokens(100_000),
        decay_tokens: TokenSpan::Fraction(0.4),
        decay,
        final_fraction,
    }
}

#[test]
fn one_minus_sqrt_golden_values() {
    let schedule = Schedule::OneMinusSqrt {
        decay_tokens: TokenSpan::Fraction(1.0),
        final_fraction: 0.001,
    };
    let golden = [
        (10_000, 0.9001),
        (100_000, 0.684088),
        (250_000, 0.5005),
        (500_000, 0.293600),
        (750_000, 0.134841),
        (900_000, 0.052265),
        (1_000_000, 0.001),
        (2_000_000, 0.001),
    ];
    for (tokens, expected) in golden {
        near(schedule.factor(tokens, TOTAL), expected);
    }
    // The published last phase: 3e-4 decays to 3e-7 over 50e9 tokens.
    near(3e-4 * schedule.factor(50_000_000_000, 50_000_000_000), 3e-7);
}

#[test]
fn the_trapezoid_rises_stays_and_falls() {
    let schedule = trapezoid(DecayShape::OneMinusSqrt, 0.0);
    assert_eq!(schedule.factor(0, TOTAL), 1e-10);
    near(schedule.factor(50_000, TOTAL), 0.5);
    for tokens in [100_000, 350_000, 600_000] {
        assert_eq!(schedule.factor(tokens, TOTAL), 1.0);
    }
    near(schedule.factor(700_000, TOTAL), 0.5);
    near(schedule.factor(999_999, TOTAL), 1.25e-6);
    assert_eq!(schedule.factor(TOTAL, TOTAL), 0.0);
    assert_eq!(schedule.factor(u64::MAX, TOTAL), 0.0);
    near(
        trapezoid(DecayShape::Linear, 0.2).factor(800_000, TOTAL),
        0.6,
    );
}

#[test]
fn without_decay_the_plateau_has_no_end() {
    let phase_one = Schedule::WarmupStableDecay {
        warmup_tokens: TokenSpan::Tokens(3_000_000_000),
        decay_tokens: TokenSpan::Tokens(0),
        decay: DecayShape::Linear,
        final_fraction: 0.0,
    };
    let total = 1_719_000_000_000;
    near(phase_one.factor(1_500_000_000, total), 0.5);
    assert_eq!(phase_one.factor(total, total), 1.0);
}

#[test]
fn linear_and_constant() {
    let linear = Schedule::LinearWithWarmup {
        warmup_tokens: TokenSpan::Fraction(0.06),
        final_fraction: 0.02,
    };
    near(linear.factor(30_000, TOTAL), 0.5);
    near(linear.factor(60_000, TOTAL), 1.0);
    near(linear.factor(530_000, TOTAL), 0.51);
    near(linear.factor(TOTAL, TOTAL), 0.02);
    let constant = Schedule::Constant {
        warmup_tokens: TokenSpan::Tokens(10),
    };
    assert_eq!(
        [0, 5, 10, TOTAL].map(|t| constant.factor(t, TOTAL)),
        [0.0, 0.5, 1.0, 1.0]
    );
    assert_eq!(Schedule::default().factor(0, 0), 1.0);
}

/// The second phase of the table (context extension): constant, without warmup.
#[test]
fn constant_without_warmup_is_the_peak_everywhere() {
    let constant = Schedule::Constant {
        warmup_tokens: TokenSpan::default(),
    };
    for tokens in [0, 1, TOTAL / 3, TOTAL - 1, TOTAL, u64::MAX] {
        assert_eq!(constant.factor(tokens, TOTAL), 1.0);
    }
}

fn inverse_sqrt() -> Schedule {
    Schedule::CosineInverseSqrt {
        warmup_tokens: TokenSpan::Tokens(100_000),
        cosine_tokens: TokenSpan::Tokens(200_000),
        cosine_floor: 0.1,
        decay_tokens: TokenSpan::Tokens(250_000),
        decay: DecayShape::Linear,
        final_fraction: 0.02,
    }
}

/// Values by Python's `math`, from the formulas of the variants' docs.
#[test]
fn cosine_golden_values() {
    let cosine = Schedule::CosineWithWarmup {
        warmup_tokens: TokenSpan::Tokens(200_000),
        final_fraction: 0.1,
    };
    for (tokens, expected) in [
        (100_000, 0.5),
        (200_000, 1.0),
        (400_000, 0.868_198_051_5),
        (600_000, 0.55),
        (800_000, 0.231_801_948_5),
        (1_000_000, 0.1),
        (1_500_000, 0.1),
    ] {
        near(cosine.factor(tokens, TOTAL), expected);
    }
    let schedule = inverse_sqrt();
    for (tokens, expected) in [
        (50_000, 0.5),
        (100_000, 1.0),
        (200_000, 0.868_198_051_5),
        (300_000, 0.55),
        (400_000, 0.363_831_977_9),
        (700_000, 0.221_947_694_5),
        (1_000_000, 0.004_223_469_9),
    ] {
        near(schedule.factor(tokens, TOTAL), expected);
    }
}

#[test]
fn the_inverse_square_root_joins_the_cosine_with_its_slope() {
    let schedule = inverse_sqrt();
    let slope = |from: u64| schedule.factor(from + 100, TOTAL) - schedule.factor(from, TOTAL);
    for joint in [100_000, 300_000, 750_000] {
        let jump = schedule.factor(joint, TOTAL) - schedule.factor(joint - 1, TOTAL);
        assert!(jump.abs() < 2e-5, "{joint}: {jump}");
    }
    let (before, after) = (slope(299_900), slope(300_000));
    assert!((before / after - 1.0).abs() < 2e-3, "{before} {after}");
    assert!(schedule.check(TOTAL).is_ok());
    let check = |cosine_tokens, cosine_floor| {
        let Schedule::CosineInverseSqrt {
            warmup_tokens,
            decay_tokens,
            decay,
            final_fraction,
            ..
        } = inverse_sqrt()
        else {
            panic!("the other variant");
        };
        let schedule = Schedule::CosineInverseSqrt {
            warmup_tokens,
            decay_tokens,
            decay,
            final_fraction,
            cosine_tokens: TokenSpan::Tokens(cosine_tokens),
            cosine_floor,
        };
        schedule.check(TOTAL).unwrap_err().to_string()
    };
    assert!(check(700_000, 0.1).contains("650000 of the run's tokens are left"));
    assert!(check(0, 0.1).contains("schedule.cosine_tokens is 0"));
    assert!(check(5, 1.0).contains("schedule.cosine_floor is 1"));
}

#[test]
fn a_schedule_longer_than_the_run_is_refused() {
    let schedule = trapezoid(DecayShape::Linear, 0.0);
    assert!(schedule.check(TOTAL).is_ok());
    let message = schedule.check(120_000).unwrap_err().to_string();
    assert!(
        message.contains("148000 together, more than the run's 120000"),
        "{message}"
    );
    assert!(trapezoid(DecayShape::Linear, 1.5).check(TOTAL).is_err());
    assert!(
        Schedule::Constant {
            warmup_tokens: TokenSpan::Tokens(u64::MAX)
        }
        .check(5)
        .is_err()
    );
}

#[test]
fn toml_in_and_out() {
    let all = [
        Schedule::default(),
        trapezoid(DecayShape::Linear, 0.25),
        Schedule::Constant {
            warmup_tokens: TokenSpan::Fraction(0.07),
        },
        Schedule::OneMinusSqrt {
            decay_tokens: TokenSpan::Tokens(5),
            final_fraction: 0.001,
        },
        Schedule::LinearWithWarmup {
            warmup_tokens: TokenSpan::Fraction(0.005),
            final_fraction: 0.0,
        },
        Schedule::CosineWithWarmup {
            warmup_tokens: TokenSpan::Tokens(7),
            final_fraction: 0.1,
        },
        inverse_sqrt(),
    ];
    for schedule in all {
        let text = toml::to_string(&schedule).unwrap();
        assert!(text.contains(schedule.kind()), "{text}");
        assert_eq!(
            toml::from_str::<Schedule>(&text).unwrap(),
            schedule,
            "{text}"
        );
    }
    let bare: Schedule = toml::from_str("kind = 'cosine_inverse_sqrt'").unwrap();
    assert_eq!(
        bare,
        Schedule::CosineInverseSqrt {
            warmup_tokens: TokenSpan::Tokens(0),
            cosine_tokens: TokenSpan::Fraction(0.25),
            cosine_floor: 0.1,
            decay_tokens: TokenSpan::Tokens(0),
            decay: DecayShape::OneMinusSqrt,
            final_fraction: 0.0,
        }
    );
    let bare: Schedule = toml::from_str("kind = 'one_minus_sqrt'").unwrap();
    assert_eq!(
        bare,
        Schedule::OneMinusSqrt {
            decay_tokens: TokenSpan::Fraction(1.0),
            final_fraction: 0.001
        }
    );
}

#[test]
fn each_mistake_is_explained() {
    let cases = [
        ("kind = 'cosine'", "one_minus_sqrt"),
        (
            "kind = 'constant'\ndecay_tokens = 5",
            "no meaning for kind = \"constant\"",
        ),
        ("kind = 'constant'\nwarmup = 5", "unknown field `warmup`"),
        (
            "kind = 'cosine_with_warmup'\ncosine_floor = 0.5",
            "schedule.cosine_floor has no meaning",
        ),
        (
            "kind = 'constant'\nwarmup_tokens = -5",
            "a number of tokens such as 3_000_000",
        ),
        (
            "kind = 'constant'\nwarmup_tokens = '120%'",
            "a share of the run such as \"5%\"",
        ),
        (
            "kind = 'constant'\nwarmup_tokens = 0.5",
            "a share of the run such as \"5%\"",
        ),
    ];
    for (text, expected) in cases {
        let message = toml::from_str::<Schedule>(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

proptest! {
    #[test]
    fn the_factor_stays_in_its_bounds(
        warmup in any::<u64>(), decay in any::<u64>(), seen in any::<u64>(), total in any::<u64>(), last in 0.0f64..=1.0,
    ) {
        for shape in [DecayShape::Linear, DecayShape::OneMinusSqrt, DecayShape::Cosine] {
            let schedule = Schedule::WarmupStableDecay {
                warmup_tokens: TokenSpan::Tokens(warmup), decay_tokens: TokenSpan::Tokens(decay), decay: shape, final_fraction: last,
            };
            prop_assert!((0.0..=1.0).contains(&schedule.factor(seen, total)));
        }
    }
}

/// Thresholds computed by hand from the published numbers, per device of eight: base grows from 768 to 4608 sequences in 6 sizes over
/// 50e9 tokens, large from 448 to 4928 in 11 sizes over 10e9.
#[test]
fn batch_sizes_change_at_the_golden_thresholds() {
    let ends =
        |warmup: &BatchWarmup| -> Vec<u64> { warmup.sizes().iter().map(|&(_, end)| end).collect() };
    let base = BatchWarmup::new(1, 1, 6, 50_000_000_000 / 8);
    let golden = [
        416_666_667,
        1_250_000_000,
        2_500_000_000,
        4_166_666_667,
        6_250_000_000,
    ];
    assert_eq!(ends(&base), golden);
    let large = BatchWarmup::new(1, 1, 11, 10_000_000_000 / 8);
    let golden = [
        22_727_273,
        68_181_819,
        136_363_637,
        227_272_728,
        340_909_091,
        477_272_728,
        636_363_637,
        818_181_819,
        1_022_727_273,
        1_250_000_000,
    ];
    assert_eq!(ends(&large), golden);
    // The same in sequences of all devices: the sizes are multiples of 768.
    let all = BatchWarmup::new(768, 768, 4608, 50_000_000_000);
    let golden = [
        3_333_333_334,
        10_000_000_000,
        20_000_000_000,
        33_333_333_334,
        50_000_000_000,
    ];
    assert_eq!(ends(&all), golden);
    assert_eq!(
        [
            0,
            3_333_333_333,
            3_333_333_334,
            49_999_999_999,
            50_000_000_000
        ]
        .map(|t| all.size(t)),
        [768, 768, 1536, 3840, 4608]
    );
}

#[test]
fn each_batch_size_gets_as_many_steps() {
    let warmup = BatchWarmup::new(2, 2, 10, 1_000_000);
    let (mut seen, mut steps) = (0u64, std::collections::BTreeMap::new());
    while seen < 1_000_000 {
        let size = warmup.size(seen);
        *steps.entry(size).or_insert(0i64) += 1;
        seen += size as u64 * 100;
    }
    let counts: Vec<i64> = steps.values().copied().collect();
    assert_eq!(steps.keys().copied().collect::<Vec<_>>(), [2, 4, 6, 8]);
    assert!(
        counts.iter().all(|n| (n - counts[0]).abs() <= 1),
        "{counts:?}"
    );
    assert_eq!(warmup.size(seen), 10);
}

#[test]
fn without_a_warmup_every_batch_is_full() {
    for warmup in [
        BatchWarmup::none(6),
        BatchWarmup::new(1, 1, 6, 0),
        BatchWarmup::new(6, 1, 6, 100),
        BatchWarmup::new(9, 0, 6, 100),
    ] {
        assert_eq!(
            (warmup.size(0), warmup.size(u64::MAX), warmup.full()),
            (6, 6, 6)
        );
    }
    assert_eq!(BatchWarmup::new(1, 1, 3, u64::MAX).size(u64::MAX - 1), 2);
}

#[test]
fn the_rotary_base_rises_in_equal_steps() {
    let ramp = RotaryRamp {
        from: 10_000.0,
        step: 10_000.0,
        to: 160_000.0,
        tokens: 15_000_000_000,
    };
    let golden = [
        (0, 10_000.0),
        (999_999_999, 10_000.0),
        (1_000_000_000, 20_000.0),
        (7_500_000_000, 80_000.0),
        (14_999_999_999, 150_000.0),
        (15_000_000_000, 160_000.0),
        (u64::MAX, 160_000.0),
    ];
    for (tokens, base) in golden {
        assert_eq!(ramp.at(tokens), base, "{tokens}");
    }
    // A step that does not divide the distance: 3 steps over 300 tokens, the last one shorter.
    let uneven = RotaryRamp {
        from: 100.0,
        step: 40.0,
        to: 200.0,
        tokens: 300,
    };
    let bases = [0, 99, 100, 200, 299, 300].map(|tokens| uneven.at(tokens));
    assert_eq!(bases, [100.0, 100.0, 140.0, 180.0, 180.0, 200.0]);
}
