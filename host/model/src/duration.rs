//! Durations as Go writes them, and the names of metrics over a window.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Longest span that Go can hold: 2^63-1 nanoseconds, about 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not of the form `1h30m`.
    #[error("{0:?} is not a duration such as 15m, 1h30m, 1.5h or 500ms")]
    Malformed(String),
    /// A number has no unit.
    #[error("{0:?} lacks a unit: ns, us, ms, s, m or h")]
    NoUnit(String),
    /// A unit that Go does not know either.
    #[error("{text:?} has the unknown unit {unit:?}; known are ns, us, ms, s, m and h")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit.
        unit: String,
    },
    /// Below zero.
    #[error("{0:?} is negative")]
    Negative(String),
    /// Longer than about 292 years.
    #[error("{0:?} is too long")]
    TooLong(String),
}

/// Reads a duration in Go's syntax: `15m`, `1h30m`, `1.5h`, `500ms`, `0`. Fractions of a nanosecond are cut off.
///
/// # Errors
/// [`DurationError`] when Go would refuse the text too, or when it is negative.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total = 0_u128;
    if rest != "0" {
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let end = after
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            if unit.is_empty() {
                return Err(DurationError::NoUnit(text.to_owned()));
            }
            let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(DurationError::UnknownUnit {
                    text: text.to_owned(),
                    unit: unit.to_owned(),
                });
            };
            // Nineteen digits hold the longest span; more of them are zeros or too long.
            let whole = whole.trim_start_matches('0');
            if whole.len() > 19 {
                return Err(too_long());
            }
            let whole: u128 = if whole.is_empty() {
                0
            } else {
                whole.parse().map_err(|_| malformed())?
            };
            // Digits behind the eighteenth are below a millionth of a nanosecond whatever the unit.
            let fraction = &fraction[..fraction.len().min(18)];
            let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
            let fraction: u128 = if fraction.is_empty() {
                0
            } else {
                fraction.parse().map_err(|_| malformed())?
            };
            total += whole * u128::from(*nanos) + fraction * u128::from(*nanos) / scale;
            if total > LONGEST {
                return Err(too_long());
            }
            rest = after;
        }
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    u64::try_from(total)
        .map(Duration::from_nanos)
        .map_err(|_| too_long())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Writes a duration exactly as Go's `Duration.String` does: `15m0s`, `1h30m0s`, `1.5s`, `500ms`, `0s`.
pub fn format_duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    let fraction = |nanos: u128, unit: u128, name: &str| {
        let (whole, rest) = (nanos / unit, nanos % unit);
        if rest == 0 {
            return format!("{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        format!("{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// A window as v3io writes it into metric names: Go's form without trailing zero units (`1h`, `10m`, `1m30s`).
pub fn window_name(window: Duration) -> String {
    let mut name = format_duration(window);
    if name.ends_with("m0s") {
        name.truncate(name.len() - 2);
    }
    if name.ends_with("h0m") {
        name.truncate(name.len() - 2);
    }
    name
}

/// The name under which the custom metrics API knows a metric over a window: `requests_per_10m`.
pub fn metric_name(metric: &str, window: Duration) -> String {
    format!("{metric}_per_{}", window_name(window))
}

/// A duration that reads and writes itself in Go's syntax, for flags, annotations and configuration files.
///
/// When it is deserialised it may also be an integer: nanoseconds, as v3io accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_duration(self.0))
    }
}

impl From<GoDuration> for Duration {
    fn from(span: GoDuration) -> Self {
        span.0
    }
}

impl From<Duration> for GoDuration {
    fn from(span: Duration) -> Self {
        Self(span)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNanos;

        impl Visitor<'_> for TextOrNanos {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 15m or 1h30m, or nanoseconds")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, nanos: u64) -> Result<GoDuration, E> {
                if u128::from(nanos) > LONGEST {
                    return Err(E::invalid_value(Unexpected::Unsigned(nanos), &self));
                }
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }

            fn visit_i64<E: serde::de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
                let nanos =
                    u64::try_from(nanos).map_err(|_| E::invalid_value(Unexpected::Signed(nanos), &self))?;
                self.visit_u64(nanos)
            }
        }

        deserializer
            .deserialize_any(TextOrNanos)
            .map_err(D::Error::custom)
    }
}
