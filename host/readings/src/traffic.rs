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

/// How many requests and connections arrived in a second, on average over the window or since the first of them: at least a second, as
/// nobody knows how many more the first moment brings.
pub(crate) fn arrival_rate(entry: Option<&DemandEntry>, window: Duration) -> Sample {
    let Some(entry) = entry else {
        return Sample::Value(Quantity::ZERO);
    };
    let Some(arrivals) = &entry.arrivals else {
        return Sample::NoData("this version of the DLX does not count what arrives".into());
    };
    let (arrived, span) = arrivals.within(window);
    let millis = span.max(Duration::from_secs(1)).as_millis();
    let rate = u128::from(arrived) * 1_000_000 / millis;
    Sample::Value(Quantity::from_millis(i64::try_from(rate).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_sleepers::Arrivals;
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

    fn arrivals(counts: &[u64], millis: u64) -> Arrivals {
        Arrivals {
            counts: counts.to_vec(),
            millis,
        }
    }

    #[rstest]
    #[case::nobody_came(None, "0")]
    #[case::at_once(Some(arrivals(&[35], 200)), "35")]
    #[case::since_the_first(Some(arrivals(&[5, 30, 40], 500)), "30")]
    #[case::over_the_window(Some(arrivals(&[0, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 80], 0)), "20")]
    #[case::a_part_of_one(Some(arrivals(&[0, 0, 1], 0)), "500m")]
    #[case::none_of_late(Some(arrivals(&[], 0)), "0")]
    fn arrivals_are_counted_in_a_second(#[case] counted: Option<Arrivals>, #[case] sample: &str) {
        let entry = counted.map(|counted| DemandEntry {
            arrivals: Some(counted),
            ..DemandEntry::default()
        });
        let rate = arrival_rate(entry.as_ref(), Duration::from_secs(10));
        assert_eq!(rate.to_string(), sample);
    }

    #[test]
    fn a_dlx_that_does_not_count_arrivals_gives_no_data() {
        let rate = arrival_rate(Some(&held()), Duration::from_secs(10));
        assert!(matches!(rate, Sample::NoData(_)), "{rate}");
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
