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
        for shape in [DecayShape::Linear, DecayShape::OneMinusSqrt] {
            let schedule = Schedule::WarmupStableDecay {
                warmup_tokens: TokenSpan::Tokens(warmup), decay_tokens: TokenSpan::Tokens(decay), decay: shape, final_fraction: last,
            };
            prop_assert!((0.0..=1.0).contains(&schedule.factor(seen, total)));
        }
    }
}
