//! Sizes, durations and times as flags take them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::time::Duration;

/// A size in bytes: `512`, `64m`, `1.5GiB`. Units are binary, case doesn't matter.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid size: '{text}': expected a number with an optional unit, such as 512m");
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power: i32 = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(bad);
    }
    if number.starts_with('.') || number.ends_with('.') {
        return Err(bad());
    }
    #[allow(clippy::cast_precision_loss)] // A fraction of a unit is not exact anyway.
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if !(0.0..9e18).contains(&value) {
        return Err(bad());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // In range, see above.
    Ok(value as u64)
}

/// A size, or -1 for no limit.
pub(crate) fn parse_size_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    parse_size(text).map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// CPUs as a decimal number, in billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid number of CPUs {text:?}: expected a number such as 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(bad());
    }
    if fraction.len() > 9 {
        return Err(format!("invalid number of CPUs {text:?}: value is too precise"));
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nanos)).filter(|n| *n <= 1 << 53).ok_or_else(bad)
}

/// A length of time in Go's notation: `30s`, `1m30s`, `1.5h`, `250ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}: expected a number with a unit, such as 30s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "" => return Err(format!("missing unit in duration {text:?}: expected for example {text}s")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unit => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
        };
        rest = &rest[letters..];
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
    }
    // Go's durations are 64-bit nanoseconds; the image config's are too.
    i64::try_from(total.as_nanos()).map(|_| total).map_err(|_| bad())
}

/// A point in time: RFC 3339, a date with or without a time (in `zone`), seconds since 1970, or a duration before `now`.
pub(crate) fn parse_time(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let bad =
        || format!("invalid time {text:?}: expected a duration such as 10m, a date, RFC 3339 or seconds since 1970");
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return local.to_zoned(zone.clone()).map(|z| z.timestamp()).map_err(|_| bad());
    }
    if let Some(time) = parse_unix(text) {
        return Ok(time);
    }
    let ago = parse_duration(text).map_err(|_| bad())?;
    now.checked_sub(ago).map_err(|_| bad())
}

/// `1700000000` and `1700000000.123456789`.
fn parse_unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("2 kb", 2048),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "m", "-1", "1x", "1.5.5m", "1 0k", "1ib", ".5m", "99999999999999999999", "9999999p", "1kk", "+1"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_size_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus(".01"), Ok(10_000_000));
        assert_eq!(parse_cpus("2"), Ok(2_000_000_000));
        for bad in ["", ".", "-1", "x", "1.1.1", "0.0000000001", "1e3"] {
            assert!(parse_cpus(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [("0", 0), ("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "30", "s", "1x", "-1s", "1s1", "999999999h", "1.2.3s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_may_be_relative() -> Result<(), Box<dyn std::error::Error>> {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse()?;
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00.5", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01", "2026-01-01T00:00:00Z"),
            ("10m", "2026-01-02T02:54:05Z"),
            ("1767225600", "2026-01-01T00:00:00Z"),
            ("1767225600.25", "2026-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(parse_time(text, now, &TimeZone::UTC)?, expected.parse::<Timestamp>()?, "{text}");
        }
        assert!(parse_time("yesterday", now, &TimeZone::UTC).is_err());
        Ok(())
    }
}
