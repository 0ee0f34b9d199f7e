//! What is allowed for each duration, count and port: one table, which `--help`, the file and the environment share.
//!
//! A test goes through all flags, so a new one of these types needs a line here.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is allowed for one key.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The key, without its section.
    pub key: &'static str,
    /// What is allowed.
    pub allowed: Allowed,
}

/// Both ends belong to it.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// A time.
    Between(Duration, Duration),
    /// A time, or none at all, because zero has a meaning here.
    NoneOrBetween(Duration, Duration),
    /// A number.
    Count(u64, u64),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = dormouse_model::format_duration;
        match *self {
            Self::Between(least, most) => write!(f, "{} to {}", span(least), span(most)),
            Self::NoneOrBetween(least, most) => write!(f, "0s, or {} to {}", span(least), span(most)),
            Self::Count(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

impl Allowed {
    /// Whether a value, as it stands in the configuration, is within.
    ///
    /// # Errors
    /// The value and what is allowed. No value is fine: the default holds.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let fine = match (*self, value) {
            (_, Value::Null) => true,
            (Self::Count(least, most), Value::Number(number)) => number
                .as_u64()
                .is_some_and(|number| (least..=most).contains(&number)),
            (Self::Between(least, most), Value::String(text)) => within(text, least, most, false),
            (Self::NoneOrBetween(least, most), Value::String(text)) => within(text, least, most, true),
            _ => false,
        };
        if fine {
            return Ok(());
        }
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(format!("{shown} is out of range: {self} is allowed"))
    }
}

fn within(text: &str, least: Duration, most: Duration, or_zero: bool) -> bool {
    dormouse_model::parse_duration(text)
        .is_ok_and(|span| (least..=most).contains(&span) || (or_zero && span.is_zero()))
}

const fn range(key: &'static str, allowed: Allowed) -> Range {
    Range { key, allowed }
}

/// The table. Below a tenth of a second a process would do nothing else; above a day nobody waits.
const COMMON: &[Range] = &[
    range(
        "resourceReadinessTimeout",
        Allowed::Between(MS.saturating_mul(100), DAY),
    ),
    // Zero: open connections are cut.
    range("drainGrace", Allowed::NoneOrBetween(MS, DAY)),
    range("outageGrace", Allowed::NoneOrBetween(MS, DAY)),
    range("lookSettle", Allowed::Between(MS.saturating_mul(10), DAY)),
    range(
        "lookLongest",
        Allowed::Between(MS.saturating_mul(100), DAY.saturating_mul(30)),
    ),
    range("dlxAbsence", Allowed::Between(MS.saturating_mul(100), HOUR)),
];

const AUTOSCALER: &[Range] = &[
    range("scaleInterval", Allowed::Between(MS.saturating_mul(100), DAY)),
    // Each is one more Lease that is written every two seconds.
    range("shards", Allowed::Count(1, 64)),
    range("promPort", Allowed::Count(1, 65_535)),
];

const DLX: &[Range] = &[
    range("targetPort", Allowed::Count(1, 65_535)),
    range("maxHeldPerResource", Allowed::Count(1, 10_000_000)),
    range("maxHeld", Allowed::Count(1, 10_000_000)),
    range("maxHeaderFields", Allowed::Count(16, 10_000)),
    range("maxHeaderBytes", Allowed::Count(4096, 1 << 20)),
    // Zero: as long as the client stays.
    range(
        "responseTimeout",
        Allowed::NoneOrBetween(MS.saturating_mul(100), DAY),
    ),
    range("maxConnections", Allowed::Count(1, 10_000_000)),
    range("maxConnectionsPerClient", Allowed::Count(1, 10_000_000)),
    range("maxHeldPerClient", Allowed::Count(1, 10_000_000)),
    range("sendTimeout", Allowed::Between(MS.saturating_mul(100), DAY)),
    range("bodyTimeout", Allowed::Between(MS.saturating_mul(100), DAY)),
    range("halfClosedTimeout", Allowed::Between(MS.saturating_mul(100), DAY)),
    range(
        "tcpSilence",
        Allowed::Between(MS.saturating_mul(10), SECOND.saturating_mul(10)),
    ),
    range("connectionIdle", Allowed::NoneOrBetween(SECOND, DAY)),
    // Zero: as long as both sides like.
    range("tcpIdleLimit", Allowed::NoneOrBetween(SECOND, DAY)),
    range("tcpHalfOpenLimit", Allowed::NoneOrBetween(SECOND, DAY)),
    range("drainLimit", Allowed::NoneOrBetween(MS, DAY)),
    range("shutdownDelay", Allowed::NoneOrBetween(MS, HOUR)),
];

/// Options of subcommands that are flags alone.
const OTHERS: &[Range] = &[
    range("deadline", Allowed::Between(SECOND, DAY)),
    range("wakeLimit", Allowed::Between(SECOND, DAY)),
    // Bytes of `dormouse plugin compile`.
    range("memory", Allowed::Count(1 << 20, 1 << 50)),
    range("patience", Allowed::NoneOrBetween(MS, DAY)),
    // Of `dormouse simulate`.
    range("every", Allowed::Between(SECOND, DAY)),
    range("sleepAfter", Allowed::Between(SECOND, DAY)),
    range("startup", Allowed::NoneOrBetween(MS, DAY)),
];

/// What is allowed for the keys of a section.
pub fn of(section: &str) -> &'static [Range] {
    match section {
        "common" => COMMON,
        "autoscaler" => AUTOSCALER,
        "dlx" => DLX,
        _ => OTHERS,
    }
}

/// `wakeLimit` as it is written on the command line: `wake-limit`.
fn flag(key: &str) -> String {
    let mut flag = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
    }
    flag
}

/// Checks the flag of a subcommand that is in no section.
///
/// # Errors
/// When it is out of its range.
pub fn check_flag(key: &str, value: Option<super::Span>) -> anyhow::Result<()> {
    let value = value.map_or(Value::Null, |span| Value::String(span.to_string()));
    for range in OTHERS.iter().filter(|range| range.key == key) {
        range
            .allowed
            .check(&value)
            .map_err(|problem| anyhow::anyhow!("--{}: {problem}", flag(key)))?;
    }
    Ok(())
}
