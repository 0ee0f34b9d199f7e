//! Durations as people write them in annotations and flags, in the style of Go: `15m`, `1h30m`, `90s`, `1.5h`, `500ms`.

use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;

/// Units by name, longest name first where one is the beginning of another, with their length in nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// What every error about a duration says in the end.
pub const ACCEPTED: &str = "write numbers with units h, m, s or ms, such as 15m, 1h30m, 90s or 1.5h";

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseDurationError {
    /// Nothing was written.
    #[error("a duration is missing; {ACCEPTED}")]
    Empty,
    /// It starts with a minus.
    #[error("`{0}` is negative; {ACCEPTED}")]
    Negative(String),
    /// A number has no unit.
    #[error("`{text}` has no unit after `{number}`; {ACCEPTED}")]
    NoUnit {
        /// The whole text.
        text: String,
        /// The number that stands alone.
        number: String,
    },
    /// A unit is not one of those known.
    #[error("`{text}` has the unknown unit `{unit}`; {ACCEPTED}")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// What was read as a unit.
        unit: String,
    },
    /// A number was expected.
    #[error("`{text}` has no number before `{rest}`; {ACCEPTED}")]
    NoNumber {
        /// The whole text.
        text: String,
        /// Where a number should begin.
        rest: String,
    },
    /// More than 584 years.
    #[error("`{0}` is too long; {ACCEPTED}")]
    TooLong(String),
}

/// Reads a duration.
///
/// # Errors
/// [`ParseDurationError`], which names the text and the accepted form.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(ParseDurationError::Empty);
    }
    if trimmed.starts_with('-') {
        return Err(ParseDurationError::Negative(text.into()));
    }
    let mut rest = trimmed.strip_prefix('+').unwrap_or(trimmed);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let no_number = || ParseDurationError::NoNumber {
            text: text.into(),
            rest: rest.into(),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(no_number());
        }
        if unit.is_empty() {
            return Err(ParseDurationError::NoUnit {
                text: text.into(),
                number: number.into(),
            });
        }
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ParseDurationError::UnknownUnit {
                text: text.into(),
                unit: unit.into(),
            });
        };
        let too_long = || ParseDurationError::TooLong(text.into());
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| too_long())?
        };
        nanos = whole
            .checked_mul(*length)
            .and_then(|part| nanos.checked_add(part))
            .and_then(|sum| sum.checked_add(fraction_of(fraction, *length)))
            .filter(|sum| *sum <= u128::from(u64::MAX))
            .ok_or_else(too_long)?;
        rest = next;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| ParseDurationError::TooLong(text.into()))
}

/// Nanoseconds of `0.<digits>` units, exactly and rounded down.
fn fraction_of(digits: &str, length: u128) -> u128 {
    // No unit needs more than 13 digits to be exact, and 20 keep the product far from overflow.
    let digits = &digits[..digits.len().min(20)];
    if digits.is_empty() {
        return 0;
    }
    let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    digits.parse::<u128>().unwrap_or(0) * length / scale
}

/// Writes a duration so that [`parse`] reads it back: `1h30m`, `90s` becomes `1m30s`, `0s`.
pub fn format(duration: Duration) -> String {
    let mut text = String::new();
    let seconds = duration.as_secs();
    for (amount, unit) in [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ] {
        if amount > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{amount}{unit}");
        }
    }
    let nanos = duration.subsec_nanos();
    if nanos > 0 {
        let (amount, unit) = match nanos {
            n if n % 1_000_000 == 0 => (n / 1_000_000, "ms"),
            n if n % 1_000 == 0 => (n / 1_000, "us"),
            n => (n, "ns"),
        };
        let _ = write!(text, "{amount}{unit}");
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// So many hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// So many minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// So many seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, expected) in [
            ("15m", minutes(15)),
            ("1h30m", minutes(90)),
            ("90s", seconds(90)),
            ("1.5h", minutes(90)),
            (".5s", Duration::from_millis(500)),
            ("1.s", seconds(1)),
            ("500ms", Duration::from_millis(500)),
            ("1m500ms", Duration::from_millis(60_500)),
            ("1us", Duration::from_micros(1)),
            ("1µs", Duration::from_micros(1)),
            ("0.1s", Duration::from_millis(100)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            (" 3s ", seconds(3)),
            ("+3s", seconds(3)),
            (
                "0.333333333333333333333333h",
                Duration::from_nanos(1_199_999_999_999),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_names_the_accepted_form() {
        let text = String::from;
        for (given, expected) in [
            ("", ParseDurationError::Empty),
            ("  ", ParseDurationError::Empty),
            (
                "15",
                ParseDurationError::NoUnit {
                    text: text("15"),
                    number: text("15"),
                },
            ),
            (
                "1h30",
                ParseDurationError::NoUnit {
                    text: text("1h30"),
                    number: text("30"),
                },
            ),
            (
                "15min",
                ParseDurationError::UnknownUnit {
                    text: text("15min"),
                    unit: text("min"),
                },
            ),
            (
                "15 m",
                ParseDurationError::UnknownUnit {
                    text: text("15 m"),
                    unit: text(" m"),
                },
            ),
            (
                "2d",
                ParseDurationError::UnknownUnit {
                    text: text("2d"),
                    unit: text("d"),
                },
            ),
            (
                "m",
                ParseDurationError::NoNumber {
                    text: text("m"),
                    rest: text("m"),
                },
            ),
            (
                ".m",
                ParseDurationError::NoNumber {
                    text: text(".m"),
                    rest: text(".m"),
                },
            ),
            (
                "1.2.3s",
                ParseDurationError::NoNumber {
                    text: text("1.2.3s"),
                    rest: text("1.2.3s"),
                },
            ),
            ("-3s", ParseDurationError::Negative(text("-3s"))),
            (
                "99999999999999h",
                ParseDurationError::TooLong(text("99999999999999h")),
            ),
        ] {
            let error = parse(given).expect_err(given);
            assert_eq!(error, expected);
            assert!(error.to_string().contains("15m, 1h30m, 90s or 1.5h"), "{error}");
        }
        let huge = format!("{}h", "9".repeat(60));
        assert_eq!(parse(&huge), Err(ParseDurationError::TooLong(huge.clone())));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for nanos in [
            0,
            1,
            1_000,
            1_500_000,
            1_000_000_000,
            5_400_000_000_000,
            3_600_000_000_001,
            u64::MAX,
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(
                parse(&super::format(duration)),
                Ok(duration),
                "{}",
                super::format(duration)
            );
        }
        assert_eq!(super::format(seconds(90)), "1m30s");
        assert_eq!(super::format(minutes(90)), "1h30m");
    }
}
