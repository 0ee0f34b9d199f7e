//! What the autoscaler asks a DLX replica, and what it answers.
//!
//! A probe asks on a DLX port whether the replica stands in for a Sleeper there. A demand report, on the admin port, says who
//! waits for what.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Path of a probe on a DLX port.
pub const PROBE_PATH: &str = "/.well-known/dormouse/probe";
/// Request header of a probe: the uid of the Sleeper that is meant.
pub const PROBE_HEADER: &str = "dormouse-probe";
/// Response header of a probe: the uid of the Sleeper that the DLX stands in for on this port.
pub const PROBE_ANSWER_HEADER: &str = "dormouse-sleeper";
/// Path of the demand report on the admin port.
pub const DEMAND_PATH: &str = "/demand";

/// Answer of a DLX replica to `GET /demand` on its admin port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandReport {
    /// Sleepers that the replica has or had demand for. One that is missing has none.
    pub sleepers: Vec<DemandEntry>,
}

/// Demand for one Sleeper at one DLX replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandEntry {
    /// Namespace of the Sleeper.
    pub namespace: String,
    /// Object name of the Sleeper.
    pub sleeper: String,
    /// Requests that wait for it.
    pub held: u64,
    /// Requests that are being answered.
    pub in_flight: u64,
    /// Open upgraded connections (WebSocket) and those that are not HTTP, on which bytes have moved not long ago.
    pub upgraded: u64,
    /// Such connections on which none have: no demand.
    #[serde(skip_serializing_if = "is_zero")]
    pub idle: u64,
    /// Requests and connections since the replica began to count.
    pub total: u64,
    /// Milliseconds since the last request ended or the last bytes of a connection moved; 0 while there is demand. None: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_millis: Option<u64>,
    /// Requests and connections that arrived of late. None: there never was one, or the replica is of a version that does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
}

/// Requests and connections that arrived within the last minute, by second. The first of these seconds began with an arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arrivals {
    /// How many in each second, the latest first. Empty: none within the last minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
    /// How many milliseconds ago the latest second began.
    #[serde(skip_serializing_if = "is_zero")]
    pub millis: u64,
}

impl Arrivals {
    /// How many arrived within a window, and in how long: in the window, rounded up to when one of the seconds began, or in what has passed
    /// since the first of them.
    pub fn within(&self, window: Duration) -> (u64, Duration) {
        let mut began = Duration::from_millis(self.millis);
        let (mut arrived, mut span) = (0_u64, Duration::ZERO);
        for count in &self.counts {
            arrived = arrived.saturating_add(*count);
            span = began;
            if began >= window {
                break;
            }
            began += Duration::from_secs(1);
        }
        (arrived, span)
    }

