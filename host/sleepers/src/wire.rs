//! What the autoscaler asks a DLX replica, and what it answers.
//!
//! A probe asks on a DLX port whether the replica stands in for a Sleeper there. A demand report, on the admin port, says who
//! waits for what.

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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
