//! Moments and spans that stop at the ends of time instead of overflowing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// As a span that timestamps can be compared with.
pub(crate) fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// So much after a moment.
pub(crate) fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.saturating_add(span(duration)).unwrap_or(Timestamp::MAX)
}

/// So much before a moment.
pub(crate) fn before(at: Timestamp, duration: Duration) -> Timestamp {
    at.saturating_sub(span(duration)).unwrap_or(Timestamp::MIN)
}

/// Seconds as the API writes them. Below zero, which the API refuses, they are none.
pub(crate) fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Whether more than `duration` has passed since a moment.
pub(crate) fn has_passed(since: Timestamp, duration: Duration, now: Timestamp) -> bool {
    after(since, duration) < now
}