    /// What another replica counted, added to this. Their seconds begin at other moments; the earliest first one counts.
    fn add(&mut self, other: &Self) {
        let this_begins_later = (self.counts.len(), self.millis) < (other.counts.len(), other.millis);
        if this_begins_later {
            self.millis = other.millis;
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl DemandEntry {
    /// Demand right now.
    pub fn current(&self) -> u64 {
        self.held
            .saturating_add(self.in_flight)
            .saturating_add(self.upgraded)
    }

    /// What another replica says of the same Sleeper, added to this.
    pub(crate) fn add(&mut self, other: &Self) {
        self.held = self.held.saturating_add(other.held);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.upgraded = self.upgraded.saturating_add(other.upgraded);
        self.idle = self.idle.saturating_add(other.idle);
        self.total = self.total.saturating_add(other.total);
        // The most recent end counts.
        self.idle_millis = match (self.idle_millis, other.idle_millis) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        if let Some(arrivals) = &other.arrivals {
            self.arrivals.get_or_insert_default().add(arrivals);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn replicas_of_two_versions_understand_each_other() {
        let entry = DemandEntry {
            namespace: "n".into(),
            sleeper: "s".into(),
            in_flight: 2,
            ..DemandEntry::default()
        };
        let report = DemandReport {
            sleepers: vec![entry],
        };
        let before =
            r#"{"sleepers":[{"namespace":"n","sleeper":"s","held":0,"inFlight":2,"upgraded":0,"total":0}]}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), before);
        assert_eq!(serde_json::from_str::<DemandReport>(before).unwrap(), report);
        let after = r#"{"sleepers":[{"namespace":"n","sleeper":"s","inFlight":2,"new":1}],"more":true}"#;
        assert_eq!(serde_json::from_str::<DemandReport>(after).unwrap(), report);
    }

    #[test]
    fn of_several_replicas_the_last_end_counts() {
        let entry = |held, idle_millis| DemandEntry {
            held,
            idle_millis,
            ..DemandEntry::default()
        };
        let mut sum = entry(1, Some(500));
        sum.add(&entry(2, None));
        sum.add(&entry(0, Some(20)));
        assert_eq!((sum.current(), sum.idle_millis), (3, Some(20)));
    }

    fn arrivals(counts: &[u64], millis: u64) -> Arrivals {
        Arrivals {
            counts: counts.to_vec(),
            millis,
        }
    }

    #[rstest]
    #[case::since_the_first(&[4, 10, 10], 400, 60, (24, 2_400))]
    #[case::in_the_window(&[4, 10, 10, 10, 10], 400, 2, (24, 2_400))]
    #[case::in_a_window_of_whole_seconds(&[0, 10, 10, 10], 0, 2, (20, 2_000))]
    #[case::just_now(&[7], 30, 60, (7, 30))]
    #[case::none(&[], 0, 60, (0, 0))]
    fn what_arrived_is_counted_over_the_window_or_since_the_first(
        #[case] counts: &[u64],
        #[case] millis: u64,
        #[case] window: u64,
        #[case] expected: (u64, u64),
    ) {
        let (arrived, span) = arrivals(counts, millis).within(Duration::from_secs(window));
        assert_eq!((arrived, span), (expected.0, Duration::from_millis(expected.1)));
    }

    #[rstest]
    #[case::begun_at_once(arrivals(&[3, 5], 200), arrivals(&[4, 6], 100), arrivals(&[7, 11], 200))]
    #[case::the_other_began_earlier(arrivals(&[3], 900), arrivals(&[4, 6], 100), arrivals(&[7, 6], 100))]
    #[case::this_began_earlier(arrivals(&[4, 6], 100), arrivals(&[3], 900), arrivals(&[7, 6], 100))]
    #[case::the_other_has_none(arrivals(&[4, 6], 100), arrivals(&[], 0), arrivals(&[4, 6], 100))]
    #[case::this_has_none(arrivals(&[], 0), arrivals(&[4, 6], 100), arrivals(&[4, 6], 100))]
    fn what_arrived_at_several_replicas_is_added_up_from_the_first_on(
        #[case] one: Arrivals,
        #[case] two: Arrivals,
        #[case] sum: Arrivals,
    ) {
        let mut total = one;
        total.add(&two);
        assert_eq!(total, sum);
    }

    #[test]
    fn what_arrived_survives_the_wire_and_an_older_replica_beside() {
        let counted = DemandEntry {
            arrivals: Some(arrivals(&[1, 2], 5)),
            ..DemandEntry::default()
        };
        let text = serde_json::to_string(&counted).unwrap();
        assert!(
            text.ends_with(r#""arrivals":{"counts":[1,2],"millis":5}}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<DemandEntry>(&text).unwrap(), counted);
        let older: DemandEntry = serde_json::from_str(r#"{"held":3}"#).unwrap();
        assert_eq!(older.arrivals, None);
        for (mut sum, other) in [(older.clone(), &counted), (counted.clone(), &older)] {
            sum.add(other);
            assert_eq!(sum.arrivals, counted.arrivals);
        }
    }
}
