//! When to step into the traffic of an awake workload to see whether anybody needs it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Epoch;

/// How the last traffic checks of a workload went, and when the next one is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficCheck {
    /// Checks in a row that ended because somebody needed the workload.
    pub disturbed: u32,
    /// No check before this moment.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// How long to leave a workload alone between checks: `settle`, doubled for every disturbed check, at most `longest`.
/// A fifth is taken off or added by `seed`, so that many workloads are not checked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficCheckPolicy {
    /// Wait after a wake or an update before the first check.
    pub settle: Duration,
    /// Longest wait between checks.
    pub longest: Duration,
}

/// The seed of one Sleeper at one epoch: not that of its neighbours, which were woken as often as it was, and another one after
/// each wake.
pub(crate) fn spread(seed: u64, epoch: Epoch) -> u64 {
    seed.wrapping_add(epoch.unsigned_abs())
}

impl Default for TrafficCheckPolicy {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(10),
            longest: Duration::from_secs(30 * 60),
        }
    }
}

impl TrafficCheckPolicy {
    /// The check after one that was disturbed at `now`.
    pub fn disturbed(&self, traffic_check: TrafficCheck, now: Timestamp, seed: u64) -> TrafficCheck {
        let disturbed = traffic_check.disturbed.saturating_add(1);
        TrafficCheck {
            disturbed,
            not_before: Some(
                now.saturating_add(self.wait(disturbed, seed))
                    .unwrap_or(Timestamp::MAX),
            ),
        }
    }

    /// The first check after a wake that completed at `now`.
    pub fn settled(&self, now: Timestamp, seed: u64) -> TrafficCheck {
        TrafficCheck {
            disturbed: 0,
            not_before: Some(now.saturating_add(self.wait(0, seed)).unwrap_or(Timestamp::MAX)),
        }
    }

    fn wait(&self, disturbed: u32, seed: u64) -> SignedDuration {
        let doubled = self
            .settle
            .saturating_mul(2_u32.saturating_pow(disturbed.min(30)))
            .min(self.longest);
        // 80 % to 120 %, spread by a multiplicative hash of the seed (Knuth, TAOCP 6.4).
        let spread = (seed
            .wrapping_add(u64::from(disturbed))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 32)
            % 401;
        let millis = u64::try_from(doubled.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(800 + spread)
            / 1000;
        SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}
