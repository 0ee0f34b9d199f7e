//! The traffic that the DLX observes.

use std::time::Duration;

use dormouse_model::{Quantity, window_name};
use dormouse_scaling::Sample;
use dormouse_sleepers::DemandEntry;
use jiff::{SignedDuration, Timestamp};

/// Requests and connections at the DLX since it stepped into the traffic, once that is long enough ago. `age` is how long ago the DLX
/// was asked.
pub(crate) fn traffic(
    entry: Option<&DemandEntry>,
    age: Duration,
    window: Duration,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Sample {
    let current = entry.map_or(0, DemandEntry::current);
    if current > 0 {
        return Sample::Value(Quantity::from(current));
    }
    let Some(since) = since else {
        return Sample::NoData("not observed yet".into());
    };
    let observed = now.duration_since(since);
    let span = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let quiet = entry
        .and_then(|entry| entry.idle_millis)
        .map(|millis| i64::try_from(millis.saturating_add(age)).unwrap_or(i64::MAX))
        .map(SignedDuration::from_millis);
    // What ended before the DLX stepped in belongs to an earlier time.
    if quiet.is_some_and(|quiet| quiet < span && quiet < observed) {
        return Sample::Value(Quantity::from(1));
    }
    if observed < span {
        return Sample::NoData(format!("observed for less than {}", window_name(window)).into());
    }
    Sample::Value(Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MINUTE: u64 = 60_000;

    fn ended(millis: u64) -> DemandEntry {
        DemandEntry {
            idle_millis: Some(millis),
            ..DemandEntry::default()
        }
    }

    fn held() -> DemandEntry {
        DemandEntry {
            held: 2,
            idle_millis: Some(0),
            ..DemandEntry::default()
        }
    }

    #[rstest]
    #[case::nobody_came(None, Some(10), "0")]
    #[case::not_for_long_enough(None, Some(9), "no data (observed for less than 10m)")]
    #[case::not_in_the_path(None, None, "no data (not observed yet)")]
    #[case::held(Some(held()), Some(10), "2")]
    #[case::held_before_it_is_in_the_path(Some(held()), None, "2")]
    #[case::came_and_went(Some(ended(9 * MINUTE)), Some(20), "1")]
    #[case::long_ago(Some(ended(10 * MINUTE)), Some(20), "0")]
    #[case::before_it_stepped_in(Some(ended(9 * MINUTE)), Some(5), "no data (observed for less than 10m)")]
    fn what_is_counted(
        #[case] entry: Option<DemandEntry>,
        #[case] observed: Option<i64>,
        #[case] sample: &str,
    ) {
        let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        let since = observed.map(|minutes| now - SignedDuration::from_mins(minutes));
        let window = Duration::from_secs(600);
        assert_eq!(
            traffic(entry.as_ref(), Duration::ZERO, window, since, now).to_string(),
            sample
        );
    }

    #[test]
    fn an_answer_from_a_while_ago_has_been_quiet_for_longer() {
        let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        let since = Some(now - SignedDuration::from_mins(60));
        let read = |age| {
            let entry = ended(9 * MINUTE + 58_000);
            traffic(
                Some(&entry),
                Duration::from_secs(age),
                Duration::from_secs(600),
                since,
                now,
            )
            .to_string()
        };
        assert_eq!((read(1), read(2)), ("1".to_owned(), "0".to_owned()));
    }
}
