//! Counts and durations for people.

pub use modernbert_files::wording::{counted, shown};

/// `1234567` as `1.23M`.
pub fn human_count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", count as f64 / 1e6),
        _ => format!("{:.2}G", count as f64 / 1e9),
    }
}

/// `3` as `3rd`.
pub fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// `83` seconds as `1m23s`.
pub fn human_seconds(seconds: f64) -> String {
    // An estimate that is not finite, or longer than 3000 years, is no duration.
    if seconds.is_nan() || seconds >= 1e11 {
        return "unknown".to_string();
    }
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_have_their_endings() {
        let all = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal);
        let expected = [
            "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn durations_are_never_absurd() {
        assert_eq!(human_seconds(83.0), "1m23s");
        assert_eq!(human_seconds(-1.0), "0s");
        for odd in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(human_seconds(odd), "unknown");
        }
    }
}
