//! Sizes and durations as people read them, in docker's words.

use std::time::Duration;

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in decimal units with three significant digits: `1.24MB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 3)
}

/// A size in binary units with four significant digits: `7.652GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    #[allow(clippy::cast_precision_loss)] // Three digits are shown.
    let mut value = bytes as f64;
    let mut unit = 0;
    let limit = 10f64.powi(i32::try_from(digits).unwrap_or(3)) - 0.5;
    let last = units.len() - 1;
    while unit < last && (value >= base || (base < 1010.0 && value >= limit)) {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// `value` with at most `digits` significant digits and no trailing zeros, as C's `%g`.
fn significant(value: f64, digits: usize) -> String {
    let whole = format!("{value:.0}").len();
    let mut text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
    text
}

/// A length of time in one unit: `About a minute`, `3 weeks`.
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let hours = (seconds + 1800) / 3600;
    match (seconds, seconds / 60, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (s, ..) if s < 60 => format!("{s} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., h) if h < 48 => format!("{h} hours"),
        (.., h) if h < 24 * 14 => format!("{} days", h / 24),
        (.., h) if h < 24 * 60 => format!("{} weeks", h / 24 / 7),
        (.., h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        (s, ..) => format!("{} years", s / 3600 / 24 / 365),
    }
}

/// A short length of time with a fraction, for progress: `0.3s`, `1m12s`.
pub(crate) fn elapsed(length: Duration) -> String {
    match length.as_secs() {
        0..60 => format!("{:.1}s", length.as_secs_f64()),
        s if s < 3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_240_000, "1.24MB"),
            (77_800_000, "77.8MB"),
            (999_900, "1MB"),
            (123_456_789_012, "123GB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(binary_size(8_216_000_000), "7.652GiB");
        assert_eq!(binary_size(1 << 20), "1MiB");
        assert_eq!(binary_size(1023 << 10), "1023KiB");
    }

    #[test]
    fn durations_are_dockers_words() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn elapsed_keeps_one_digit_below_a_minute() {
        assert_eq!(elapsed(Duration::from_millis(349)), "0.3s");
        assert_eq!(elapsed(Duration::from_secs(72)), "1m12s");
        assert_eq!(elapsed(Duration::from_secs(3700)), "1h01m");
    }
}
